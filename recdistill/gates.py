"""Gates: what a candidate must measure before it may serve. Pure functions of reports; the registry acts on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from recdistill.gates_measured import (
    BESIDE,
    CANDIDATE,
    CHAMPION,
    TEACHER,
    Paired,
    candidate_value,
    champion_value,
    paired,
    value,
)
from recdistill.gates_spec import BUCKETS, DROPS, GateSpec, GatesSpec, Metric, parse
from recdistill.results import GateResult

__all__ = ["BESIDE", "CANDIDATE", "CHAMPION", "GateSpec", "GatesSpec", "judge", "parse"]


def judge(
    gates: Mapping[str, GateSpec], report: Mapping[str, Any], champion: Mapping[str, Any] | None
) -> tuple[GateResult, ...]:
    """Return one verdict per bound of `gates` on a report and the champion's report, None where there is none.

    A report holds `quality` (MetricRow dicts), `latency` (LatencyRow dicts), `index` ({"recall": {"10": ..}}), `bundle`
    (what `bundle_facts` returns) and `champion` (what `contest` returns, and the champion's `bundle`). A drop against a
    champion that was asked for the same users passes where the low end of the paired interval is no lower than it
    allows; else the champion's value is its row `champion@index` in the candidate's own report where it was measured
    beside the candidate, whose row then is `candidate@index`, else what its own report says. A gate on the worst bucket
    of a slice has the verdict of the bucket that has least room.

    A value that is missing or not finite fails; without a champion, bounds relative to it pass. Where the machine was
    too noisy to judge by, p99 is excused, p50 and p95 hold against a champion that was measured in turns, and other
    failures say to measure again.
    """
    results: list[GateResult] = []
    noise = _noise(report)
    for name, gate in gates.items():
        metric = parse(name)
        if metric is None:
            raise ValueError(f"{name!r} is no metric a gate can hold")
        in_turns = math.isfinite(value(metric, report, CHAMPION)) if metric.kind == "latency" else False
        for bound, limit in gate.bounds().items():
            result = _worst(_Asked(name, name, metric, bound, limit), report, champion)
            results.append(_in_noise(result, bound, metric, noise, in_turns))
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


class _Asked(NamedTuple):
    """One bound of one gate; `label` is how its reason calls the metric."""

    gate: str
    label: str
    metric: Metric
    bound: str
    limit: float


def _worst(asked: _Asked, report: Mapping[str, Any], champion: Mapping[str, Any] | None) -> GateResult:
    """Return the verdict of one bound, of the bucket with least room where the gate is on the worst of several."""
    metric = asked.metric
    if metric.worst is None:
        return _verdict(asked, report, champion)
    each: list[GateResult] = []
    for part in (f"{metric.worst}:{bucket}" for bucket in BUCKETS[metric.worst]):
        label = f"{asked.gate.removesuffix(f'_worst_{metric.worst}')} of {part}"
        each.append(_verdict(asked._replace(label=label, metric=metric._replace(slice=part)), report, champion))
    return min(each, key=lambda result: (result.passed, -math.inf if result.margin is None else result.margin))


def _verdict(asked: _Asked, report: Mapping[str, Any], champion: Mapping[str, Any] | None) -> GateResult:
    gate, label, metric, bound, limit = asked
    if bound in DROPS and (found := paired(metric, report)) is not None:
        return _not_inferior(asked, found)
    measured, ruler = candidate_value(metric, report), champion_value(metric, report, champion)
    missing = "" if math.isfinite(measured) else f"; {label} was not measured"
    if champion is None and metric.kind == "churn" and missing:
        reason = f"there is no champion whose lists {label} could be held against"
        return GateResult(gate=gate, passed=True, measured=measured, required=f"<= {limit:g}", reason=reason)
    if ruler is None and bound.endswith("_vs_champion"):
        reason = "there is no champion to compare with" + missing
        required = f"{bound}: {limit:g}"
        return GateResult(gate=gate, passed=not missing, measured=measured, required=required, reason=reason)
    teacher = value(metric, report, TEACHER) if bound == "min_of_teacher" else math.nan
    against, text, allows = _REQUIREMENTS[bound](limit, teacher, math.nan if ruler is None else ruler)
    required = f"{allows} {text}"
    if missing or not math.isfinite(against):
        of_it = f"{label} of what it is compared with was not measured: {text}"
        reason = f"{label} was not measured, or is not finite" if missing else of_it
        return GateResult(gate=gate, passed=False, measured=measured, required=required, reason=reason)
    passed, margin = (
        (measured >= against, measured - against) if allows == ">=" else (measured <= against, against - measured)
    )
    reason = f"{label} is {_say(measured)}, required {allows} {_say(against)}"
    reason += "" if bound in ("min", "max") else f" ({text})"
    reason += "" if passed else f": {_say(-margin)} too {'low' if allows == '>=' else 'high'}"
    return GateResult(gate=gate, passed=passed, measured=measured, required=required, reason=reason, margin=margin)


def _not_inferior(asked: _Asked, found: Paired) -> GateResult:
    """Return whether the candidate is surely no further below the champion than the limit allows.

    A share of the champion's value is taken of its mean over the same users.
    """
    share = f"{100 * asked.limit:g}% of" if asked.bound == "max_relative_drop_vs_champion" else ""
    floor = 0.0 - (asked.limit * found.champion if share else asked.limit)
    required = f"no lower than {_say(floor)} from the champion's {_say(found.champion)}"
    required += f" ({share} it)" if share else ""
    if not all(map(math.isfinite, found)):
        reason = f"{asked.label} was not measured beside the champion's, or is not finite"
        return GateResult(gate=asked.gate, passed=False, measured=found.candidate, required=required, reason=reason)
    margin = found.low - floor
    reason = (
        f"{asked.label} is {_say(found.candidate)}, the champion's {_say(found.champion)}; the difference is "
        f"{found.difference:+.4g} [{found.low:+.4g}, {found.high:+.4g}] on {found.users:,} users, required: "
        f"not below {_say(floor)}"
    )
    reason += f" ({share} the champion's)" if share else ""
    if margin < 0:
        reason += f": {_say(-margin)} too low"
        wide = "the difference alone would pass, but its interval does not rule a larger drop out"
        reason += f"; {wide}" if found.difference >= floor else ""
    return GateResult(
        gate=asked.gate,
        passed=margin >= 0,
        measured=found.candidate,
        required=required,
        reason=reason,
        margin=margin,
    )


_REQUIREMENTS: Mapping[str, Callable[[float, float, float], tuple[float, str, str]]] = {
    # bound -> (limit, teacher, champion) -> (the number it comes to, how to say it, which side passes)
    "min": lambda x, _t, _c: (x, _say(x), ">="),
    "max": lambda x, _t, _c: (x, _say(x), "<="),
    "min_of_teacher": lambda x, t, _c: (x * t, f"{x:g} of the teacher's {_say(t)}", ">="),
    "max_drop_vs_champion": lambda x, _t, c: (c - x, f"the champion's {_say(c)} less {x:g}", ">="),
    "max_relative_drop_vs_champion": lambda x, _t, c: ((1 - x) * c, f"{1 - x:g} of the champion's {_say(c)}", ">="),
    "max_ratio_vs_champion": lambda x, _t, c: (x * c, f"{x:g} times the champion's {_say(c)}", "<="),
}


def _say(number: float) -> str:
    """Return a number as a sentence has it: large ones whole, small ones to what matters."""
    return f"{number:,.0f}" if abs(number) >= 1e5 else f"{number:.6g}"
