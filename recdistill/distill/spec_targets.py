"""What a user writes about what is taught in place of the teacher's scores."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recdistill.spec import Spec

ScoreSpace = Literal["rank", "logit", "probability"]
"""What a teacher's scores mean, each more than the one before: the order, log-odds in a list, the logit of a chance."""


class RankScore(Spec):
    """The rank in place of the score, as -rank / temperature: what is left where only the order is known."""

    gives: ClassVar[ScoreSpace | None] = "logit"
    kind: Literal["rank"] = "rank"
    temperature: PositiveFloat = 10.0


class Scale(Spec):
    """The teacher's logit times `factor`."""

    gives: ClassVar[ScoreSpace | None] = None
    kind: Literal["scale"] = "scale"
    factor: PositiveFloat


class Adjust(Spec):
    """The teacher's score less `exponent` times log(1 + interactions of the item): a student of few dimensions spends
    them on what is popular, and this gives the tail its share back."""

    gives: ClassVar[ScoreSpace | None] = None
    kind: Literal["adjust"] = "adjust"
    exponent: PositiveFloat = 0.1


class Debias(Spec):
    """Teacher and student through the same correction for how the step's negatives were sampled."""

    gives: ClassVar[ScoreSpace | None] = None
    kind: Literal["debias"] = "debias"


class Adapted(Spec):
    """The teacher's logit through a small network that is trained on what the users took; its output is taught."""

    gives: ClassVar[ScoreSpace | None] = "probability"
    kind: Literal["adapted"] = "adapted"
    hidden: PositiveInt = 16
    loss: PositiveFloat = 1.0
    """Weight of its own cross-entropy, which reaches the student in no way."""


class Smooth(Spec):
    """No teacher: what the user took shares 1 - `share`, everything else in the list shares `share`."""

    gives: ClassVar[ScoreSpace | None] = "logit"
    kind: Literal["smooth"] = "smooth"
    share: Annotated[float, Field(ge=0, le=1)] = 0.1


class Pt(Spec):
    """Of the teacher only how much it gives what the user took, together; all else is even (KD-pt)."""

    gives: ClassVar[ScoreSpace | None] = "logit"
    kind: Literal["pt"] = "pt"


class TopK(Spec):
    """The teacher's `k` largest probabilities over the list, the rest of it even (KD-topk)."""

    gives: ClassVar[ScoreSpace | None] = "logit"
    kind: Literal["topk"] = "topk"
    k: PositiveInt


class Sim(Spec):
    """Cosines of the teacher's item vectors with the mean of what the user took, over `temperature` (KD-sim)."""

    gives: ClassVar[ScoreSpace | None] = "logit"
    kind: Literal["sim"] = "sim"
    temperature: PositiveFloat = 0.1


class Rectify(Spec):
    """The teacher set right in rows in which it puts something above what the user took."""

    gives: ClassVar[ScoreSpace | None] = None
    kind: Literal["rectify"] = "rectify"
    how: Literal["swap", "smooth", "drop"] = "swap"
    """swap: they exchange scores; smooth: the row is taught label smoothing by `share`; drop: it is taught nothing."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.1


class Blend(Spec):
    """What the user took and what the teacher says as one distribution, so that one term is the whole mixture."""

    gives: ClassVar[ScoreSpace | None] = None
    kind: Literal["blend"] = "blend"
    teacher: Annotated[float, Field(ge=0, le=1)] | Literal["auto", "reliable"] = 0.7
    """Its share; auto: at each step where the gradient has the least noise (Safaryan et al., NeurIPS 2023); reliable:
    each user's as far as the teacher is right about the likes of it (labels.reliability)."""


class HalfWay(Spec):
    """From the student's own scores the share `step` of the way to the teacher's, both centred over the list."""

    gives: ClassVar[ScoreSpace | None] = None
    kind: Literal["half_way"] = "half_way"
    step: Annotated[float, Field(gt=0, le=1)] = 0.5


Target = Annotated[
    RankScore | Scale | Adjust | Debias | Adapted | Smooth | Pt | TopK | Sim | Rectify | Blend | HalfWay,
    Field(discriminator="kind"),
]


def of_the_step(target: Target) -> bool:
    """Say whether what is taught follows the student's own scores, which only the step knows."""
    return target.kind == "half_way" or (target.kind == "blend" and target.teacher == "auto")
