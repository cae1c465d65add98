"""The candidate beside the champion that serves now: times of one process, sizes, and each one's quality."""

from __future__ import annotations

from recdistill.gates import BESIDE, CANDIDATE, CHAMPION
from recdistill.report_view import Cell, Table
from recdistill.report_words import MISSING, Row, find, interval, metric_name, number, percent, signed, size, total


def against(report: Row) -> Table:
    """Return what the candidate and the champion measured, where both were timed beside each other; else no rows."""
    mine, theirs = total(report, BESIDE) or total(report, CANDIDATE), total(report, CHAMPION)
    if mine is None or theirs is None:
        return Table([], [])
    rows = [_quality(report)] if _champion(report) or find(report, CANDIDATE, "all") else []
    for key, name, form in (
        ("p50_ms", "p50 ms", number),
        ("p95_ms", "p95 ms", number),
        ("p99_ms", "p99 ms", number),
        ("size_bytes", "size", size),
    ):
        rows.append([Cell(name), Cell(form(mine[key])), Cell(form(theirs[key])), Cell(_times(mine[key], theirs[key]))])
    for gate in report["gates"]:
        if "champion" in gate["required"]:
            passed = Cell("passed", tone="good") if gate["passed"] else Cell("failed", tone="bad")
            rows.append([Cell(f"gate {gate['gate']}"), Cell(number(gate["measured"])), Cell(gate["required"]), passed])
    return Table(["", "candidate", "champion", "candidate against champion"], rows)


def _quality(report: Row) -> list[Cell]:
    """Return the headline's row; the difference is paired where somebody measured it so, else of two separate means."""
    mine, theirs = find(report, CANDIDATE, "all"), _champion(report)
    head = report["headline"]
    cells = [Cell(metric_name(**head))]
    cells += [Cell(MISSING) if row is None else Cell(number(row["value"]), interval(row)) for row in (mine, theirs)]
    paired = (report.get("champion") or {}).get("differences", [])
    found = next((d for d in paired if (d["metric"], d["k"]) == (head["metric"], head["k"])), None)
    if found is not None:
        return [*cells, Cell(signed(found["difference"]), f"{interval(found, signed)} paired".strip())]
    known = mine is not None and theirs is not None and None not in (mine["value"], theirs["value"])
    return [*cells, Cell(signed(mine["value"] - theirs["value"]), "not paired") if known else Cell(MISSING)]


def _champion(report: Row) -> Row | None:
    """Return the champion's row of the headline, as its own report has it."""
    rows = {"quality": (report.get("champion") or {}).get("quality", []), "headline": report["headline"]}
    return find(rows, CANDIDATE, "all")


def _times(mine: float | None, theirs: float | None) -> str:
    return percent(mine / theirs) if mine is not None and theirs else MISSING
