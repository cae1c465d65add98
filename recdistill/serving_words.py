"""What is said of a plan to serve, and the plan as JSON values: a pure reading of it."""

from __future__ import annotations

import math
from typing import Any

from recdistill.report_words import metric_name, number, percent, signed, size
from recdistill.serving_limits import NDCG, OF_TEACHER, QUALITY
from recdistill.serving_plan import Limit, Miss, ServingPlan, Step, speed
from recdistill.surface_form import Point, Surface, noise

DIGITS = 3  # of a bound that is suggested


def lines(plan: ServingPlan, surface: Surface) -> list[str]:
    """Return what a plan says, a line a thought: the choice first, then what binds, what relaxing buys, and doubts."""
    said = _chosen(plan, plan.picked, surface) if plan.picked else _refused(plan, surface)
    if why := noise(surface.environment):
        said.append(f"the times cannot be judged: {why}; measure the surface again on a quiet machine")
    return said


def told(point: Point, surface: Surface) -> str:
    """Return a point in one line: its memory, p95, quality, and share of the teacher's."""
    parts = [
        size(point.bytes),
        f"p95 {number(point.latency.total.p95_ms)} ms",
        f"{metric_name(surface.metric, surface.k)} {number(point.quality)}",
    ]
    if (of := share(point, surface)) is not None:
        parts.append(f"{percent(of)} of the teacher's")
    return f"{point.id}: {', '.join(parts)}"


def share(point: Point, surface: Surface) -> float | None:
    """Return a point's quality as a share of the teacher's, None where one of them was not measured."""
    teacher = None if surface.teacher is None else surface.teacher.quality
    return point.quality / teacher if teacher and point.quality is not None else None


def change(new: Point, old: Point, surface: Surface) -> str:
    """Return what `new` has that `old` has not: bytes, p95 and quality, in words with signs."""
    lighter = old.bytes - new.bytes
    parts = [f"{size(abs(lighter))} {'less' if lighter > 0 else 'more'}"] if lighter else []
    now, before = new.latency.total.p95_ms, old.latency.total.p95_ms
    if now is not None and before is not None and now != before:
        parts.append(f"p95 {'-' if now < before else '+'}{number(abs(now - before))} ms")
    if new.quality is not None and old.quality is not None and new.quality != old.quality:
        parts.append(f"{metric_name(surface.metric, surface.k)} {signed(new.quality - old.quality)}")
    return ", ".join(parts) or "nothing that was measured"


def outward(limit: Limit, value: float) -> float:
    """Return `value` in few digits and rounded so that a limit of it still admits the value."""
    scale = 10.0 ** (DIGITS - 1 - math.floor(math.log10(abs(value)))) if value else 1.0
    found = (math.ceil if limit.most else math.floor)(value * scale) / scale
    keeps = found >= value if limit.most else found <= value
    return found if keeps and found > 0 else value


def amount(limit: Limit, value: float) -> str:
    """Return a value of what `limit` bounds, with its unit."""
    if math.isnan(value):
        return "not measured"
    unit = "MB" if limit.name == "--memory-mb" else "ms" if limit.most else ""
    return f"{value:g} {unit}".strip()


def as_json(plan: ServingPlan, surface: Surface) -> dict[str, Any]:
    """Return a plan as JSON values; points are those of surface.json."""
    steps = ("binding", "furthest", "better", "alone")
    return {
        "points": len(surface.points),
        "feasible": plan.feasible,
        "limits": [{"name": c.name, "bound": c.bound, "most": c.most} for c in plan.limits],
        "picked": None if plan.picked is None else plan.picked.model_dump(mode="json"),
        "best": None if plan.best is None else plan.best.id,
        "fastest": None if plan.fastest is None else plan.fastest.id,
        **{name: [_step(step) for step in getattr(plan, name)] for name in steps},
        "conflicts": [[c.name for c in some] for some in plan.conflicts],
        "nearest": [{"id": m.point.id, "missed": _missed(m)} for m in plan.nearest],
        "noise": noise(surface.environment) or None,
        "text": lines(plan, surface),
    }


