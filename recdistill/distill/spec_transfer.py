"""What a user writes about histories that nobody had, of which the teacher is asked too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from recdistill.spec import Spec


class _Transfer(Spec):
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of the rows of a step whose lists are compared (`train.list_users`), how many are such histories."""
    seed: NonNegativeInt = 1


class Dropout(_Transfer):
    """Histories with items left out (Stanton et al., NeurIPS 2021)."""

    kind: Literal["dropout"] = "dropout"
    rate: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Chance that an item is left out; of a history at least one stays."""
    copies: PositiveInt = 1
    """Histories made of each user's own."""


class Splice(_Transfer):
    """Histories of two users in one, a random share of each (Mishra et al., arXiv 2302.11472)."""

    kind: Literal["splice"] = "splice"
    rows: PositiveFloat = 1.0
    """Histories, times the number of users who have one."""
    concentration: PositiveFloat = 0.5
    """The share of the first user is drawn from Beta(concentration, concentration): at 0.5 most are near 0 or 1."""


class Flips(_Transfer):
    """Histories a few items from a user's own, on which student and teacher disagree most (Jafari et al., 2023)."""

    kind: Literal["flips"] = "flips"
    count: PositiveInt = 5
    """Items that are dropped or inserted, at most."""
    rounds: PositiveInt = 1
    """Parts of the student's training. The histories of the first are made against the scratch student, those of any
    other against the student as the part before left it."""
    rows: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Histories, times the number of users who have one."""


Transfer = Annotated[Dropout | Splice | Flips, Field(discriminator="kind")]


def asked(list_users: int, share: float) -> int:
    """Return how many of the `list_users` rows of a step are histories that nobody had."""
    return round(list_users * share)
