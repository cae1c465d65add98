"""The tables of a report, once, for every format: a pure reading of a checked report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from recdistill.plots import SERIES
from recdistill.report_words import MISSING, Row, count, find, interval, metric_name, number, percent, signed, size


class Cell(NamedTuple):
    """One cell of a table: what it says, a note in smaller type, and `good`, `bad` or `soft` for its tone."""

    text: str
    note: str = ""
    tone: str = ""


class Table(NamedTuple):
    """A table; the first `names` columns are text, the rest numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1


def columns(report: Row) -> list[tuple[str, int]]:
    """Return the (metric, k) that were measured over all users, in the report's order."""
    return list(dict.fromkeys((r["metric"], r["k"]) for r in report["quality"] if r["slice"] == "all"))


def models(rows: Iterable[Row]) -> list[str]:
    """Return the models of `rows`, the known ones in their usual order, then the others."""
    found = list(dict.fromkeys(r["model"] for r in rows))
    return sorted(found, key=lambda m: SERIES.index(m) if m in SERIES else len(SERIES))


def quality(report: Row) -> Table:
    """Return models x metrics, each value with its interval."""
    at = {(r["model"], r["metric"], r["k"]): r for r in report["quality"] if r["slice"] == "all"}
    keys = columns(report)
    rows = [[Cell(m), *(_measured(at.get((m, *key))) for key in keys)] for m in models(at.values())]
    return Table(["model", *(metric_name(*key) for key in keys)], rows)


def slices(report: Row) -> Table:
    """Return slices x models at the headline metric."""
    names = list(dict.fromkeys(r["slice"] for r in report["quality"] if r["slice"] != "all"))
    known = models(r for r in report["quality"] if r["slice"] in names)
    rows = [[Cell(n), *(_measured(find(report, m, n)) for m in known)] for n in names]
    return Table(["slice", *known], rows)


def gaps(report: Row) -> Table:
    """Return, for each metric, the gap closed and the student's paired difference from the scratch model."""
    closed = {(g["metric"], g["k"]): g for g in report["gap_closed"]}
    differences = {(d["metric"], d["k"]): d for d in report["student_minus_scratch"]}
    rows = []
    for key in dict.fromkeys([*closed, *differences]):
        gap, difference = closed.get(key), differences.get(key)
        share = Cell(percent(gap["share"]), interval(gap, percent)) if gap else Cell(MISSING)
        delta = Cell(signed(difference["difference"]), interval(difference, signed)) if difference else Cell(MISSING)
        seeds = Cell(str(difference["seeds"]) if difference else MISSING)
        rows.append([Cell(metric_name(*key)), _reading(difference), share, delta, seeds])
    return Table(["metric", "student against scratch", "gap closed", "student - scratch", "seeds"], rows, names=2)


def latency(report: Row) -> Table:
    """Return service times by model and part."""
    order = models(report["latency"])
    rows = [
        [
            Cell(r["model"]),
            Cell(r["part"]),
            *(Cell(number(r[f"{p}_ms"])) for p in ("p50", "p95", "p99", "max")),
            Cell(count(r["queries"])),
            Cell(size(r["size_bytes"])),
            Cell(percent(r["spread"]), tone="bad" if (r["spread"] or 0) > 0.3 else ""),
        ]
        for r in sorted(report["latency"], key=lambda r: order.index(r["model"]))
    ]
    return Table(["model", "part", "p50 ms", "p95 ms", "p99 ms", "max ms", "queries", "size", "spread"], rows, names=2)


def throughput(report: Row) -> Table:
    """Return queries a second by model and batch, a column for each number of threads."""
    found = report.get("throughput") or []
    counts = sorted({r["threads"] for r in found})
    at = {(r["model"], r["batch"], r["threads"]): r for r in found}
    rows = [
        [Cell(model), Cell(count(batch)), *(_rate(at.get((model, batch, threads))) for threads in counts)]
        for model in models(found)
        for batch in sorted({r["batch"] for r in found if r["model"] == model})
    ]
    names = (f"{n} thread{'s' if n > 1 else ''}, queries/s" for n in counts)
    return Table(["model", "at once", *names], rows)


def _rate(row: Row | None) -> Cell:
    return Cell(MISSING, tone="soft") if row is None else Cell(number(row["qps"]), f"spread {percent(row['spread'])}")


