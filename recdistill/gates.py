"""Gates: what a candidate must measure before it may serve. Pure functions of reports; the registry acts on them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat, model_validator

from recdistill.metrics import METRICS
from recdistill.results import GateResult
from recdistill.spec import Spec

CANDIDATE, CHAMPION, TEACHER = "student@index", "champion@index", "teacher"
BESIDE = "candidate@index"  # the candidate as it was measured in turns with the champion
QUALITY = (*METRICS, "coverage")
BOUNDS = {
    # The bounds that mean something for a kind of metric: a teacher has no index, and less latency is no loss.
    "quality": ("min", "max", "min_of_teacher", "max_drop_vs_champion"),
    "latency": ("max", "max_ratio_vs_champion"),
    "index": ("min", "max_drop_vs_champion"),
}


class GateSpec(Spec):
    """The bounds one metric must keep; at least one."""

    min: float | None = None
    """The least value that passes."""
    max: float | None = None
    """The largest value that passes."""
    min_of_teacher: PositiveFloat | None = None
    """The least share of the teacher's value that passes."""
    max_drop_vs_champion: NonNegativeFloat | None = None
    """How far below the champion's value still passes, in the metric's own unit."""
    max_ratio_vs_champion: PositiveFloat | None = None
    """The largest multiple of the champion's value that passes."""

    @model_validator(mode="after")
    def _bounded(self) -> GateSpec:
        if not self.bounds():
            names = ", ".join(type(self).model_fields)
            raise ValueError(f"a gate without a bound lets everything pass; give one of {names}")
        return self

    def bounds(self) -> dict[str, float]:
        """Return the bounds that are set."""
        return {name: value for name, value in self if value is not None}


class Metric(NamedTuple):
    """Where a gate's name points in a report."""

    kind: str  # quality, latency, index
    name: str  # ndcg; p95_ms; recall
    k: int | None
    part: str | None = None  # of a latency


def parse(name: str) -> Metric | None:
    """Return what a gate's name measures, such as `ndcg_at_10`, `index_recall_at_10`, `p95_ms`, `search_p95_ms`."""
    if m := re.fullmatch(r"(index_)?([a-z]+)_at_([1-9]\d*)", name):
        if m[1]:
            return Metric("index", "recall", int(m[3])) if m[2] == "recall" else None
        return Metric("quality", m[2], int(m[3])) if m[2] in QUALITY else None
    if m := re.fullmatch(r"(?:(encode|search|total)_)?(p50|p95|p99)_ms", name):
        return Metric("latency", f"{m[2]}_ms", None, m[1] or "total")
    return None


def _meaningful(gates: dict[str, GateSpec]) -> dict[str, GateSpec]:
    for name, gate in gates.items():
        metric = parse(name)
        if metric is None:
            known = ", ".join([*(f"{q}_at_K" for q in QUALITY), "index_recall_at_K", "p95_ms", "search_p95_ms"])
            raise ValueError(f"{name!r} is no metric a gate can hold; there are {known}")
        if odd := [b for b in gate.bounds() if b not in BOUNDS[metric.kind]]:
            use = ", ".join(BOUNDS[metric.kind])
            raise ValueError(f"{name}: {', '.join(odd)} says nothing of {metric.kind}; use {use}")
    return gates


GatesSpec = Annotated[dict[str, GateSpec], AfterValidator(_meaningful)]


def judge(
    gates: Mapping[str, GateSpec], report: Mapping[str, Any], champion: Mapping[str, Any] | None
) -> tuple[GateResult, ...]:
    """Return one verdict per bound of `gates` on a report and the champion's report, None where there is none.

    A report holds `quality` (MetricRow dicts), `latency` (LatencyRow dicts) and `index` ({"recall": {"10": ..}}).
    The champion's value is its row `champion@index` in the candidate's own report where it was measured beside the
    candidate, whose row then is `candidate@index`, else what its own report says. A value that is missing or not finite
    fails; without a champion, bounds relative to it pass. Where the machine was too noisy to judge by, p99 is excused,
    p50 and p95 hold against a champion that was measured in turns, and other failures say to measure again.
    """
    results: list[GateResult] = []
    noise = _noise(report)
    for name, gate in gates.items():
        metric = parse(name)
        if metric is None:
            raise ValueError(f"{name!r} is no metric a gate can hold")
        value = _measured(metric, report)
        teacher = _value(metric, report, TEACHER) if metric.kind == "quality" else math.nan
        ruler = _champion(metric, report, champion)
        found = [_verdict(name, value, b, x, teacher, ruler) for b, x in gate.bounds().items()]
        in_turns = math.isfinite(_value(metric, report, CHAMPION)) if metric.kind == "latency" else False
        results += [_in_noise(r, b, metric, noise, in_turns) for r, b in zip(found, gate.bounds(), strict=True)]
    return tuple(results)


