"""Which days of a log count, and which of its files hold them where it lies in a directory a day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
from pydantic import model_validator

from recdistill.data.files import Format, table_files
from recdistill.errors import DataError
from recdistill.spec import Spec

DAY = 86_400_000_000  # microseconds
LONGEST = 36_525  # days: a century, of each of which ingest counts the rows
DIRECTORY = re.compile(r"[^=]+=([0-9]{4}-[0-9]{2}-[0-9]{2})")
SHOWN = 5  # days that a message names


class Window(Spec):
    """Whole days, UTC: the rows of the first to those of the last."""

    first: date
    last: date

    @model_validator(mode="after")
    def _in_order(self) -> Window:
        if self.first > self.last:
            raise ValueError(f"the window ends on {self.last}, before it begins on {self.first}")
        if (self.last - self.first).days >= LONGEST:
            raise ValueError(f"the window from {self.first} to {self.last} is longer than {LONGEST} days")
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """Return its first microsecond since 1970, and the first after it."""
        first, after = (datetime(d.year, d.month, d.day, tzinfo=UTC) for d in (self.first, self.last))
        return int(first.timestamp()) * 1_000_000, int(after.timestamp()) * 1_000_000 + DAY

    @property
    def days(self) -> list[date]:
        """Return every day of it."""
        return [self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1)]


def window_until(last: date, days: int) -> Window:
    """Return the window of so many days that ends with `last`."""
    return Window(first=last - timedelta(days=days - 1), last=last)


def inside(time: pl.Expr, window: Window | None) -> pl.Expr:
    """Say which rows belong to `window`, by times in microseconds; one without a time is a bad row of any window."""
    if window is None:
        return pl.lit(True)
    start, stop = window.bounds
    return time.is_null() | ((time >= start) & (time < stop))


def day_of(file: Path, root: Path) -> date | None:
    """Return the day that a directory below `root` gives `file`, as in date=2026-11-20; None if none does."""
    for part in file.relative_to(root).parts[:-1]:
        if found := DIRECTORY.fullmatch(part):
            try:
                return date.fromisoformat(found[1])
            except ValueError:
                return None
    return None


def day_files(path: str, format: Format, window: Window | None) -> list[Path] | None:
    """Return the files of the days of `window` where every file at `path` lies in the directory of a day, else None.

    Raises DataError, naming the days that are there, if the window's last day has no file.
    """
    root = Path(path)
    if window is None or not root.is_dir():
        return None
    files = [(file, day_of(file, root)) for file in table_files(path, format)]
    known = [(file, day) for file, day in files if day is not None]
    if len(known) < len(files):
        return None
    if window.last not in {day for _, day in known}:
        raise absent(window.last, [day for _, day in known], path)
    return [file for file, day in known if window.first <= day <= window.last]


def absent(day: date, there: Sequence[date], where: str) -> DataError:
    """Return the complaint that a log has nothing of `day`, which says the days that are `there`."""
    days = sorted(set(there))
    shown = ", ".join(map(str, days[-SHOWN:])) or "no day"
    more = "" if len(days) <= SHOWN else f"{len(days)} days since {days[0]}, the last of them "
    what = f"nothing of {day} is there; the log has {more}{shown}"
    return DataError(what, where=where, fix="run again when its rows are there, or name a day that is there")
