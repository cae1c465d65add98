"""What a report says of the measured ways to serve: its sentences and tables, once for every format."""

from __future__ import annotations

import re
from collections.abc import Sequence

from recdistill.report_view import Cell, Table
from recdistill.report_words import MISSING, Row, count, interval, metric_name, number, percent, size
from recdistill.serving_plan import Limit, cost, plan
from recdistill.serving_words import share
from recdistill.surface_form import Point, Surface, check_surface, noise

KEPT = 0.99  # of the student's exact quality, which the verdict asks for
SHARES = (0.995, KEPT, 0.98, 0.95, 0.9)  # for which the shortlist has the smallest and the fastest way


def of(report: Row) -> Surface | None:
    """Return the surface of a checked report, None where it has none."""
    return check_surface(report["surface"]) if report.get("surface") else None


def verdict(surface: Surface) -> str:
    """Return the cheapest and the fastest way to serve that keep the student's quality, or that there is none."""
    name, whole = metric_name(surface.metric, surface.k), measure(surface)
    if not whole:
        return f"No way to serve was measured by {name}."
    exact = surface.exact_quality is not None
    what = f"the student's exact {name} ({number(whole)} at {surface.exact_width} numbers)"
    what = f"{1 - KEPT:.0%} of {what if exact else f'the best measured {name} ({number(whole)})'}"
    found = within(surface, KEPT)
    if found is None:
        near = max(surface.points, key=lambda p: p.quality or 0.0)
        return f"No measured way to serve is within {what}; the nearest is {_brief(near, whole)}."
    small, fast = found
    if small.id == fast.id:
        return f"Within {what}, the cheapest way to serve is {_brief(small, whole)}{_beside_teacher(small, surface)}."
    return (
        f"Within {what}, the cheapest way to serve is {_brief(small, whole)}; "
        f"the fastest is {_brief(fast, whole)}{_beside_teacher(fast, surface)}."
    )


def doubt(surface: Surface) -> str:
    """Return why the times are not to be trusted, empty where they are."""
    why = noise(surface.environment).rstrip(".")
    return f"The times cannot be judged: {why}. Measure them again on a quiet machine." if why else ""


def reading(surface: Surface) -> str:
    """Return how the section is read."""
    kept = sum(point.kept for point in surface.points)
    return (
        f"{len(surface.points)} ways to serve were measured on {count(surface.users)} users and "
        f"{count(surface.num_items)} items: so many numbers of each vector, behind an index, searched with its "
        f"parameters. {kept} of them are on the front, where no other one is at least as good, as fast and as small. "
        "The shortlist below has numbers, the same in figures and tables."
    )


def measure(surface: Surface) -> float | None:
    """Return the quality that shares are taken of: the exact one, else the best measured; None without any above 0."""
    known = [point.quality for point in surface.points if point.quality is not None]
    whole = max(known, default=None) if surface.exact_quality is None else surface.exact_quality
    return whole if known and whole is not None and whole > 0 else None


def within(surface: Surface, kept: float) -> tuple[Point, Point] | None:
    """Return the cheapest and the fastest way that keep a share of `measure`, None where none does."""
    whole = measure(surface)
    if whole is None:
        return None
    limit = Limit(name="exact", bound=kept * whole, most=False, read=lambda point: point.quality)
    found = plan(surface.points, [limit])
    return None if found.picked is None or found.fastest is None else (found.picked, found.fastest)


def shortlist(surface: Surface) -> list[Point]:
    """Return the cheapest and the fastest way for each of SHARES, and the best one, from the cheapest.

    Their numbers, in figures and tables, are their places, from 1.
    """
    found = [point for kept in SHARES for point in within(surface, kept) or ()]
    best = sorted(surface.points, key=lambda p: (-(p.quality or 0.0), cost(p)))[:1]
    return sorted({point.id: point for point in [*found, *best]}.values(), key=cost)


def choices(surface: Surface) -> Table:
    """Return the cheapest and the fastest way for each share of the quality that is to be kept."""
    called, whole, rows, before = names(surface), measure(surface), list[list[Cell]](), None
    for kept in SHARES:
        found = within(surface, kept)
        if found is None or found == before or whole is None:
            continue
        before = found
        rows.append([Cell(f"{100 * kept:g}%"), *(Cell(called[p.id], _note(p, whole)) for p in found)])
    return Table(["keeps at least", "cheapest (fewest bytes)", "fastest (lowest p95)"], rows, names=3)


def names(surface: Surface) -> dict[str, str]:
    """Return each point's name, that of the shortlist's with its number before it."""
    numbers = {point.id: f"{n}. {point.id}" for n, point in enumerate(shortlist(surface), 1)}
    return {point.id: numbers.get(point.id, point.id) for point in surface.points}


def widths(surface: Surface) -> list[int]:
    """Return the widths that were measured, from the least; the places are their hues."""
    return sorted({point.width for point in surface.points})


def family(factory: str) -> str:
    """Return the kind of index that a factory string begins with: HNSW, IVF, Flat, SQ, PQ."""
    found = re.match(r"[A-Z]{2,}|[A-Za-z]+", factory)
    return found[0] if found else factory


def families(surface: Surface) -> list[str]:
    """Return the kinds of index that were measured, in order of appearance; the places are their shapes."""
    return list(dict.fromkeys(family(point.factory) for point in surface.points))


