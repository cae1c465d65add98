"""Figures as inline SVG: equal numbers give equal bytes, and the page's style sheet gives the colours.

matplotlib draws with stand-in colours that are replaced by CSS variables, so one figure serves light and dark pages.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from recdistill.plot_names import names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = ("teacher", "scratch", "student", "student@index", "popularity")  # these keep their colours in every figure
INK, MUTED, LINE = "#010201", "#010202", "#010203"
STAND_INS = {INK: "ink", MUTED: "muted", LINE: "line"} | {f"#0102{n:02x}": f"series-{n - 16}" for n in range(16, 22)}
FONT = 10.5  # user units of a figure 331 wide: on a phone about as many pixels
PLANE = 280.0, 150.0  # about what the axes of a plane leave of its figure, in the same units
MANY = 400  # points of one curve; more add bytes, not ink


class Dot(NamedTuple):
    """A value with its interval: the row it stands in and the series that colours it."""

    row: str
    series: str
    value: float
    low: float | None = None
    high: float | None = None


class Spot(NamedTuple):
    """One place of a plane, by name."""

    name: str
    series: str
    x: float
    y: float


class Span(NamedTuple):
    """Service times of one way to answer, in milliseconds."""

    row: str
    p50: float
    p95: float
    p99: float
    max: float


def colour(series: str) -> str:
    """Return the number of a series's CSS variable; unknown ones share the last."""
    return f"series-{SERIES.index(series) if series in SERIES else len(SERIES)}"


def dots(points: Sequence[Dot], *, salt: str, zero: bool = False) -> str:
    """Return a figure with one row a label, a dot a value and a line an interval; `salt` keeps its ids apart.

    With `zero` there is a line at 0, from which values are meant.
    """
    rows = list(dict.fromkeys(p.row for p in points))
    series = list(dict.fromkeys(p.series for p in points))
    crowded = len(points) > len(rows)

    def draw(axes: Axes) -> None:
        if zero:
            axes.axvline(0, color=MUTED, lw=1)
        for p in points:
            shift = 0.5 * (series.index(p.series) / max(len(series) - 1, 1) - 0.5) if crowded else 0.0
            y = rows.index(p.row) + shift
            if p.low is not None and p.high is not None:
                axes.plot([p.low, p.high], [y, y], color=_stand_in(p.series), lw=2, solid_capstyle="round")
            axes.plot([p.value], [y], "o", ms=6.5, color=_stand_in(p.series))
        named_rows(axes, rows)

    return drawn(draw, height=_height(len(rows) * (len(series) / 2 if crowded else 1)), salt=salt)


def spans(rows: Sequence[Span], *, salt: str) -> str:
    """Return latencies on a log scale: p50 a dot, p95 and p99 ticks on a line, the slowest answer a faint ring."""

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        for y, r in enumerate(rows):
            hue = _stand_in(r.row)
            axes.plot([r.p99, r.max], [y, y], color=LINE, lw=1)
            axes.plot([r.p50, r.p99], [y, y], color=hue, lw=2)
            axes.plot([r.p95, r.p99], [y, y], "|", ms=10, mew=2, color=hue)
            axes.plot([r.p50], [y], "o", ms=7, color=hue)
            axes.plot([r.max], [y], "o", ms=5, mfc="none", color=MUTED)
        low, high = min(r.p50 for r in rows), max(r.max for r in rows)
        axes.set_xlim(low / 1.6, high * 1.6)
        log_ticks(axes, low / 1.6, high * 1.6)
        named_rows(axes, [r.row for r in rows])
        axes.set_xlabel("milliseconds, log scale")

    return drawn(draw, height=_height(len(rows)) + 0.2, salt=salt)


