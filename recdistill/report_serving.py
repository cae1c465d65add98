"""The section of a page on ways to serve: figures with their tables, from the sentences and tables of a surface."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from recdistill import plots_surface as draw
from recdistill import report_surface as view
from recdistill.diagnosis.page import Figure
from recdistill.plots_surface import Bar, Timed, Way
from recdistill.report_view import Table
from recdistill.report_words import Row, metric_name, number, size
from recdistill.serving_limits import recall_depth
from recdistill.surface_form import Histogram, Point, Surface

MOST = 12  # rows of a figure, and ways that are named in what it says to those who cannot see it


class Block(NamedTuple):
    """Figures, how they are read, and the same as a table."""

    title: str
    hint: str
    figures: Sequence[Figure]
    table: Table


class Section(NamedTuple):
    """What a page shows of a surface; hues and shapes are (name, colour or glyph)."""

    verdict: str
    doubt: str
    reading: str
    hues: Sequence[tuple[str, str]]
    shapes: Sequence[tuple[str, str]]
    blocks: Sequence[Block]
    choices: Table
    exact: Table
    everything: Table
    asking: str


def section(surface: Surface, report: Row) -> Section:
    """Return the section of `surface`, in the report of its run."""
    widths, families = view.widths(surface), view.families(surface)
    shapes = [(name, draw.GLYPHS[n % len(draw.GLYPHS)]) for n, name in enumerate(families)]
    hues = [(f"{width} numbers", draw.hue(n)) for n, width in enumerate(widths)]
    name = metric_name(surface.metric, surface.k)
    planes = [*_quality(surface), *_recall(surface)]
    blocks = [
        Block(f"{name}, recall and speed", PLANES, planes, view.ways(surface)),
        Block("Service times", TIMES, list(_times(surface)), view.times(surface)),
        Block("Memory", MEMORY, list(_memory(surface)), view.memory(surface)),
    ]
    words = report["command"].split()
    run = " ".join(words[2:]) if words[:2] == ["recdistill", "run"] else "CONFIG"
    return Section(
        verdict=view.verdict(surface),
        doubt=view.doubt(surface),
        reading=view.reading(surface),
        hues=hues + ([("teacher", draw.hue(None))] if surface.teacher else []),
        shapes=shapes,
        blocks=[block for block in blocks if block.table.rows],
        choices=view.choices(surface),
        exact=view.exact(surface),
        everything=view.ways(surface, surface.points),
        asking=f"recdistill plan-serving {run} --p95-ms 2 --memory-mb 200 --min-quality-of-teacher 0.95",
    )


PLANES = (
    "Held-out users, what they took left out of the search. Filled: on the front. Pale lines: 95% intervals. "
    "Recall is the share of the exact search's list, at the same width, that the index finds; queries per second are "
    "what one thread answers. Lines join what nothing else beats in that plane, by recall within each width."
)
TIMES = "One query at a time: the server's work, not what users wait for under load. Spread is between repeats."
MEMORY = "Runtime parameters do not change what an index holds. The query encoder is what turns a user into a vector."


def _quality(surface: Surface) -> Iterable[Figure]:
    found = [(p, p.latency.total.p95_ms, p.quality) for p in surface.points]
    places = [(p, x, y) for p, x, y in found if x is not None and x > 0 and y is not None]
    if not places:
        return
    teacher, name = surface.teacher, metric_name(surface.metric, surface.k)
    marks: list[tuple[float, float]] = []
    if teacher is not None and teacher.p95_ms and teacher.quality is not None:
        marks.append((teacher.p95_ms, teacher.quality))
    exact = surface.exact_quality
    levels = [] if exact is None else [exact]
    line = _front([(x, y) for _, x, y in places])
    ways = _ways(surface, places, intervals=True)
    svg = draw.plane(ways, [(None, line)], x="p95 ms, log scale", y=name, salt="serving", marks=marks, levels=levels)
    said = [f"{p.id} {number(x)} ms, {number(y)}" for p, x, y in _short(surface, places)]
    said += [f"teacher {number(x)} ms, {number(y)}" for x, y in marks]
    caption = f"{name} by the p95 of a whole answer"
    caption += f". Dashed: exact search, {surface.exact_width} numbers" if levels else ""
    caption += ". Star: the teacher." if marks else "."
    yield Figure(svg, caption, _alt(f"{name} against the p95 of an answer", said))


def _recall(surface: Surface) -> Iterable[Figure]:
    depth = recall_depth(surface)
    found = [(p, p.recall.get(depth or ""), p.qps) for p in surface.points]
    places = [(p, x, y) for p, x, y in found if x is not None and y is not None and y > 0]
    if not places:
        return
    fronts = []
    for n, width in enumerate(view.widths(surface)):
        if inside := [(x, y) for p, x, y in places if p.width == width]:
            fronts.append((n, [(draw.nines(-x), y) for x, y in _front([(-x, y) for x, y in inside])]))
    name = f"recall@{depth}"
    ways = [way._replace(x=draw.nines(way.x)) for way in _ways(surface, places)]
    svg = draw.plane(ways, fronts, x=name, y="queries/s, log scale", salt="recall", log="y", nines=True)
    said = [f"{p.id} {number(x)}, {y:,.0f} queries/s" for p, x, y in _short(surface, places)]
    yield Figure(svg, f"Queries per second by {name}", _alt(f"Queries per second against {name}", said))


def _times(surface: Surface) -> Iterable[Figure]:
    called, hues = view.names(surface), {width: n for n, width in enumerate(view.widths(surface))}
    rows: list[tuple[str, int, list[float | None]]] = []
    for p in view.shortlist(surface):
        t = p.latency.total
        rows.append((called[p.id], hues[p.width], [t.p50_ms, t.p95_ms, t.p99_ms, t.max_ms]))
    timed = [
        Timed(row, n, *known)
        for row, n, values in rows
        for known in [[v for v in values if v is not None and v > 0]]
        if len(known) == len(values)
    ]
    if timed:
        said = [f"{row.row} p50 {number(row.p50)} ms, p99 {number(row.p99)} ms" for row in timed]
        caption = "Whole answer. Dot: p50. Line: to p99, with ticks at p95 and p99. Ring: slowest."
        if (t := surface.teacher) is not None and t.p50_ms is not None:
            caption += f" The teacher: p50 {number(t.p50_ms)} ms."
            said.append(f"teacher p50 {number(t.p50_ms)} ms")
        yield Figure(draw.times(timed, salt="serving-times"), caption, _alt("Service times on a log scale", said))
    yield from _histogram(surface)


def _histogram(surface: Surface) -> Iterable[Figure]:
    """Yield the shapes of times of the two ways that the verdict names, else of the shortlist's ends."""
    short = view.shortlist(surface)
    named = {p.id: p for p in view.within(surface, view.KEPT) or (*short[:1], *short[-1:])}
    hues = {width: n for n, width in enumerate(view.widths(surface))}
    shapes: list[tuple[int, bool, Sequence[float], Sequence[int]]] = []
    said: list[str] = []
    for p in named.values():
        if (counted := p.latency.total.histogram) is not None and _drawable(counted):
            said.append(f"{'dashed' if shapes else 'Solid'}: {view.names(surface)[p.id]}")
            shapes.append((hues[p.width], bool(shapes), counted.edges_ms, counted.counts))
    if shapes:
        caption = f"How long queries took. {'; '.join(said)}."
        yield Figure(draw.histograms(shapes, salt="histogram"), caption, _alt("Histogram of service times", said))


