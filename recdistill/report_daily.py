"""What a report says of its night: which days it read, where its trainings began, how the data moved, how old it is."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from recdistill.report_view import Cell, Table
from recdistill.report_words import MISSING, Row, number, percent

Number = float | None
SHARES = {
    "items_moved": "how far the items' shares moved in what came since (0 none, 1 all)",
    "new_users": "users who are new",
    "gone_users": "users of then who are gone",
    "new_items": "interactions with items that are new",
    "gone_items": "interactions of then with items that are gone",
}
RATIOS = {
    "per_user_ratio": "interactions a user, against then",
    "rows_ratio": "interactions, against then",
    "last_day_ratio": "rows of the day, against the other days' mean",
    "empty_days": "days of the window without a row",
}
AGES = {
    "data_days": "last row of the log",
    "champion_days": "log of the champion it began at",
    "full_days": "last night that began at random",
    "teacher_days": "teacher",
    "labels_days": "labels",
}


class Part(BaseModel):
    """The base of every part of it."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class Days(Part):
    """The window, both ends in it."""

    first: str
    last: str


class Base(Part):
    """The version that the trainings began at, or are held against."""

    version: int
    log_end: str
    full_on: str


class Alarm(Part):
    """A figure beyond its bounds."""

    figure: str
    value: float
    min: Number = None
    max: Number = None
    text: str = ""


class Daily(Part):
    """What was decided of a night, and what was measured of it."""

    partition: str
    window: Days
    start: str  # champion or full
    why: str = ""  # it is full
    base: Base | None = None
    full_on: str
    drift: dict[str, Number] = {}
    ages: dict[str, Number] = {}
    alarms: list[Alarm] = []


def words(report: Row) -> list[str]:
    """Return in sentences which night it was and where it began; nothing of a run that is none."""
    night = report.get("daily")
    if not night:
        return []
    window, base = night["window"], night["base"]
    told = [f"The night of {night['partition']}, of the log from {window['first']} to {window['last']}."]
    if night["start"] == "champion":
        whose = f"version {base['version']}, whose log ended on {base['log_end']}"
        told.append(
            f"Its trainings began where those of {whose}, ended; the last at random were of {night['full_on']}."
        )
    else:
        told.append(f"Its trainings began at random: {night['why']}.")
    return told + [alarm["text"] for alarm in night["alarms"]]


def drift(report: Row) -> Table:
    """Return how the window's data lies to the champion's."""
    found: dict[str, Any] = (report.get("daily") or {}).get("drift", {})
    shown = [(text, percent(found[n]) if n in found else MISSING) for n, text in SHARES.items()]
    shown += [(text, number(found[n]) if n in found else MISSING) for n, text in RATIOS.items()]
    return Table(["the night's data", "figure"], [[Cell(text), Cell(value)] for text, value in shown] if found else [])


def ages(report: Row) -> Table:
    """Return how old what it is made of is, in days."""
    found: dict[str, Any] = (report.get("daily") or {}).get("ages", {})
    rows = [[Cell(text), Cell(number(found[name]))] for name, text in AGES.items() if found.get(name) is not None]
    return Table(["age, days", "figure"], rows)
