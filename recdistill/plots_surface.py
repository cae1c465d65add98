"""Figures of ways to serve: planes of quality, recall and time, times of each, and what each holds in memory.

A width has one hue, a family of indexes one shape, in all of them; what is on the front is filled and joined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from recdistill import plots
from recdistill.plot_names import names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HUES = (2, 3, 4, 5, 1)  # of the page's series, for widths from the least; more than these share the last
TEACHER_HUE = 0
SHAPES = ("o", "s", "^", "D", "v", "P")
GLYPHS = ("\u25cf", "\u25a0", "\u25b2", "\u25c6", "\u25bc", "\u271a")  # the same shapes, where a page names them
PLANE = 290.0, 190.0  # about what the axes leave of a figure, in the units of its font


class Way(NamedTuple):
    """One way to serve in a plane: its number (empty where it has none), hue and shape, and its place."""

    label: str
    kept: bool  # on the front, and so filled
    hue: int  # of HUES
    shape: int  # of SHAPES
    x: float
    y: float
    low: float | None = None
    high: float | None = None


class Bar(NamedTuple):
    """Bytes of one row, in two parts."""

    row: str
    hue: int
    index: float
    query: float


class Timed(NamedTuple):
    """Service times of one row, in milliseconds."""

    row: str
    hue: int
    p50: float
    p95: float
    p99: float
    max: float


def hue(n: int | None) -> str:
    """Return the CSS variable of the n-th width, or of the teacher."""
    return f"series-{TEACHER_HUE if n is None else HUES[min(n, len(HUES) - 1)]}"


def plane(
    ways: Sequence[Way],
    fronts: Sequence[tuple[int | None, Sequence[tuple[float, float]]]],
    *,
    x: str,
    y: str,
    salt: str,
    log: str = "x",
    nines: bool = False,
    marks: Sequence[tuple[float, float]] = (),
    levels: Sequence[float] = (),
) -> str:
    """Return ways to serve in a plane, `log` naming its logarithmic axes; `fronts` are lines of a hue, None the ink's.

    `marks` are places of the teacher; `levels` are dashed lines across at such a height. With `nines` x is what that
    function makes of a share, and the share is what the axis says.
    """

    def draw(axes: Axes) -> None:
        for axis in log:
            (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
        for height in levels:
            axes.axhline(height, color=plots.MUTED, lw=1, ls=(0, (4, 3)))
        for n, line in fronts:
            colour = plots.MUTED if n is None else _ink(n)
            axes.plot(*zip(*line, strict=True), color=colour, lw=1.4, zorder=1.5)
        for way in ways:
            colour, shape = _ink(way.hue), SHAPES[way.shape % len(SHAPES)]
            if way.label and way.low is not None and way.high is not None:
                axes.plot([way.x] * 2, [way.low, way.high], color=colour, lw=1, alpha=0.5)
            face = colour if way.kept else "none"
            axes.plot([way.x], [way.y], shape, ms=6.5 if way.label else 4, color=colour, mfc=face)
        for across, up in marks:
            axes.plot([across], [up], "*", ms=11, color=_ink(None))
        axes.grid(color=plots.LINE, lw=0.6)
        axes.margins(x=0.07, y=0.09)
        _numbers(axes, ways, log)
        _ticks(axes, log)
        if nines:
            _share_ticks(axes)
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return plots.drawn(draw, height=3.3, salt=salt)


def nines(share: float) -> float:
    """Return where a share stands on an axis that gives each further nine, 0.9, 0.99, as much room, up to 0.999."""
    return -math.log10(max(1 - share, 1e-3))


def bars(rows: Sequence[Bar], *, salt: str) -> str:
    """Return a bar a row, of megabytes: the index in the hue of its width, and what encodes a query beside it."""

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            axes.barh(place, row.index / 1e6, height=0.62, color=_ink(row.hue))
            axes.barh(place, row.query / 1e6, left=row.index / 1e6, height=0.62, color=_ink(row.hue), alpha=0.38)
        plots.named_rows(axes, [row.row for row in rows])
        axes.set_xlim(left=0)
        axes.set_xlabel("MB: the index, then (pale) what encodes a query")

    return plots.drawn(draw, height=0.75 + 0.3 * max(len(rows), 1), salt=salt)


def times(rows: Sequence[Timed], *, salt: str) -> str:
    """Return service times on a log scale: p50 a dot, p95 and p99 ticks on a line, the slowest answer a faint ring."""

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        for place, row in enumerate(rows):
            colour = _ink(row.hue)
            axes.plot([row.p99, row.max], [place, place], color=plots.LINE, lw=1)
            axes.plot([row.p50, row.p99], [place, place], color=colour, lw=2)
            axes.plot([row.p95, row.p99], [place, place], "|", ms=9, mew=2, color=colour)
            axes.plot([row.p50], [place], "o", ms=6.5, color=colour)
            axes.plot([row.max], [place], "o", ms=4.5, mfc="none", color=plots.MUTED)
        axes.set_xlim(min(row.p50 for row in rows) / 1.4, max(row.max for row in rows) * 1.4)
        _ticks(axes, "x")
        plots.named_rows(axes, [row.row for row in rows])
        axes.set_xlabel("milliseconds, log scale")

    return plots.drawn(draw, height=0.75 + 0.3 * max(len(rows), 1), salt=salt)


def histograms(shapes: Sequence[tuple[int, bool, Sequence[float], Sequence[int]]], *, salt: str) -> str:
    """Return outlines of how long queries took: (hue, dashed, edges in milliseconds [n+1], counts [n]) each.

    Heights are shares of the queries over the buckets' widths on the log scale, so that areas are equal.
    """

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        for n, dashed, edges, counts in shapes:
            whole = max(sum(counts), 1)
            widths = [math.log(b / a) for a, b in pairwise(edges)]
            heights = [count / whole / width for count, width in zip(counts, widths, strict=True)]
            axes.stairs(heights, edges, color=_ink(n), lw=1.6, ls=(0, (3, 2)) if dashed else "-")
        axes.set_ylim(bottom=0)
        axes.set_yticks([])
        _ticks(axes, "x")
        axes.grid(axis="x", color=plots.LINE, lw=0.6)
        axes.set_xlabel("milliseconds of a whole answer, log scale")
        axes.set_ylabel("share of queries")

    return plots.drawn(draw, height=2.2, salt=salt)


def _ink(n: int | None) -> str:
    """Return the stand-in that the page's style sheet gives the hue of a width, or of the teacher."""
    return next(stand_in for stand_in, name in plots.STAND_INS.items() if name == hue(n))


