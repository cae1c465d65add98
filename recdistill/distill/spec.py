"""What a user writes about labels and distillation; a published method is a few lines of this."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from recdistill.spec import Spec


class CandidatesSpec(Spec):
    """Which items a ranker scores for each user; the whole catalogue if their number reaches it."""

    ann: NonNegativeInt = 500
    """Nearest items of the scratch student, the retrieval that a ranker would stand behind."""
    popular: NonNegativeInt = 100
    uniform: NonNegativeInt = 200


class LabelsSpec(Spec):
    """The teacher's lists: how deep, over which items."""

    depth: PositiveInt = 100
    candidates: CandidatesSpec | None = None
    """Read for a ranker only; an encoder is scored over the whole catalogue. Left out: the whole catalogue."""
    exclude_seen: bool = True
    """Leave each user's training items out of the list."""


class Top(Spec):
    """The first `k` items of the teacher's list."""

    kind: Literal["top"] = "top"
    k: PositiveInt


class Ranked(Spec):
    """`k` items of the list without replacement, with probability falling as exp(-(rank + 1) / temperature)."""

    kind: Literal["ranked"] = "ranked"
    k: PositiveInt
    temperature: PositiveFloat = 10.0


class Unseen(Spec):
    """`n` uniform items that are neither the user's own nor in the teacher's list."""

    kind: Literal["unseen"] = "unseen"
    n: PositiveInt


Draw = Annotated[Top | Ranked | Unseen, Field(discriminator="kind")]


class SoftmaxKL(Spec):
    """KL of the student's softmax over the list from the teacher's, both at `temperature`."""

    kind: Literal["softmax_kl"] = "softmax_kl"
    temperature: PositiveFloat = 1.0


class SoftBCE(Spec):
    """Pointwise cross-entropy with the teacher's sigmoid((score + shift) / temperature)."""

    kind: Literal["soft_bce"] = "soft_bce"
    temperature: PositiveFloat = 1.0
    shift: float = 0.0


class PlackettLuce(Spec):
    """Likelihood of the teacher's order, with the unranked draws below it (RRD, Kang et al., CIKM 2020)."""

    kind: Literal["plackett_luce"] = "plackett_luce"


ListLoss = Annotated[SoftmaxKL | SoftBCE | PlackettLuce, Field(discriminator="kind")]


class ListTermSpec(Spec):
    """One distillation term over lists: what to draw, how to compare, how much it weighs."""

    kind: Literal["list"] = "list"
    weight: PositiveFloat
    draw: Annotated[tuple[Draw, ...], Field(min_length=1)]
    loss: ListLoss


TermSpec = ListTermSpec
