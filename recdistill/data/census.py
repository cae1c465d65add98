"""How many rows each day of a window has, before anything is made of them."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import polars as pl

from recdistill.data.contract import typed_rows
from recdistill.data.log import LogSpec, reading_log, where
from recdistill.data.window import DAY, Window, absent

EPOCH = date(1970, 1, 1)


def census(spec: LogSpec, window: Window) -> dict[str, Any]:
    """Return `days`, the rows of each day of `window`, and `outside`, those that its files hold of other days.

    Rows are counted as they lie in the log, good or bad; one without a time is of no day. Raises DataError, naming the
    days that are there, if the last day has none.
    """
    with reading_log(spec):
        day = (pl.col("time") // DAY).alias("day")
        found = typed_rows(spec).select(day).drop_nulls().group_by("day").len().collect()
    rows = {_date(number): count for number, count in found.iter_rows()}
    if window.last not in rows:
        raise absent(window.last, [day for day in rows if day is not None], where(spec))
    days = {day.isoformat(): rows.get(day, 0) for day in window.days}
    return {"days": days, "outside": int(found["len"].sum()) - sum(days.values())}


def _date(number: int) -> date | None:
    """Return the day that is so many after 1970 began; none of what a calendar does not have."""
    try:
        return EPOCH + timedelta(days=number)
    except OverflowError:
        return None