def _noise(report: Mapping[str, Any]) -> str:
    """Return why times of this report are nothing to judge by, empty where they are."""
    environment = report.get("latency_environment") or {}
    noise = environment.get("beside_champion", environment).get("noise")
    return noise["why"] if isinstance(noise, Mapping) and not noise["judge"] else ""


def _in_noise(result: GateResult, bound: str, metric: Metric, noise: str, in_turns: bool) -> GateResult:
    """Return `result` as it counts where the machine was noisy: slowness then may be the machine's."""
    if result.passed or metric.kind != "latency" or not noise or not math.isfinite(result.measured):
        return result
    if metric.name == "p99_ms":
        reason = f"{result.reason}; not held against it, as the machine was too noisy: {noise}"
        return replace(result, passed=True, excused=True, reason=reason)
    if in_turns and bound == "max_ratio_vs_champion":
        return result
    return replace(result, reason=f"{result.reason}; the machine was too noisy, so measure it again: {noise}")


def _verdict(gate: str, value: float, bound: str, limit: float, teacher: float, champion: float | None) -> GateResult:
    if bound.endswith("_vs_champion") and champion is None:
        missing = "" if math.isfinite(value) else f"; {gate} was not measured"
        reason = "there is no champion to compare with" + missing
        return GateResult(gate=gate, passed=not missing, measured=value, required=bound, reason=reason)
    ruler = math.nan if champion is None else champion
    against, text, allows = _REQUIREMENTS[bound](limit, teacher, ruler)
    if not math.isfinite(value):
        passed, reason = False, f"{gate} was not measured, or is not finite"
    elif not math.isfinite(against):
        passed, reason = False, f"{gate} of what it is compared with was not measured: {text}"
    else:
        passed = value >= against if allows == ">=" else value <= against
        reason = f"{gate} is {value:.6g}, required {allows} {against:.6g}"
        reason += "" if bound in ("min", "max") else f" ({text})"
    return GateResult(gate=gate, passed=passed, measured=value, required=f"{allows} {text}", reason=reason)


_REQUIREMENTS: Mapping[str, Callable[[float, float, float], tuple[float, str, str]]] = {
    # bound -> (limit, teacher, champion) -> (the number it comes to, how to say it, which side passes)
    "min": lambda x, _t, _c: (x, f"{x:g}", ">="),
    "max": lambda x, _t, _c: (x, f"{x:g}", "<="),
    "min_of_teacher": lambda x, t, _c: (x * t, f"{x:g} of the teacher's {t:.6g}", ">="),
    "max_drop_vs_champion": lambda x, _t, c: (c - x, f"the champion's {c:.6g} less {x:g}", ">="),
    "max_ratio_vs_champion": lambda x, _t, c: (x * c, f"{x:g} times the champion's {c:.6g}", "<="),
}


def _champion(metric: Metric, report: Mapping[str, Any], champion: Mapping[str, Any] | None) -> float | None:
    """Return the champion's value, NaN where it has one to compare with but none is known."""
    beside = math.nan if metric.kind == "index" else _value(metric, report, CHAMPION)
    if math.isfinite(beside):
        return beside
    return None if champion is None else _value(metric, champion, CANDIDATE)


def _measured(metric: Metric, report: Mapping[str, Any]) -> float:
    """Return the candidate's value: a time as it was measured beside the champion, if it was."""
    beside = _value(metric, report, BESIDE) if metric.kind == "latency" else math.nan
    return beside if math.isfinite(beside) else _value(metric, report, CANDIDATE)


def _value(metric: Metric, report: Mapping[str, Any], model: str) -> float:
    """Return one number of a report, NaN where it is not there."""
    if metric.kind == "index":
        value = report.get("index", {}).get("recall", {}).get(str(metric.k))
        return math.nan if value is None else float(value)
    if metric.kind == "latency":
        rows = [r for r in report.get("latency", ()) if (r["model"], r["part"]) == (model, metric.part)]
        return _number(rows[0][metric.name]) if rows else math.nan
    key = (model, metric.name, metric.k, "all")
    rows = [r for r in report.get("quality", ()) if (r["model"], r["metric"], r["k"], r["slice"]) == key]
    return _number(rows[0]["value"]) if rows else math.nan


def _number(value: float | None) -> float:
    """Return `value`, NaN where a report that was read back from disk says null."""
    return math.nan if value is None else float(value)