def _drawable(counted: Histogram) -> bool:
    return bool(counted.counts) and counted.edges_ms[0] > 0 and sum(counted.counts) > 0


def _memory(surface: Surface) -> Iterable[Figure]:
    hues = {width: n for n, width in enumerate(view.widths(surface))}
    held = dict(view.held(surface))
    short = {f"d{p.width} {p.factory}" for p in view.shortlist(surface)}
    shown = held if len(held) <= MOST else {label: p for label, p in held.items() if label in short}
    rows = [Bar(label, hues[p.width], p.index_bytes, p.query_bytes) for label, p in shown.items()]
    if rows:
        said = [f"{row.row} {size(row.index + row.query)}" for row in rows]
        caption = "What a server holds: the shortlist's indexes" if len(rows) < len(held) else "What a server holds"
        yield Figure(draw.bars(rows, salt="memory"), caption, _alt("Bytes that a server holds", said))


def _ways(surface: Surface, places: Sequence[tuple[Point, float, float]], *, intervals: bool = False) -> list[Way]:
    numbers = {p.id: str(n) for n, p in enumerate(view.shortlist(surface), 1)}
    hues = {width: n for n, width in enumerate(view.widths(surface))}
    shapes = {name: n for n, name in enumerate(view.families(surface))}
    return [
        Way(
            numbers.get(p.id, ""),
            p.kept,
            hues[p.width],
            shapes[view.family(p.factory)],
            x,
            y,
            *((p.low, p.high) if intervals else (None, None)),
        )
        for p, x, y in sorted(
            places, key=lambda place: (place[0].id in numbers, place[0].kept)
        )  # drawn over the others
    ]


def _short(surface: Surface, places: Sequence[tuple[Point, float, float]]) -> Iterable[tuple[Point, float, float]]:
    """Return the places of the shortlist."""
    known = {point.id for point in view.shortlist(surface)}
    return (place for place in places if place[0].id in known)


def _front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return, by rising x, the places than which none is both further left and higher."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(places, key=lambda place: (place[0], -place[1])):
        if not kept or y > kept[-1][1]:
            kept.append((x, y))
    return kept


def _alt(what: str, said: Sequence[str]) -> str:
    more = f"; and {len(said) - MOST} more in the table" if len(said) > MOST else ""
    return f"{what}: {'; '.join(said[:MOST])}{more}."
