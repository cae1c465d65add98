"""What a user writes about labels and distillation; a published method is a few lines of this."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from recdistill.spec import Spec


class CandidatesSpec(Spec):
    """Which items a ranker scores for each user; the whole catalogue if their number reaches it."""

    ann: NonNegativeInt = 500
    """Nearest items of the scratch student, the retrieval that a ranker would stand behind."""
    popular: NonNegativeInt = 100
    uniform: NonNegativeInt = 200
    """Draws from the whole catalogue, with their probability: what the labels know of all other items."""


class LabelsSpec(Spec):
    """The teacher's lists: how deep, over which items, and how they are kept."""

    depth: PositiveInt = 100
    rest: NonNegativeInt = 0
    """Uniform samples a user of what the teacher scored outside the list, with their probability."""
    precision: Literal["f32", "f16"] = "f32"
    """Of the scores on disk; f16 keeps about three digits, and the order of the list as it is."""
    compute: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the products. With bf16, faster where the processor has it, an encoder's lists and scores stay the
    same bit for bit and its residuals within 2e-3; a ranker's scores move by about a hundredth of their spread."""
    shard_users: Annotated[int, Field(gt=0, le=65_536)] = 65_536
    """Users in one file, at most: what a killed run may lose, and what `label --shard` hands out."""
    ttl_days: PositiveFloat | None = None
    """Labels that were scored longer ago are refused. Not a part of what they are: it may be changed at any time."""
    candidates: CandidatesSpec | None = None
    """Read for a ranker only; an encoder is scored over the whole catalogue. Left out: the whole catalogue."""
    exclude_seen: bool = True
    """Leave each user's training items out of the list."""
    calibration: Literal["none", "temperature", "platt"] = "none"
    """What the scores are fitted to on held-out data: the chance of an item as the next of a list (temperature), or the
    chance that the user takes it at all (platt), in a time as long as the validation part's."""


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


ScoreSpace = Literal["rank", "logit", "probability"]
"""What a teacher's scores mean, each more than the one before: the order, log-odds in a list, the logit of a chance."""

Draw = Annotated[Top | Ranked | Unseen, Field(discriminator="kind")]


class SoftmaxKL(Spec):
    """KL of the student's softmax over the list from the teacher's, both at `temperature`."""

    needs: ClassVar[ScoreSpace] = "logit"
    kind: Literal["softmax_kl"] = "softmax_kl"
    temperature: PositiveFloat = 1.0


class SoftBCE(Spec):
    """Pointwise cross-entropy with the teacher's sigmoid((score + shift) / temperature)."""

    needs: ClassVar[ScoreSpace] = "probability"
    kind: Literal["soft_bce"] = "soft_bce"
    temperature: PositiveFloat = 1.0
    shift: float = 0.0


class PlackettLuce(Spec):
    """Likelihood of the teacher's order, with the unranked draws below it (RRD, Kang et al., CIKM 2020)."""

    needs: ClassVar[ScoreSpace] = "rank"
    kind: Literal["plackett_luce"] = "plackett_luce"


ListLoss = Annotated[SoftmaxKL | SoftBCE | PlackettLuce, Field(discriminator="kind")]


class ListTermSpec(Spec):
    """One distillation term over lists: what to draw, how to compare, how much it weighs."""

    kind: Literal["list"] = "list"
    weight: PositiveFloat
    draw: Annotated[tuple[Draw, ...], Field(min_length=1)]
    loss: ListLoss


TermSpec = ListTermSpec
