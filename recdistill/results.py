"""What a run measured and decided: the rows of a report, the verdicts of gates, the release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """One measured quality: `value` over users (and seeds), with a bootstrap interval."""

    model: str  # teacher, scratch, student, student@index, popularity
    metric: str  # recall, ndcg, ...
    k: int
    slice: str  # all, popularity:head, activity:low, ...
    value: float
    low: float
    high: float
    seed_spread: float | None = None  # standard deviation over seeds, where there are several


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRow:
    """Service times of one way to answer, in milliseconds, one query at a time."""

    model: str  # teacher, student@flat, student@index, ...
    part: str  # encode, search, total
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    queries: int
    size_bytes: int
    spread: float = 0.0  # (largest - smallest) / median of the repeats' p50
    mean_ms: float | None = None
    repeats: Mapping[str, Sequence[float]] = field(default_factory=dict)  # p50_ms, p95_ms, p99_ms, max_ms of each
    histogram: Mapping[str, Sequence[float]] = field(default_factory=dict)  # edges_ms, and counts between two of them


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate's verdict: what it measured, what it required, and by how much."""

    gate: str
    passed: bool
    measured: float
    required: str
    reason: str
    excused: bool = False  # it did not pass, and counts as passed: the machine was too noisy to judge by it
    margin: float | None = None  # what is left before it would fail, in the metric's unit; below 0, how far it failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What the registry did with a candidate."""

    model: str
    version: int
    alias: str | None  # "champion" if promoted
    gates: tuple[GateResult, ...]
    uri: str
    run_id: str
