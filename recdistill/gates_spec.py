"""What a gate may be: a metric's name, and the bounds that mean something for its kind."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, model_validator

from recdistill.metrics import METRICS
from recdistill.spec import Spec

QUALITY = (*METRICS, "coverage")
BUCKETS = {
    # The slices of a report, each with all of its buckets: one that was not measured is missed.
    "activity": ("low", "medium", "high"),
    "popularity": ("head", "middle", "tail"),
}
DROPS = ("max_drop_vs_champion", "max_relative_drop_vs_champion")
BOUNDS = {
    # The bounds that mean something for a kind of metric: a teacher has no index, and less latency is no loss.
    "quality": ("min", "max", "min_of_teacher", *DROPS),
    "latency": ("max", "max_ratio_vs_champion"),
    "index": ("min", *DROPS),
    "size": ("min", "max", "max_ratio_vs_champion"),
    "freshness": ("max",),
    "churn": ("max",),
}
KNOWN = (
    *(f"{name}_at_K" for name in QUALITY),
    *(f"{name}_at_K_worst_{slice_}" for slice_ in BUCKETS for name in METRICS),
    "index_recall_at_K",
    "churn_at_K",
    "p95_ms",
    "search_p95_ms",
    "bundle_bytes",
    "data_age_hours",
)


class GateSpec(Spec):
    """The bounds one metric must keep; at least one."""

    min: float | None = None
    """The least value that passes."""
    max: float | None = None
    """The largest value that passes."""
    min_of_teacher: PositiveFloat | None = None
    """The least share of the teacher's value that passes."""
    max_drop_vs_champion: NonNegativeFloat | None = None
    """How far below the champion's value still passes, in the metric's own unit; judged by the low end of the paired
    interval where both were asked for the same users."""
    max_relative_drop_vs_champion: NonNegativeFloat | None = Field(
        default=None, lt=1, exclude_if=lambda limit: limit is None
    )
    """The same, as a share of the champion's value."""
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

    kind: str  # a key of BOUNDS
    name: str  # ndcg; p95_ms; recall
    k: int | None = None
    part: str | None = None  # of a latency
    worst: str | None = None  # a key of BUCKETS: the gate is on the worst of its buckets
    slice: str = "all"


def parse(name: str) -> Metric | None:
    """Return what a gate's name measures, such as `ndcg_at_10`, `ndcg_at_10_worst_activity`, `p95_ms`; None if nothing.

    `KNOWN` lists the names.
    """
    if name in ("bundle_bytes", "data_age_hours"):
        return Metric("size" if name == "bundle_bytes" else "freshness", name)
    if m := re.fullmatch(rf"([a-z]+)_at_([1-9]\d*)_worst_({'|'.join(BUCKETS)})", name):
        return Metric("quality", m[1], int(m[2]), worst=m[3]) if m[1] in METRICS else None
    if m := re.fullmatch(r"(index_)?([a-z]+)_at_([1-9]\d*)", name):
        if m[1]:
            return Metric("index", "recall", int(m[3])) if m[2] == "recall" else None
        if m[2] == "churn":
            return Metric("churn", "churn", int(m[3]))
        return Metric("quality", m[2], int(m[3])) if m[2] in QUALITY else None
    if m := re.fullmatch(r"(?:(encode|search|total)_)?(p50|p95|p99)_ms", name):
        return Metric("latency", f"{m[2]}_ms", part=m[1] or "total")
    return None


def _meaningful(gates: dict[str, GateSpec]) -> dict[str, GateSpec]:
    for name, gate in gates.items():
        metric = parse(name)
        if metric is None:
            raise ValueError(f"{name!r} is no metric a gate can hold; there are {', '.join(KNOWN)}")
        if odd := [b for b in gate.bounds() if b not in BOUNDS[metric.kind]]:
            use = ", ".join(BOUNDS[metric.kind])
            raise ValueError(f"{name}: {', '.join(odd)} says nothing of {metric.kind}; use {use}")
    return gates


GatesSpec = Annotated[dict[str, GateSpec], AfterValidator(_meaningful)]