def _step(step: Step) -> dict[str, Any]:
    return {"limit": step.limit.name, "bound": step.limit.bound, "value": step.value, "id": step.point.id}


def _missed(miss: Miss) -> list[dict[str, Any]]:
    """Return what a point misses; what was not measured is null."""
    found = [(limit.name, value, by) for limit, value, by in miss.missed]
    return [
        {"limit": name, "value": value if math.isfinite(value) else None, "by": by if math.isfinite(by) else None}
        for name, value, by in found
    ]


def _chosen(plan: ServingPlan, picked: Point, surface: Surface) -> list[str]:
    best = plan.best or picked
    said = [
        f"serve {told(picked, surface)}",
        f"the cheapest (fewest bytes, then lowest p95) of {plan.feasible} that keep every limit; "
        f"{len(surface.points)} were measured",
        *_doubts(plan, picked),
    ]
    if _loses(picked, best):
        said.append(f"the best within the limits is {best.id}: {change(best, picked, surface)}")
    fastest = plan.fastest or picked
    if fastest.id not in (picked.id, best.id) and _faster(fastest, picked):
        said.append(f"the fastest within the limits is {fastest.id}: {change(fastest, picked, surface)}")
    if not plan.binding:
        said.append("no limit alone keeps a cheaper one out")
    for step in plan.binding:
        said.append(f"{_name(step.limit)} binds: {_allowing(step)} {change(step.point, picked, surface)}")
        for last in (one for one in plan.furthest if one.limit is step.limit):
            said.append(f"  and further, {_allowing(last)} {change(last.point, picked, surface)}")
    for step in plan.better:
        said.append(f"{_name(step.limit)} costs quality: {_allowing(step)} {change(step.point, best, surface)}")
    return said


def _refused(plan: ServingPlan, surface: Surface) -> list[str]:
    said = [f"nothing fits: of {len(surface.points)} measured ways to serve none keeps every limit"]
    for some in plan.conflicts:
        names = " and ".join(map(_name, some))
        said.append(f"no way keeps {names}" + (" together" if len(some) > 1 else ""))
    said += [
        f"{_name(step.limit)} alone stands in the way of {told(step.point, surface)}: "
        f"{amount(step.limit, outward(step.limit, step.value))} would admit it"
        for step in plan.alone
    ]
    for miss in plan.nearest:
        parts = [
            f"{limit.name} is {_exact(limit, value)}{_off(value / limit.bound, by)}" for limit, value, by in miss.missed
        ]
        said.append(f"nearest: {miss.point.id}: {'; '.join(parts)}")
    return said


def _doubts(plan: ServingPlan, picked: Point) -> list[str]:
    """Return of which limits on quality the mean is within, and the interval's lower end is not."""
    said = []
    for limit in plan.limits:
        low = picked.model_copy(update={"quality": picked.low})
        if NDCG.get(limit.name, limit.name) in (QUALITY, OF_TEACHER) and limit.miss(picked) == 0 and limit.miss(low):
            what = f"the lower end of its interval is {_exact(limit, limit.value(low))}"
            said.append(f"{_name(limit)} is kept by the mean, not surely: {what}")
    return said


def _loses(picked: Point, best: Point) -> bool:
    return best.id != picked.id and picked.quality is not None and (best.quality or 0.0) > picked.quality


def _faster(one: Point, other: Point) -> bool:
    return speed(one)[0] < speed(other)[0]


def _name(limit: Limit) -> str:
    return f"{limit.name} {limit.bound:g}"


def _allowing(step: Step) -> str:
    return f"{amount(step.limit, outward(step.limit, step.value))} instead gives {step.point.id}:"


def _off(times: float, by: float) -> str:
    """Return by how much a bound is missed, as a share or, where it is far away, as a multiple."""
    if not math.isfinite(by):
        return ""
    return f", {by:.1%} off" if by < 1 else f", {times:,.3g} times the bound"


def _exact(limit: Limit, value: float) -> str:
    return amount(limit, float(f"{value:.4g}"))
