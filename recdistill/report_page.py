"""A report as one HTML page: no network, no script, light or dark as the reader's system asks, and printable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recdistill import (
    plots,
    report_champion,
    report_daily,
    report_defer,
    report_refresh,
    report_serving,
    report_surface,
    report_words,
)
from recdistill import report_view as view
from recdistill.diagnosis.form import read
from recdistill.diagnosis.page import Figure, section
from recdistill.plots import Dot, Span
from recdistill.report_form import check

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


def templates() -> Environment:
    """Return where the templates of pages are, with what they need to show figures."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    pages = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["svg"] = Markup  # what plots.py drew; matplotlib escapes the text in it
    pages.filters["colour"] = plots.colour
    return pages


def html(report: Mapping[str, Any]) -> str:
    """Return a report as one self-contained page; equal reports give equal bytes."""
    report = check(report)
    found, surface = report.get("diagnosis"), report_surface.of(report)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            report=report,
            word=report_words.verdict_word(report),
            headline=report_words.headline(report),
            metric=report_words.metric_name(**report["headline"]),
            view=view,
            night=report_daily,
            refresh=report_refresh,
            diagnosis=None if found is None else section(read(found)),
            defer=report_defer.section(report["defer"]) if report.get("defer") else None,
            surface=None if surface is None else report_serving.section(surface, report),
            champion=report_champion.against(report),
            undiagnosed=report_words.undiagnosed(report),
            figures={
                "quality": list(_quality(report)),
                "slices": list(_slices(report)),
                "latency": list(_latency(report)),
                "curves": list(_curves(report)),
            },
            config=yaml.safe_dump(report["config"], sort_keys=False, allow_unicode=True) if report["config"] else "",
        )
    )


def _quality(report: Mapping[str, Any]) -> Iterable[Figure]:
    rows = [r for r in report["quality"] if r["slice"] == "all" and r["value"] is not None]
    for metric, k in view.columns(report):
        points = [_dot(r["model"], r) for m in view.models(rows) for r in rows if _is(r, m, metric, k)]
        if points:
            name = report_words.metric_name(metric, k)
            yield Figure(plots.dots(points, salt=f"quality-{metric}-{k}"), name, _alt(name, points))


def _slices(report: Mapping[str, Any]) -> Iterable[Figure]:
    head = report["headline"]
    rows = [r for r in report["quality"] if r["slice"] != "all" and r["value"] is not None]
    rows = [r for r in rows if (r["metric"], r["k"]) == (head["metric"], head["k"])]
    for family in dict.fromkeys(r["slice"].split(":")[0] for r in rows):
        inside = [r for r in rows if r["slice"].split(":")[0] == family]
        points = [_dot(r["slice"].partition(":")[2] or r["slice"], r) for r in inside]
        name = f"{report_words.metric_name(**head)} by {family}"
        yield Figure(plots.dots(points, salt=f"slice-{family}"), name, _alt(name, points))


def _latency(report: Mapping[str, Any]) -> Iterable[Figure]:
    found = [(m, report_words.total(report, m)) for m in view.models(report["latency"])]
    rows = [(m, [r[f"{p}_ms"] for p in ("p50", "p95", "p99", "max")]) for m, r in found if r]
    spans = [Span(m, *times) for m, times in rows if all(t is not None and t > 0 for t in times)]
    if spans:
        said = "; ".join(f"{s.row} p50 {s.p50:.3g} ms, p99 {s.p99:.3g} ms" for s in spans)
        caption = "Whole answer, one query at a time. Dot: p50. Line: to p99, with ticks at p95 and p99. Ring: slowest."
        yield Figure(plots.spans(spans, salt="latency"), caption, f"Latency on a log scale: {said}.")


def _curves(report: Mapping[str, Any]) -> Iterable[Figure]:
    for model, points in report["curves"].items():
        loss = [(p["step"], p["loss"]) for p in points if p["loss"] is not None]
        if loss:
            said = f"Training loss of {model}: from {loss[0][1]:.4g} to {loss[-1][1]:.4g} at step {loss[-1][0]}."
            yield Figure(plots.lines({model: loss}, salt=f"loss-{model}"), f"Training loss, {model}", said)
    valid = {m: [(p["step"], p["valid"]) for p in v if p["valid"] is not None] for m, v in report["curves"].items()}
    if valid := {m: v for m, v in valid.items() if v}:
        said = "; ".join(f"{m} best {max(v for _, v in points):.4g}" for m, points in valid.items())
        yield Figure(plots.lines(valid, salt="valid"), "Validation, all models", f"Validation by step: {said}.")


def _dot(row: str, r: Mapping[str, Any]) -> Dot:
    return Dot(row, r["model"], r["value"], r["low"], r["high"])


def _is(r: Mapping[str, Any], model: str, metric: str, k: int) -> bool:
    return (r["model"], r["metric"], r["k"]) == (model, metric, k)


def _alt(name: str, points: Sequence[Dot]) -> str:
    said = (f"{p.series if p.series == p.row else f'{p.row} {p.series}'} {p.value:.4f}" for p in points)
    return f"{name}: {'; '.join(said)}."
