"""What service times come to: percentiles over repeats, and whether the machine was quiet enough to judge by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of fixed work: how far its p95 and its p99 may lie above its p50, and the medians of stretches of time apart.
TAIL, FAR_TAIL, DRIFT = 0.3, 1.0, 0.2
BUCKETS = 32
CLOCK = 1e-6  # milliseconds, less than any clock tells


def summarise(times: NDArray[np.float64] | Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """Return the numbers of a `LatencyRow` for service times in seconds, [R,Q] by repeat, [Q], or R arrays.

    Percentiles are medians over the repeats; `spread` is (largest - smallest) / median of the repeats' p50. `repeats`
    has the percentiles of each. `mean_ms` and the `histogram` are over all.
    """
    parts = [np.asarray(part) * 1e3 for part in ([times] if _flat(times) else times) if np.size(part)]
    each = np.array([np.percentile(part, [50, 95, 99]) for part in parts])  # [R,3]
    p50, p95, p99 = np.median(each, axis=0)
    named = {name: each[:, n].tolist() for n, name in enumerate(("p50_ms", "p95_ms", "p99_ms"))}
    return {
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "mean_ms": float(np.concatenate(parts).mean()),
        "histogram": histogram(np.concatenate(parts)),
        "max_ms": float(max(part.max() for part in parts)),
        "queries": sum(part.size for part in parts),
        "spread": float(np.ptp(each[:, 0]) / p50) if p50 else 0.0,
        "repeats": named | {"max_ms": [float(part.max()) for part in parts]},
    }


def histogram(ms: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return how many of the milliseconds [n] lie between each two `edges_ms`, which rise by one factor."""
    low, high = max(float(ms.min()), CLOCK), max(float(ms.max()), CLOCK)
    edges = np.geomspace(low, max(high, low * 1.01), BUCKETS + 1)
    counts, _ = np.histogram(ms.clip(edges[0], edges[-1]), edges)
    return {"edges_ms": edges.tolist(), "counts": counts.tolist()}


def _flat(times: NDArray[np.float64] | Sequence[NDArray[np.float64]]) -> bool:
    return isinstance(times, np.ndarray) and times.ndim == 1


def noise(fixed: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return whether to `judge` by times that were taken while fixed work took `fixed` seconds, and `why`.

    `fixed` has a stretch of samples for the time before, between and after what was timed. A tail that fixed work has
    too is the scheduler's; medians of stretches that lie apart mean that the machine got slower or faster meanwhile.
    """
    every = np.concatenate([np.asarray(stretch, np.float64) for stretch in fixed])
    p50, p95, p99 = np.percentile(every, [50, 95, 99])
    middles = np.array([np.median(stretch) for stretch in fixed])
    # Of many short stretches a few medians are off by chance, so the middle nine tenths of them are compared.
    low, high = np.percentile(middles, [5, 95])
    tail, far, drift = (float(x) for x in (p95 / p50 - 1, p99 / p50 - 1, (high - low) / p50))
    wrong = [
        text
        for bad, text in (
            (tail > TAIL, f"its p95 was {tail:.0%} above its p50"),
            (far > FAR_TAIL, f"its p99 was {far:.0%} above its p50"),
            (drift > DRIFT, f"its median moved by {drift:.0%} meanwhile"),
        )
        if bad
    ]
    quiet = f"fixed work kept its time: p95 {tail:+.0%}, p99 {far:+.0%}, drift {drift:.0%}"
    why = f"fixed work did not keep its time: {'; '.join(wrong)}" if wrong else quiet
    return {"judge": not wrong, "why": why, "tail": tail, "far_tail": far, "drift": drift, "samples": every.size}


def warning(environment: dict[str, Any]) -> str | None:
    """Return what a report says of a noisy machine, None of a quiet one."""
    found = environment.get("noise")
    if not isinstance(found, dict) or found["judge"]:
        return environment.get("warning")
    return f"noisy machine: {found['why']}; compare what was measured in turns, and do not trust p99"
