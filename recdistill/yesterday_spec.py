"""What a user writes about the day before; free of torch, so that checking a file is quick."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recdistill.spec import Spec


class PartOfToday(Spec):
    """The same configuration on all but a part of today's training interactions: what a refresh does, on one log."""

    kind: Literal["part"]
    lacks: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training interactions that came since: the newest where the log has times, else random ones."""
    seed: int = 0
    """Of the draw, where the log has no times."""


class FinishedRun(Spec):
    """A run that is finished: its student is what is deployed."""

    kind: Literal["run"]
    path: str
    """The directory of its report, or the report.json in it. Its store must be there: that of this run, or the one
    beside its reports."""


YesterdaySpec = Annotated[PartOfToday | FinishedRun, Field(discriminator="kind")]