def lines(curves: Mapping[str, Sequence[tuple[float, float]]], *, salt: str, label: str = "step") -> str:
    """Return one line a series through its (step, value) points; `label` says what the steps are."""

    def draw(axes: Axes) -> None:
        for name, points in curves.items():
            kept = points[:: -(-len(points) // MANY)]
            x, y = zip(*kept, strict=True)
            axes.plot(x, y, color=_stand_in(name), lw=1.8, marker="o" if len(kept) < 30 else "", ms=2.5)
        axes.grid(axis="y", color=LINE, lw=0.6)
        axes.locator_params(axis="both", nbins=5)
        axes.margins(x=0.03, y=0.08)
        axes.set_xlabel(label)

    return drawn(draw, height=2.1, salt=salt)


def budgets(
    curves: Mapping[str, Sequence[tuple[float, float]]], mark: tuple[float, float, float, float], *, x: str, salt: str
) -> str:
    """Return one line a series over shares of the users; `mark` is one place (share, value, low, high) of interest."""

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=LINE, lw=1)
        for name, points in curves.items():
            across, up = zip(*points, strict=True)
            axes.plot(across, up, color=_stand_in(name), lw=1.8, ls=(0, (4, 3)) if name == "popularity" else "-")
        at, value, low, high = mark
        axes.plot([at, at], [low, high], color=INK, lw=1.4, solid_capstyle="round")
        axes.plot([at], [value], "o", ms=6, color=INK)
        axes.grid(axis="y", color=LINE, lw=0.6)
        axes.locator_params(axis="y", nbins=5)
        axes.set_xticks([i / 5 for i in range(6)], [f"{20 * i}%" for i in range(6)])
        axes.margins(x=0.03, y=0.08)
        axes.set_xlabel(x)

    return drawn(draw, height=2.6, salt=salt)


def diagonal(curves: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, salt: str) -> str:
    """Return one line a series through points above 0 on two log scales, beside the line on which both are the same."""

    def draw(axes: Axes) -> None:
        ends = [v for points in curves.values() for point in points for v in point]
        low, high = min(ends) / 1.5, max(ends) * 1.5
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.plot([low, high], [low, high], color=MUTED, lw=1, ls=(0, (4, 3)))
        for name, points in curves.items():
            across, up = zip(*points, strict=True)
            axes.plot(across, up, color=_stand_in(name), lw=1.8, marker="o", ms=4)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        log_ticks(axes, low, high)
        log_ticks(axes, low, high, of="y")
        axes.grid(color=LINE, lw=0.6)
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return drawn(draw, height=3.2, salt=salt)


def spots(places: Sequence[Spot], *, x: str, y: str, salt: str, path: Sequence[str] = ()) -> str:
    """Return a plane with a dot a name, and the name beside it; a line joins those that `path` names, in its order."""

    def draw(axes: Axes) -> None:
        joined = [spot for name in path for spot in places if spot.name == name]
        axes.plot([spot.x for spot in joined], [spot.y for spot in joined], color=MUTED, lw=1)
        for spot in places:
            axes.plot([spot.x], [spot.y], "o", ms=6.5, color=_stand_in(spot.series))
        axes.grid(color=LINE, lw=0.6)
        axes.locator_params(axis="both", nbins=5)
        axes.margins(x=0.12, y=0.12)
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        dots = [(spot.name, (spot.x - left) / (right - left), (spot.y - low) / (high - low)) for spot in places]
        for spot, at in zip(places, names(dots, width=PLANE[0], height=PLANE[1], font=FONT - 1), strict=True):
            axes.annotate(
                spot.name,
                (spot.x, spot.y),
                xytext=(at.x, at.y),
                textcoords="offset points",
                ha=at.end,
                color=INK,
                fontsize=FONT - 1,
            )
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return drawn(draw, height=2.8, salt=salt)


def _height(rows: float) -> float:
    return 0.55 + 0.34 * max(rows, 1)


def _stand_in(series: str) -> str:
    return next(k for k, v in STAND_INS.items() if v == colour(series))


def named_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a figure, the first on top; long names are cut."""
    axes.set_yticks(range(len(names)), [n if len(n) <= 26 else n[:25] + ".." for n in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="x", color=LINE, lw=0.6)
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=5)
        axes.margins(x=0.06)


def log_ticks(axes: Axes, low: float, high: float, *, of: str = "x") -> None:
    """Label 1, 2 and 5 of every decade, or the decades alone where there are many, in plain numbers."""
    from math import ceil, floor, log10

    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    steps = (1,) if len(decades) > 4 else (1, 3) if len(decades) > 3 else (1, 2, 5)
    ticks = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
    place = axes.set_xticks if of == "x" else axes.set_yticks
    place(ticks, [f"{t:g}" for t in ticks])
    place([], minor=True)


def drawn(draw: Callable[[Axes], None], *, height: float, salt: str) -> str:
    """Return what `draw` puts on axes as an element of a page, `height` inches high; `salt` keeps its ids apart."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[str, Any] = {"svg.hashsalt": salt, "svg.fonttype": "none", "text.parse_math": False, "font.size": FONT}
    style |= {"xtick.color": MUTED, "ytick.color": MUTED, "axes.labelcolor": MUTED, "axes.edgecolor": LINE}
    with rc_context(style):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_axisbelow(True)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(out.getvalue())


def _inline(text: str) -> str:
    """Return a drawn file as an element of a page: no prologue, metadata, style sheet or ids that repeat."""
    text = text[text.index("<svg") :]
    for useless in (r"<metadata>.*?</metadata>", r"<defs>\s*<style.*?</style>\s*</defs>", r"<!--.*?-->"):
        text = re.sub(useless, "", text, flags=re.DOTALL)
    text = re.sub(r'(<g) id="[^"]*"', r"\1", text)
    text = re.sub(r" font-family: [^;\"]*;", "", text)  # the page's own
    for stand_in, name in STAND_INS.items():
        text = text.replace(stand_in, f"var(--{name})")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 aria-hidden="true"', text, count=1)
    return re.sub(r"\s*\n\s*", "\n", text).strip()
