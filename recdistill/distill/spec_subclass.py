"""What a user writes about subclasses: what a teacher invents of them, and how a student learns to tell them apart."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat

from recdistill.distill.spec_targets import ScoreSpace
from recdistill.spec import Spec


class Subclasses(Spec):
    """A head that a teacher trains beside its own loss: it says of a pair not only whether it was taken, but of which
    kind, and finds the kinds by itself (Mueller et al., 2020). The teacher ranks as ever."""

    count: Annotated[int, Field(ge=2, le=64)] = 4
    """Of the pairs that were taken, and as many of those that were not."""
    weight: PositiveFloat = 1.0
    """Of the head's two losses beside the teacher's own, which its vectors learn from too."""
    spread: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the loss that has pairs fall into unlike subclasses, beside the cross-entropy of taken and not."""
    temperature: PositiveFloat = 1.0
    """Of the cosines that this loss compares."""


class SubclassKL(Spec):
    """The KL of a pair's subclasses, through a head of the student's own that training alone sees, and for the score
    that serves the classes alone (subclass distillation, Mueller et al., 2020)."""

    needs: ClassVar[ScoreSpace] = "logit"
    kind: Literal["subclass_kl"] = "subclass_kl"
    temperature: PositiveFloat = 1.0
    between: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the KL of the classes beside that within them; 1 is the plain KL of all subclasses."""
    tie: PositiveFloat = 1.0
    """Weight of the cross-entropy that teaches the score the class that the head learns, up to a shift for each row."""