def gates(report: Row) -> Table:
    """Return the gates, what each required and what it measured."""
    rows = [
        [
            Cell(g["gate"]),
            _verdict(g),
            Cell(g["reason"]),
            Cell(g["required"]),
            Cell(number(g["measured"])),
            room(g),
        ]
        for g in report["gates"]
    ]
    return Table(["gate", "verdict", "reason", "required", "measured", "room"], rows, names=4)


def room(gate: Row) -> Cell:
    """Return by how much a gate passed, or below 0 failed, in the unit of what it measured."""
    margin = gate.get("margin")
    if margin is None:
        return Cell(MISSING, tone="soft")
    return Cell(f"{'-' if margin < 0 else '+'}{number(abs(margin))}", tone="bad" if margin < 0 else "")


def _verdict(gate: Row) -> Cell:
    if gate.get("excused"):
        return Cell("excused", tone="soft")
    return Cell("passed", tone="good") if gate["passed"] else Cell("failed", tone="bad")


def lint(report: Row) -> Table:
    """Return what the split's linter found."""
    tones = {"refuse": "bad", "error": "bad", "warning": "bad", "ok": "good"}
    found = report["data"].get("split", {}).get("lint") or []
    rows = [
        [
            Cell(str(f.get("name", "")), str(f.get("part") or "")),
            Cell(str(f.get("severity", "")), tone=tones.get(f.get("severity"), "soft")),
            Cell(str(f.get("text", ""))),
            Cell(number(f.get("value"))),
        ]
        for f in found
    ]
    return Table(["check", "severity", "finding", "value"], rows, names=3)


def stages(report: Row) -> Table:
    """Return the stages of the run."""
    rows = [
        [Cell(s["stage"]), Cell(s["fingerprint"][:12]), Cell(built), Cell(number(s["seconds"]))]
        for s in report["stages"]
        for built in ["found" if s["hit"] else "built"]
    ]
    return Table(["stage", "artifact", "this run", "seconds"], rows, names=3)


def learning(report: Row) -> Table:
    """Return where each learning curve began, ended and was best."""
    rows = []
    for model, points in report["curves"].items():
        losses = [p["loss"] for p in points if p["loss"] is not None]
        valid = [(p["valid"], p["step"]) for p in points if p["valid"] is not None]
        best = max(valid, key=lambda v: v[0]) if valid else None
        ends = [number(losses[0]), number(losses[-1])] if losses else [MISSING, MISSING]
        last = count(max((p["step"] for p in points), default=None))
        best_cells = [number(best[0]), count(best[1])] if best else [MISSING, MISSING]
        rows.append([Cell(model), *map(Cell, [*ends, last, *best_cells])])
    return Table(["model", "first loss", "last loss", "last step", "best validation", "at step"], rows)


def facts(values: Row, skip: Sequence[str] = ()) -> Table:
    """Return nested values as one row each, their path dotted."""

    def flat(at: str, v: Any) -> Iterable[tuple[str, str]]:
        if isinstance(v, Mapping) and v:
            for k, inner in v.items():
                yield from flat(f"{at}.{k}" if at else k, inner)
        elif isinstance(v, list):
            yield at, ", ".join(str(i) for i in v) or "none"
        else:
            yield at, _plain(v)

    rows = [[Cell(k), Cell(v)] for k, v in flat("", {k: v for k, v in values.items() if k not in skip})]
    return Table(["", ""], rows, names=2)


def _measured(row: Row | None) -> Cell:
    if row is None or row["value"] is None:
        return Cell(MISSING, tone="soft")
    spread = "" if row["seed_spread"] is None else f"\nseeds +/- {row['seed_spread']:.4f}"
    return Cell(f"{row['value']:.4f}", f"{interval(row, '{:.4f}'.format)}{spread}".strip())


def _reading(difference: Row | None) -> Cell:
    if difference is None or difference["low"] is None or difference["high"] is None:
        return Cell("not tested", tone="soft")
    if difference["low"] > 0:
        return Cell("better", tone="good")
    return Cell("worse", tone="bad") if difference["high"] < 0 else Cell("no difference shown", tone="soft")


def _plain(v: Any) -> str:
    if v is None:
        return MISSING
    return ("yes" if v else "no") if isinstance(v, bool) else number(v) if isinstance(v, float) else str(v)
