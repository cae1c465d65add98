"""What a user writes about signals: one number a row of a step, and what it is used for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recdistill.spec import Spec

Of = Literal["entropy", "doubt", "closeness", "confusion"]
"""entropy: of the student's softmax over the list; doubt: what its best item leaves; closeness: how little lies between
its two best; confusion: how far its scores are from the teacher's in direction."""


class Weight(Spec):
    """A row counts as its signal, over the mean of the step."""

    kind: Literal["weight"] = "weight"
    of: Of = "entropy"


class Keep(Spec):
    """The rows of the largest signals count alone, a `share` of the step."""

    kind: Literal["keep"] = "keep"
    of: Of = "entropy"
    share: Annotated[float, Field(gt=0, lt=1)]


class Temperature(Spec):
    """Each row is compared at base + (mean signal - signal) slope, at least .5, times the loss's own temperature."""

    kind: Literal["temperature"] = "temperature"
    of: Of = "confusion"
    base: PositiveFloat = 1.0
    slope: PositiveFloat = 1.0


class RightFirst(Spec):
    """Rows in which the teacher has nothing that the user took among its first `k` count from epoch `start` on, rising
    over `ramp` epochs; the others always. A target that sets the teacher right comes after this."""

    kind: Literal["right_first"] = "right_first"
    k: PositiveInt = 1
    start: Annotated[float, Field(ge=0)]
    ramp: Annotated[float, Field(ge=0)] = 0.0


class Reliability(Spec):
    """A row counts as far as the teacher is right about users who do about as much (labels.reliability)."""

    kind: Literal["reliability"] = "reliability"


Signal = Annotated[Weight | Keep | Temperature | RightFirst | Reliability, Field(discriminator="kind")]
