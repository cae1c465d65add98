"""The candidate beside the champion that serves now: times of one process, sizes, and each one's quality."""

from __future__ import annotations

from recdistill.gates import BESIDE, CANDIDATE, CHAMPION
from recdistill.report_view import Cell, Table, room
from recdistill.report_words import MISSING, Row, find, interval, metric_name, number, percent, signed, size, total


def against(report: Row) -> Table:
    """Return what the candidate and the champion measured, where both were timed beside each other; else no rows."""
    mine, theirs = total(report, BESIDE) or total(report, CANDIDATE), total(report, CHAMPION)
    if mine is None or theirs is None:
        return Table([], [])
    rows = _quality(report, report.get("champion") or {})
    for key, name, form in (
        ("p50_ms", "p50 ms", number),
        ("p95_ms", "p95 ms", number),
        ("p99_ms", "p99 ms", number),
        ("size_bytes", "size", size),
    ):
        rows.append([Cell(name), Cell(form(mine[key])), Cell(form(theirs[key])), Cell(_times(mine[key], theirs[key]))])
    for gate in report["gates"]:
        if "champion" in gate["required"] or gate["gate"].startswith("churn"):
            left = room(gate).text if gate.get("margin") is not None else ""
            passed = Cell("passed", left, tone="good") if gate["passed"] else Cell("failed", left, tone="bad")
            rows.append([Cell(f"gate {gate['gate']}"), Cell(number(gate["measured"])), Cell(gate["required"]), passed])
    return Table(["", "candidate", "champion", "candidate against champion"], rows)


def _quality(report: Row, contest: Row) -> list[list[Cell]]:
    """Return the headline's row and the churn: both were asked for the same users, so the interval is paired.

    Without a contest the candidate's own row stands alone: what the champion measured on its day is of other users.
    """
    head, name = report["headline"], Cell(metric_name(**report["headline"]))
    if not contest.get("differences"):
        mine = find(report, CANDIDATE, "all")
        if mine is None:
            return []
        return [[name, Cell(number(mine["value"]), interval(mine)), Cell(MISSING), Cell(MISSING)]]
    asked = {"quality": contest["quality"], "headline": head}
    sides = [find(asked, model, "all") for model in (BESIDE, CHAMPION)]
    cells = [Cell(MISSING) if row is None else Cell(number(row["value"]), interval(row)) for row in sides]
    found = next((d for d in contest["differences"] if _at(d) == (head["metric"], head["k"], "all")), None)
    gain = Cell(MISSING) if found is None else Cell(signed(found["difference"]), f"{interval(found, signed)} paired")
    rows = [[name, *cells, gain]]
    for row in contest.get("churn", []):
        rows.append([Cell(f"churn@{row['k']}"), Cell(""), Cell(""), Cell(percent(row["mean"]))])
    return rows


def _at(row: Row) -> tuple[str, int, str]:
    return row["metric"], row["k"], row["slice"]


def _times(mine: float | None, theirs: float | None) -> str:
    return percent(mine / theirs) if mine is not None and theirs else MISSING
