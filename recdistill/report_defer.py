"""The section of a report on the gate that asks the teacher: its sentences, table and figure, once for every format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from recdistill import plots
from recdistill.diagnosis.page import Figure
from recdistill.report_view import Cell, Table
from recdistill.report_words import Row, interval, metric_name, number, percent, signed

SHOWN = {"oracle": "teacher", "gate": "student", "entropy": "scratch", "by chance": "popularity"}
"""What each line of the figure borrows its colour from."""
KEYS = {"oracle": "oracle", "gate": "gain", "entropy": "entropy", "by chance": "random"}


class Section(NamedTuple):
    """What a page shows of a gate; `series` are the lines of the figure and whose colours they have."""

    verdict: str
    reading: str
    table: Table
    series: Sequence[tuple[str, str]]
    figures: Sequence[Figure]
    notes: Sequence[str]
    weights: Table


def section(found: Row) -> Section:
    """Return the section of a report's `defer`."""
    weights = [
        [Cell(name.replace("log_history", "log history")), Cell(signed(w))] for name, w in found["weights"].items()
    ]
    return Section(
        verdict=verdict(found),
        reading=reading(found),
        table=table(found),
        series=list(SHOWN.items()),
        figures=_figures(found),
        notes=notes(found),
        weights=Table(["of the student's list", "expected gain for a standard deviation more"], weights),
    )


def proven(found: Row) -> bool:
    """Say whether the gate is surely above asking about as many users by chance."""
    low = found["lead"]["low"]
    return low is not None and low > 0


def verdict(found: Row) -> str:
    """Return what the gate is worth, in words that say so where it is worth nothing."""
    name = metric_name(found["metric"], found["k"])
    gate, lead, whole = found["gate"], found["lead"], signed(found["cascade"]["value"])
    asks = f"the gate asks the teacher about {percent(found['rate'])} of the users"
    moves = f"{name} changes by {signed(gate['value'])} {interval(gate, signed)}"
    alone = number(found["student"]["value"])
    text = f"At a budget of {percent(found['budget'])} {asks}, and {moves} from the student's {alone}"
    if found["share"] is None:
        text += f"; asking about everybody is not shown to gain ({whole} {interval(found['cascade'], signed)})."
    else:
        text += f", {percent(found['share'])} of what asking about everybody gains ({whole})."
    apart = f"{signed(lead['value'])} {interval(lead, signed)}"
    if proven(found):
        return f"{text} It chooses better than chance: beside as many users at random it is {apart}."
    if (lead["high"] or 0) < 0:
        return f"{text} Do not use the gate: it chooses worse than chance, beside as many users at random {apart}."
    return (
        f"{text} The gate is not shown to choose better than chance: beside as many users at random it is {apart}, "
        "an interval that contains 0."
    )


def reading(found: Row) -> str:
    """Return how the figure is read, in one sentence."""
    return (
        f"Read it from left, the student alone, to right, the teacher re-ranking everybody's first {found['depth']} "
        "items: a gate is worth as much as it is above the dashed line of chance, and none is above the oracle, who "
        "knows whom asking helps."
    )


def table(found: Row) -> Table:
    """Return what is gained at the rate at which the gate asks, by each way to choose."""
    rate, name = percent(found["rate"]), metric_name(found["metric"], found["k"])
    measured = ((part, found[part]) for part in ("gate", "random", "cascade"))
    gains = {part: Cell(signed(row["value"]), interval(row, signed)) for part, row in measured}
    rows = [
        [Cell("gate"), Cell(rate), gains["gate"]],
        [Cell("by chance"), Cell(rate), gains["random"]],
        [Cell("entropy of the list"), Cell(rate), Cell(signed(found["entropy"]))],
        [Cell("oracle"), Cell(rate), Cell(signed(found["oracle"]))],
        [Cell("everybody"), Cell(percent(1.0)), gains["cascade"]],
    ]
    return Table(["who is asked about", "asked", f"{name} gained"], rows)


def warning(found: Row) -> str:
    """Return what a reader must know before the gate serves, empty where there is nothing."""
    if proven(found):
        return ""
    return "the gate that asks the teacher is not shown to choose better than chance: see the section on asking it"


def notes(found: Row) -> list[str]:
    """Return what to know of the threshold, and of a teacher that does not score everything."""
    said = [
        f"The gate was fitted to {found['fitted_users']:,} users of the validation part and judged on "
        f"{found['users']:,} of the test part. Its threshold is set on what it expects of these as they are served, "
        "for which it needs no truth. Set on the validation users, whose histories were shorter, it would ask about "
        f"{percent(found['drift'])} of them: so far the rate may move as histories grow, until it is fitted again."
    ]
    if found["known"] is not None and found["known"] < 1:
        said.append(
            f"The teacher's file scores {percent(found['known'])} of what the student lists; what it does not score "
            "stays below what it does."
        )
    return said


def _figures(found: Row) -> list[Figure]:
    points = [p for p in found["curve"] if all(p[key] is not None for key in ("budget", *KEYS.values()))]
    if len(points) < 2:
        return []
    curves = {SHOWN[name]: [(p["budget"], p[key]) for p in points] for name, key in KEYS.items()}
    gate, name = found["gate"], metric_name(found["metric"], found["k"])
    low, high = (gate["value"] if gate[end] is None else gate[end] for end in ("low", "high"))
    mark = found["rate"], gate["value"], low, high
    drawn = plots.budgets(curves, mark, x="share of the users asked about", salt="defer")
    at = min(points, key=lambda p: abs(p["budget"] - found["budget"]))
    said = ", ".join(f"{who} {signed(at[key])}" for who, key in KEYS.items())
    caption = f"{name} gained, by the share asked about. Dot: the gate as it serves, with its 95% interval."
    return [Figure(drawn, caption, f"{name} gained at a budget of {percent(at['budget'])}: {said}.")]
