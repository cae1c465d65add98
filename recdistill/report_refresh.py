"""What a report says of a refresh: how much the lists changed, and whether vectors of yesterday can still be used."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from recdistill.report_view import Cell, Table
from recdistill.report_words import MISSING, Row, number, percent

Number = float | None
OTHERS = {"scratch": "the scratch model's", "teacher": "the teacher's"}


class Part(BaseModel):
    """The base of every part of it."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class Churn(Part):
    """The share of a user's first `k` that the refresh replaced, over users who were there on both days."""

    model: str
    k: int
    mean: Number
    p95: Number = None
    seeds: int = 1


class Turned(Part):
    """A figure of vectors as they are, and of today's turned to yesterday's axes."""

    as_it_is: Number
    turned: Number


class Continuity(Part):
    """How yesterday's vectors of the student meet today's: their cosine, and the lists of a cached user vector."""

    k: int
    cosine: Turned
    overlap: Turned


class Refresh(Part):
    """What changed since yesterday."""

    users: int  # of both days
    items: int
    new_users: int = 0
    new_items: int = 0
    churn: list[Churn] = []
    continuity: Continuity | None = None


def churn(report: Row) -> Table:
    """Return models x depths: the mean churn, and in the note that of the user at the 95th percentile."""
    rows = (report.get("refresh") or {}).get("churn", [])
    depths = list(dict.fromkeys(r["k"] for r in rows))
    at = {(r["model"], r["k"]): r for r in rows}
    models = dict.fromkeys(r["model"] for r in rows)
    found = [[Cell(model), *(_spread(at.get((model, k))) for k in depths)] for model in models]
    return Table(["model", *(f"churn@{k}" for k in depths)], found)


def continuity(report: Row) -> Table:
    """Return what is kept of yesterday's vectors, as they are and turned."""
    found: dict[str, Any] | None = (report.get("refresh") or {}).get("continuity")
    if not found:
        return Table([], [])
    names = {"cosine": "cosine of a vector with its own of yesterday", "overlap": f"overlap@{found['k']}"}
    rows = [[Cell(text), *(Cell(number(found[n][how])) for how in ("as_it_is", "turned"))] for n, text in names.items()]
    return Table(["yesterday's vectors against today's", "as they are", "turned"], rows)


def words(report: Row) -> list[str]:
    """Return in sentences how to read it; nothing without a yesterday."""
    found = report.get("refresh")
    if not found:
        return []
    new = [f"{found[f'new_{side}']} {side} are new" for side in ("users", "items") if found[f"new_{side}"]]
    told = [f"Since yesterday {' and '.join(new)}." if new else "Since yesterday nobody and nothing is new."]
    first = {r["model"]: r for r in reversed(found["churn"]) if r["mean"] is not None}
    if "student" in first:
        own = first["student"]
        others = [f"{percent(first[m]['mean'])} of {whose}" for m, whose in OTHERS.items() if m in first]
        against = f", {' and '.join(others)}" if others else ""
        told.append(
            f"The refresh replaced {percent(own['mean'])} of the first {own['k']} that a user is shown by the "
            f"student{against}; both lists leave out what the user took, so that this is the change of the models "
            "alone: what it does not buy in quality, users see as noise."
        )
    if found["continuity"]:
        overlap = found["continuity"]["overlap"]
        told.append(
            f"A user vector cached yesterday finds {percent(overlap['as_it_is'])} of today's list among today's items "
            f"as they are, {percent(overlap['turned'])} when those are turned to yesterday's axes "
            "(student.axes: yesterday), which changes no score."
        )
    return told


def _spread(row: Row | None) -> Cell:
    if row is None or row["mean"] is None:
        return Cell(MISSING, tone="soft")
    return Cell(percent(row["mean"]), "" if row["p95"] is None else f"95% of users: up to {percent(row['p95'])}")