def _numbers(axes: Axes, ways: Sequence[Way], log: str) -> None:
    """Write the numbers of ways beside them, where they cover the least."""
    axes.autoscale_view()
    place = {"x": _shares(axes.get_xlim(), "x" in log), "y": _shares(axes.get_ylim(), "y" in log)}
    dots = [(way.label, place["x"](way.x), place["y"](way.y)) for way in ways]
    found = names(dots, width=PLANE[0], height=PLANE[1], font=plots.FONT - 2)
    for way, at in zip(ways, found, strict=True):
        if not way.label:
            continue
        where = {"xytext": (at.x, at.y), "textcoords": "offset points", "ha": at.end}
        axes.annotate(way.label, (way.x, way.y), **where, color=plots.INK, fontsize=plots.FONT - 2)


def _share_ticks(axes: Axes) -> None:
    """Write shares where `nines` puts them; the last stands for all from 0.999 on."""
    low, high = axes.get_xlim()
    shares = [s for s in (0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0) if low <= nines(s) <= high]
    axes.set_xticks([nines(s) for s in shares], [f"{s:g}" for s in shares])


def _shares(ends: tuple[float, float], log: bool) -> Callable[[float], float]:
    """Return what says of a value how far along an axis it stands."""
    of = math.log if log else float
    low, high = of(ends[0]), of(ends[1])
    return lambda value: (of(value) - low) / ((high - low) or 1.0)


def _ticks(axes: Axes, log: str) -> None:
    """Write few numbers along the axes, plain ones on those of `log`."""
    if "x" in log:
        left, right = axes.get_xlim()
        plots.log_ticks(axes, left, right)
        axes.set_xlim(left, right)
    else:
        axes.locator_params(axis="x", nbins=5)
    if "y" in log:
        low, high = axes.get_ylim()
        plots.log_ticks(axes, low, high, of="y")
        axes.set_yticks(axes.get_yticks(), [f"{t:,.0f}" if t >= 1 else f"{t:g}" for t in axes.get_yticks()])
        axes.set_ylim(low, high)
    elif len(axes.get_yticks()):
        axes.locator_params(axis="y", nbins=5)
