"""What a user writes about how a student's training goes along: its parts, its guide, and who is left out of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recdistill.spec import Spec


class GuideSpec(Spec):
    """What of the student's own ranking the draws that follow it read, and how often it is brought up to date."""

    depth: PositiveInt = 200
    """Items of a user, or users of an item."""
    refresh: PositiveInt = 1
    """Epochs."""


class StageSpec(Spec):
    """A part of a student's training in which not everything learns."""

    epochs: PositiveFloat | None = None
    """Left out, in the last part alone: to the end of the training."""
    moves: tuple[Literal["users", "items"], ...] = ("users", "items")
    """The tables that learn."""
    task: bool = True
    """Whether the student's own loss counts; without it, nothing of what users took is read but by the terms."""
    width: PositiveInt | None = Field(default=None, exclude_if=lambda width: width is None)
    """How many numbers of each vector there are in this part, in dot space; left out, all of them. Those that there
    were in an earlier part stand still, and the others learn what they leave."""


class LadderSpec(Spec):
    """Users whose lists are compared become fewer, one cut at each refresh of student.guide: the unsure ones stay."""

    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the users that is left."""
    steps: PositiveInt = 6
    """Equal cuts down to it."""


class SelectSpec(Spec):
    """A policy that turns terms on and off, and keeps those after which the student's own loss falls."""

    every: PositiveInt = 50
    """Steps of a turn."""
    rate: PositiveFloat = 20.0
    """Of the policy: a reward is a share of the loss, a few hundredths at most."""