def ways(surface: Surface, points: Sequence[Point] | None = None) -> Table:
    """Return what each way to serve gives and costs, those of the shortlist if none are named."""
    called, quality, whole = names(surface), metric_name(surface.metric, surface.k), measure(surface)
    depths = sorted({depth for point in surface.points for depth in point.recall}, key=lambda d: (len(d), d))
    head = ["way to serve", quality, "of exact", "of teacher", *(f"recall@{depth}" for depth in depths)]
    rows = [
        [
            Cell(called[p.id], "" if points is None or not p.kept else "on the front"),
            Cell(number(p.quality), interval(p.model_dump(), "{:.4f}".format)),
            Cell(percent(p.quality / whole) if whole and p.quality is not None else MISSING),
            Cell(percent(share(p, surface))),
            *(Cell(number(p.recall.get(depth))) for depth in depths),
            Cell(number(p.latency.total.p95_ms)),
            Cell(MISSING if p.qps is None else count(round(p.qps))),
            Cell(size(p.bytes)),
        ]
        for p in (shortlist(surface) if points is None else points)
    ]
    gone = [] if surface.teacher else [3]
    gone += [] if surface.exact_quality is not None else [2]
    return _less(Table([*head, "p95 ms", "queries/s", "memory"], rows), gone)


def _less(table: Table, gone: Sequence[int]) -> Table:
    """Return a table without some of its columns."""
    rows = [[cell for n, cell in enumerate(row) if n not in gone] for row in table.rows]
    return Table([head for n, head in enumerate(table.head) if n not in gone], rows, table.names)


def times(surface: Surface) -> Table:
    """Return service times of the shortlist and of the teacher, in milliseconds."""
    head = ["way to serve", "encode p50", "search p50", "p50 ms", "p95 ms", "p99 ms", "max ms", "spread"]
    called = names(surface)
    rows = []
    for p in shortlist(surface):
        halves = [MISSING if part is None else number(part.p50_ms) for part in (p.latency.encode, p.latency.search)]
        t = p.latency.total
        whole = [number(v) for v in (t.p50_ms, t.p95_ms, t.p99_ms, t.max_ms)]
        rows.append([Cell(called[p.id]), *map(Cell, [*halves, *whole, percent(p.spread)])])
    if (t := surface.teacher) is not None:
        whole = [number(v) for v in (t.p50_ms, t.p95_ms, t.p99_ms, t.max_ms)]
        rows.append([Cell("teacher"), *map(Cell, [MISSING, MISSING, *whole, MISSING])])
    return Table(head, rows)


def memory(surface: Surface) -> Table:
    """Return what each index of each width holds, from the smallest, whatever its runtime parameters."""
    rows = [
        [
            Cell(label),
            Cell(size(p.index_bytes)),
            Cell(size(p.query_bytes)),
            Cell(size(p.bytes)),
            Cell(number(p.build_s)),
        ]
        for label, p in held(surface)
    ]
    if surface.teacher is not None:
        rows.append([Cell("teacher"), *map(Cell, [MISSING, MISSING, size(surface.teacher.bytes), MISSING])])
    return Table(["index", "index holds", "query encoder", "together", "build s"], rows)


def held(surface: Surface) -> list[tuple[str, Point]]:
    """Return one point of each index of each width by their name, from the smallest."""
    found: dict[str, Point] = {}
    for point in sorted(surface.points, key=cost):
        found.setdefault(f"d{point.width} {point.factory}", point)
    return list(found.items())


def exact(surface: Surface) -> Table:
    """Return what each width gives by exact search, and how unequal the lengths of its items' vectors are."""
    whole = surface.exact_quality
    rows: list[list[Cell]] = []
    for width, found in sorted(surface.exact.items(), key=lambda pair: (len(pair[0]), pair[0])):
        norms = surface.norms.get(width)
        kept = percent(found.quality / whole) if whole and found.quality is not None else MISSING
        spread = MISSING if norms is None else number(norms.spread)
        measured = Cell(number(found.quality), interval(found.model_dump(), "{:.4f}".format))
        rows.append([Cell(width, norms.warning if norms else ""), measured, Cell(kept), Cell(spread)])
    head = ["numbers of a vector", f"exact {metric_name(surface.metric, surface.k)}", "of the widest", "norm spread"]
    return Table(head, rows)


def _brief(point: Point, whole: float) -> str:
    return f"{point.id} ({_note(point, whole)})"


def _note(point: Point, whole: float) -> str:
    kept = MISSING if point.quality is None else percent(point.quality / whole)
    return f"{size(point.bytes)}, p95 {number(point.latency.total.p95_ms)} ms, {kept}"


def _beside_teacher(point: Point, surface: Surface) -> str:
    """Return how a point compares with the teacher, as the end of a sentence; empty where nothing is known."""
    parts, mine, teacher = list[str](), point.latency.total.p95_ms, surface.teacher
    if (kept := share(point, surface)) is not None:
        parts.append(f"{percent(kept)} of the teacher's")
    if teacher is not None and teacher.p95_ms and mine and teacher.p95_ms / mine >= 1.05:
        ratio = teacher.p95_ms / mine
        parts.append(f"{ratio:,.{0 if ratio >= 10 else 1}f} times faster at p95")
    return f", {', '.join(parts)}" if parts else ""
