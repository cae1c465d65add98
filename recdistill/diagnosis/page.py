"""A diagnosis as Markdown and HTML, a page of its own or a section of a report: tables, and figures where one looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from recdistill import plots
from recdistill.diagnosis import view
from recdistill.diagnosis.form import DIAGNOSIS_VERSION, Diagnosis
from recdistill.diagnosis.words import findings, group, spoil_words
from recdistill.plots import Dot, Spot
from recdistill.report_words import count, metric_name, number, percent, signed


class Figure(NamedTuple):
    """An inline figure, its caption, and what it shows to those who cannot see it."""

    svg: str
    caption: str
    alt: str
    series: Sequence[str] = ()  # whose colours it is drawn in, where there are several


def section(d: Diagnosis) -> dict[str, Any]:
    """Return what the template of a diagnosis is filled with."""
    figures = {key: list(make(d)) for key, make in FIGURES.items()}
    found = [(block, figures.get(block.key, [])) for block in view.blocks(d)]
    return {
        "about": about(d),
        "findings": findings(d),
        "blocks": found,
        "notes": d.notes,
    }


def html(d: Diagnosis) -> str:
    """Return a diagnosis as one self-contained page; equal ones give equal bytes."""
    from recdistill.report_page import templates

    return templates().get_template("diagnosis.html.j2").render(diagnosis=section(d), version=DIAGNOSIS_VERSION)


def markdown(d: Diagnosis) -> str:
    """Return a diagnosis as Markdown: what it found, then every table."""
    from recdistill.report_markdown import escape, table

    parts = ["# Diagnosis of a distillation", escape(about(d)), "\n".join(f"- {escape(f)}" for f in findings(d))]
    for block in view.blocks(d):
        parts += [f"## {block.title}", escape(block.hint), table(block.table)]
    if d.notes:
        parts += ["## Not measured", "\n".join(f"- {escape(note)}" for note in d.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def about(d: Diagnosis) -> str:
    """Return of whom and of what a diagnosis is."""
    scored = f"; scores of the whole catalogue for {count(d.scored)} of them" if d.scored else ""
    seeds = "1 seed" if d.seeds == 1 else f"{d.seeds} seeds, scores of the first"
    return f"Lists of {count(d.users)} users with held-out items{scored}; {seeds}. Intervals are 95%, over users."


def _agreement(d: Diagnosis) -> Iterable[Figure]:
    shown = [a for a in d.agreement if a.model in ("student", "scratch") and a.overlap is not None]
    points = [Dot(a.part, a.model, a.overlap or 0.0) for a in shown]
    if points:
        said = "; ".join(f"{p.row} {p.series} {percent(p.value)}" for p in points)
        caption = f"Share of the teacher's first {d.k} items that the model shows too"
        yield Figure(plots.dots(points, salt="agreement"), caption, f"{caption}: {said}.", ("scratch", "student"))


def _controls(d: Diagnosis) -> Iterable[Figure]:
    if not d.controls or d.controls[0].gain is None:
        return
    one = d.controls[0]
    points = [Dot("the run's teacher", "student", one.gain or 0.0, one.gain_low, one.gain_high)]
    points += [Dot(c.control, "control", c.value, c.low, c.high) for c in d.controls if c.value is not None]
    said = "; ".join(f"{p.row} {signed(p.value)}" for p in points)
    caption = f"{metric_name(d.metric, d.k)} over scratch, by who taught"
    yield Figure(plots.dots(points, salt="controls", zero=True), caption, f"{caption}: {said}.")


def _buckets(d: Diagnosis) -> Iterable[Figure]:
    points = [
        Dot(
            f"{group(b.activity, d.groups[0], 'active')}, {group(b.popularity, d.groups[1], 'pop.')}",
            "student",
            b.difference,
            b.low,
            b.high,
        )
        for b in d.buckets
        if b.difference is not None
    ]
    if points:
        said = "; ".join(f"{p.row} {signed(p.value)}" for p in points)
        caption = f"Recall@{d.k}, student less scratch: users, items"
        yield Figure(plots.dots(points, salt="buckets", zero=True), caption, f"{caption}: {said}.")


def _reliability(d: Diagnosis) -> Iterable[Figure]:
    curves = {
        r.model: [(b.chance, b.observed) for b in r.bins if b.chance > 0 and b.observed > 0] for r in d.reliability
    }
    if curves := {model: points for model, points in curves.items() if points}:
        said = "; ".join(f"{r.model} ECE {number(r.ece)}" for r in d.reliability)
        caption = "Chance given and chance met, on log scales"
        svg = plots.diagonal(curves, x="chance given", y="chance met", salt="reliability")
        yield Figure(svg, caption, f"Reliability diagram: {said}.", tuple(curves))


def _frontier(d: Diagnosis) -> Iterable[Figure]:
    """Yield both planes, in which controls, far from all others, would leave no room; the table has them."""
    controls = {c.control for c in d.controls}
    points = [p for p in d.frontier if p.model not in controls]
    taught = sorted((p.teacher_temperature, p.model) for p in points if p.teacher_temperature is not None)
    for x, y, across, up in (
        ("relevance", "coverage", f"precision: relevance of the first {d.k}", "recall: coverage"),
        ("teacher_chance", "likelihood", "precision: teacher's log-chance", "recall: log-chance of held-out"),
    ):
        found = [(p, getattr(p, x), getattr(p, y)) for p in points]
        places = [Spot(p.model, p.model, a, b) for p, a, b in found if a is not None and b is not None]
        if len(places) > 1:
            said = "; ".join(f"{s.name} {number(s.x)}, {number(s.y)}" for s in places)
            svg = plots.spots(places, x=across, y=up, salt=f"frontier-{x}", path=[name for _, name in taught])
            yield Figure(svg, f"{across.capitalize()}; {up}", f"{across}, {up}: {said}.")


def _slopes(d: Diagnosis) -> Iterable[Figure]:
    points = [Dot(s.part, s.model, s.slope) for s in d.slopes if s.slope is not None]
    if points:
        said = "; ".join(f"{p.row} {p.series} {number(p.value)}" for p in points)
        caption = "Slope of the model's log-odds on the teacher's: 1 is as sure"
        yield Figure(plots.dots(points, salt="slopes"), caption, f"{caption}: {said}.", ("scratch", "student"))


def _directions(d: Diagnosis) -> Iterable[Figure]:
    curves: dict[str, list[tuple[float, float]]] = {}
    for v in d.directions:
        if v.gain is not None:
            curves.setdefault(v.model, []).append((v.direction, v.gain))
    if curves:
        said = "; ".join(f"{m} from {number(p[0][1])} to {number(p[-1][1])}" for m, p in curves.items())
        svg = plots.lines(curves, salt="directions", label="direction of the teacher, by falling energy")
        caption = "Gain along the teacher's directions: 1 is as the teacher"
        yield Figure(svg, caption, f"Gain by direction: {said}.", tuple(curves))


def _flatness(d: Diagnosis) -> Iterable[Figure]:
    curves: dict[str, list[tuple[float, float]]] = {}
    for f in d.flatness:
        if f.rise is not None:
            curves.setdefault(f.model, [(0.0, 0.0)]).append((f.rho, f.rise))
    if curves:
        said = "; ".join(f"{m} {number(p[-1][1])} at rho {p[-1][0]:g}" for m, p in curves.items())
        svg = plots.lines(curves, salt="flatness", label="rho")
        caption = "Rise of the held-out loss under noise in the vectors"
        yield Figure(svg, caption, f"Rise of the loss: {said}.", tuple(curves))


def _inherited(d: Diagnosis) -> Iterable[Figure]:
    points = [Dot(i.what, "student", i.index, i.low, i.high) for i in d.inherited if i.index is not None]
    if points:
        said = "; ".join(f"{p.row} {signed(p.value)}" for p in points)
        svg = plots.dots(points, salt="inherited", zero=True)
        yield Figure(svg, "Agreement with the teacher beyond that of scratch", f"Transfer index: {said}.")


def _robustness(d: Diagnosis) -> Iterable[Figure]:
    points = [
        Dot(spoil_words(r.spoil, r.fraction), "student", r.gain, r.least, r.most)
        for r in d.robustness
        if r.gain is not None
    ]
    if points:
        said = "; ".join(f"{p.row} {signed(p.value)}" for p in points)
        caption = f"{metric_name(d.metric, d.k)} over scratch, by training log; lines reach from seed to seed"
        yield Figure(plots.dots(points, salt="robustness", zero=True), caption, f"{caption}: {said}.")
    for kind, label in (("noise", "share of noise"), ("imbalance", "share of the tail that is cut")):
        rows = [r for r in d.robustness if r.spoil in ("clean", kind)]
        curves = {
            model: [(r.fraction, value) for r in rows if (value := getattr(r, model)) is not None]
            for model in ("teacher", "scratch", "student")
        }
        if len(rows) > 1 and all(curves.values()):
            said = "; ".join(f"{m} from {number(p[0][1])} to {number(p[-1][1])}" for m, p in curves.items())
            svg = plots.lines(curves, salt=f"robust-{kind}", label=label)
            caption = f"{metric_name(d.metric, d.k)} on the clean test part, by the {label}"
            yield Figure(svg, caption, f"{caption}: {said}.", tuple(curves))


FIGURES: dict[str, Callable[[Diagnosis], Iterable[Figure]]] = {
    "agreement": _agreement,
    "controls": _controls,
    "buckets": _buckets,
    "reliability": _reliability,
    "frontier": _frontier,
    "slopes": _slopes,
    "directions": _directions,
    "flatness": _flatness,
    "inherited": _inherited,
    "robustness": _robustness,
}
