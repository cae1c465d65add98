"""What a user writes about a run of every night; free of torch, so that checking a file is quick."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from recdistill.data.window import LONGEST
from recdistill.spec import Spec

Drift = Literal[
    "items_moved",
    "new_users",
    "new_items",
    "gone_users",
    "gone_items",
    "per_user_ratio",
    "rows_ratio",
    "last_day_ratio",
    "empty_days",
]
Age = Literal["data_days", "champion_days", "full_days", "teacher_days", "labels_days"]
DRIFT: tuple[Drift, ...] = get_args(Drift)
AGES: tuple[Age, ...] = get_args(Age)


class AlarmSpec(Spec):
    """Beyond which bounds a figure of the night is an alarm."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> AlarmSpec:
        if self.min is None and self.max is None:
            raise ValueError("give min, max, or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class DailySpec(Spec):
    """A run of every night: `run --partition 2026-11-20` reads the window that ends with that day, UTC."""

    window_days: Annotated[PositiveInt, Field(le=LONGEST)] = 28
    """Days of the log that a night reads, its own the last."""
    start: Literal["champion", "full"] = "champion"
    """champion: teacher and student begin where those of the registry's champion ended, if that has seen nothing of
    the day; full: both begin at random every night."""
    full_every_days: PositiveInt | None = None
    """A night this many days after the last one that began at random begins there again; left out, none does so."""
    full_on_drift: Annotated[PositiveFloat, Field(le=1)] | None = None
    """So does one whose `items_moved` is above it: how far the shares of the items in what came since the champion's
    log lie from those in that log beyond chance, 0 where they are the same, 1 where they are all others."""
    alarms: dict[Drift | Age, AlarmSpec] = Field(default_factory=dict)
    """Bounds on what a night measures of its data and of the ages of what it serves. Beyond them the night is done as
    ever, says so in its report, its summary and the version's tags, and ends with exit code 6."""
