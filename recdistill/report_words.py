"""The words of a report: verdict, head line and how numbers are written; a pure reading of a checked report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MISSING = "n/a"
Row = Mapping[str, Any]


def verdict_word(report: Row) -> str:
    """Return PROMOTED, REFUSED or NOT JUDGED."""
    return {True: "PROMOTED", False: "REFUSED", None: "NOT JUDGED"}[report["verdict"]["promoted"]]


def headline(report: Row) -> str:
    """Return the sentence that sums the run up, from whichever of its parts were measured; empty without any."""
    student = served(report)
    parts: list[str] = []
    teacher_time, student_time = (total(report, m) for m in ("teacher", student))
    if teacher_time and student_time:
        if ratio := _ratio(teacher_time["p50_ms"], student_time["p50_ms"]):
            parts.append(f"answers {_times(ratio, 'faster than', 'slower than', 'as fast as')} the teacher")
        if ratio := _ratio(teacher_time["size_bytes"], student_time["size_bytes"]):
            parts.append(f"is {_times(ratio, 'smaller', 'larger', 'as large')}")
    kept = _ratio(value(report, student), value(report, "teacher"))
    if kept is not None:
        whose = "its" if parts else "the teacher's"
        parts.append(f"keeps {percent(kept)}{_between(report, student)} of {whose} {metric_name(**report['headline'])}")
    text = f"The student {', '.join(parts[:-1])}{' and ' if parts[1:] else ''}{parts[-1]}" if parts else ""
    gap = next((g for g in report["gap_closed"] if _at_headline(report, g)), None)
    if gap and gap["share"] is not None:
        closed = f"{percent(gap['share'])} of the teacher-scratch gap closed"
        text += f"; {closed}" if text else closed
    return " ".join(said for said in (f"{text}." if text else "", basis(report)) if said)


def basis(report: Row) -> str:
    """Return what the head line's times and sizes are of; empty where that was not measured or not written down."""
    student = served(report)
    both, about = [total(report, model) for model in ("teacher", student)], report["latency_environment"]
    if "k" not in about or not all(both):
        return ""
    teacher, served_ = (row for row in both if row is not None)
    threads = "1 thread" if about.get("threads") == 1 else f"{about.get('threads', MISSING)} threads"
    ways = f"the best {about['k']}, batch {about.get('batch', 1)}, {threads}"
    spreads = f"{percent(teacher['spread'])} and {percent(served_['spread'])} apart over their repeats"
    times = f"p50 of whole answers {number(teacher['p50_ms'])} ms and {number(served_['p50_ms'])} ms, {spreads}"
    sizes = f"{size(teacher['size_bytes'])} and {size(served_['size_bytes'])} held to answer"
    left = about.get("targets", {}).get(student, {}).get("exclude")
    same = "" if left is not False else "; unlike the teacher's, the student's lists may repeat what a user took"
    return f"Measured in turns: {times}, for {ways}; {sizes}{same}."


def _between(report: Row, model: str) -> str:
    found = (row for row in report.get("kept_of_teacher") or () if row["model"] == model and _at_headline(report, row))
    row = next(found, None)
    return f" {interval(row, percent)}" if row is not None and interval(row, percent) else ""


def undiagnosed(report: Row) -> str:
    """Return how to come to a diagnosis, for a report of quality without one; empty where there is none to be had.

    Of a night there is none: `diagnose` reads a run of a whole file.
    """
    if report.get("diagnosis") is not None or report.get("daily") is not None or not report["quality"]:
        return ""
    words = report["command"].split()
    known = words[:2] == ["recdistill", "run"]
    command = " ".join(["recdistill diagnose", *(words[2:] if known else ["CONFIG"])])
    return f"What the student took from its teacher, who gains and whether the gain is knowledge: {command}"


def served(report: Row) -> str:
    """Return the model that would serve: the student behind its index if that was measured, else the student."""
    return "student@index" if value(report, "student@index") is not None else "student"


def value(report: Row, model: str, slice_: str = "all") -> float | None:
    """Return a model's value of the headline metric, None where it was not measured."""
    row = find(report, model, slice_)
    return row["value"] if row else None


def total(report: Row, model: str) -> Row | None:
    """Return the latency row of a model's whole answer."""
    rows = [r for r in report["latency"] if r["model"] == model]
    return next((r for r in rows if r["part"] == "total"), None)


def metric_name(metric: str, k: int, **_: Any) -> str:
    """Return how readers write a metric: NDCG@10, Recall@20."""
    return f"{metric.upper() if metric in {'ndcg', 'mrr'} else metric.capitalize()}@{k}"


def number(v: Any) -> str:
    """Return three or four significant digits, whole numbers in full."""
    if v is None:
        return MISSING
    if isinstance(v, bool) or not isinstance(v, int | float):
        return str(v)
    if isinstance(v, int) or abs(v) >= 1000:
        return f"{v:,.0f}"
    return f"{v:.4f}" if 0.01 <= abs(v) < 1 else f"{v:.3g}" if abs(v) < 0.01 else f"{v:.2f}"


def signed(v: float | None) -> str:
    """Return a difference with its sign."""
    return MISSING if v is None else f"{v:+.4f}"


def percent(v: float | None) -> str:
    """Return a share as a percentage."""
    return MISSING if v is None else f"{100 * v:.1f}%"


def count(v: int | None) -> str:
    """Return a whole number with its thousands apart."""
    return MISSING if v is None else f"{v:,}"


def size(v: float | None) -> str:
    """Return bytes in the unit people read."""
    if v is None:
        return MISSING
    power = next((p for p in (3, 2, 1) if v >= 1000**p), 0)
    return f"{v / 1000**power:.3g} {('B', 'kB', 'MB', 'GB')[power]}" if v < 1e12 else f"{v / 1e9:,.0f} GB"


def interval(row: Row, form: Callable[[float], str] = number) -> str:
    """Return a row's interval, empty where it has none."""
    return "" if row["low"] is None or row["high"] is None else f"[{form(row['low'])}, {form(row['high'])}]"


def find(report: Row, model: str, slice_: str) -> Row | None:
    """Return a model's quality row at the headline metric."""
    rows = (r for r in report["quality"] if (r["model"], r["slice"]) == (model, slice_))
    return next((r for r in rows if _at_headline(report, r)), None)


def _at_headline(report: Row, row: Row) -> bool:
    return (row["metric"], row["k"]) == (report["headline"]["metric"], report["headline"]["k"])


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b and a > 0 and b > 0 else None


def _times(ratio: float, more: str, less: str, same: str) -> str:
    big, word = max(ratio, 1 / ratio), more if ratio >= 1 else less
    if big < 1.05:
        return f"about {same}"
    return f"{big:.{0 if big >= 10 else 1}f} times {word}"
