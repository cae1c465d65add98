"""Rows of the one table: what was compared, the ratio with its spread over the rounds, and whether the goal is met.

A ratio is ours over the peer's, of work done in a CPU-second unless it says otherwise, within one round of one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.timing import Round, median, spread

Row = dict[str, Any]
HEAD = (
    "goal",
    "what",
    "ours",
    "peer",
    "ours/cpu-s",
    "peer/cpu-s",
    "ours/s",
    "peer/s",
    "ratio",
    "spread",
    "must",
    "aim",
    "met",
)


def compare(
    found: Mapping[str, Sequence[Round]],
    goal: str,
    what: str,
    ours: str,
    peer: str,
    *,
    must: float | None = None,
    aim: float | None = None,
    unit: str = "",
    by: str = "cpu",
    about: Mapping[str, Any] | None = None,
) -> Row:
    """Return the row of two of the peers that were timed in turns; rounds hold the seconds of one unit of work.

    `by` is the clock the ratio is of: cpu, or wall where more than one thread is what is measured.
    """
    ratios = [getattr(b, by) / getattr(a, by) for a, b in zip(found[ours], found[peer], strict=True)]
    rates = {}
    for side, rounds in (("ours", found[ours]), ("peer", found[peer])):
        rates[f"{side}_per_cpu_s"] = 1 / median([r.cpu for r in rounds])
        rates[f"{side}_per_s"] = 1 / median([r.wall for r in rounds])
    row = {"goal": goal, "what": what, "ours": ours, "peer": peer, "unit": unit, "by": by, **rates}
    return judged(
        row | {"ratio": median(ratios), "spread": spread(ratios), "rounds": len(ratios), "about": about or {}},
        must,
        aim,
    )


def judged(row: Row, must: float | None, aim: float | None, *, below: bool = False) -> Row:
    """Return the row with its goal: what the ratio must be, or where `below` may be, at least, and what it should."""

    def reaches(limit: float | None) -> bool:
        return limit is not None and (row["ratio"] <= limit if below else row["ratio"] >= limit)

    met = None if must is None and aim is None else "aim" if reaches(aim) else "must" if reaches(must) else "no"
    return row | {"must": must, "aim": aim, "below": below, "met": met}


def single(
    goal: str, what: str, value: float, unit: str, *, must: float | None, aim: float | None, below: bool = True
) -> Row:
    """Return the row of a figure that is compared with nothing but its limit."""
    return judged({"goal": goal, "what": what, "unit": unit, "ratio": value, "ours": "ours"}, must, aim, below=below)


def missing(goal: str, what: str, peer: str, why: str) -> Row:
    """Return the row of a peer that could not be asked: why, and no figure."""
    return {"goal": goal, "what": what, "peer": peer, "note": why}


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as one table; rates in thousands where they are large."""
    lines = [HEAD, ["---"] * len(HEAD)] + [_cells(row) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(row: Row) -> list[str]:
    names = [row["goal"], row["what"], row.get("ours", ""), row.get("peer", "")]
    if "note" in row:
        return [*names, row["note"], *[""] * (len(HEAD) - 6), row.get("met", "")]
    rates = [number(row.get(key)) for key in ("ours_per_cpu_s", "peer_per_cpu_s", "ours_per_s", "peer_per_s")]
    sign = "<= " if row["below"] else ">= "
    limits = ["" if row[key] is None else f"{sign}{row[key]:g}" for key in ("must", "aim")]
    by = " (wall)" if row.get("by") == "wall" else ""
    value = f"{row['ratio']:.3g}{'' if 'peer' in row else ' ' + row['unit']}{by}"
    return [*names, *rates, value, f"{row['spread']:.0%}" if "spread" in row else "", *limits, row["met"] or ""]


def number(value: float | None) -> str:
    """Return a rate as one reads it."""
    if value is None:
        return ""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
