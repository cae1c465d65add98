"""What service times come to: percentiles over repeats, and whether the machine was quiet enough to judge by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOISY = 0.3


def summarise(times: NDArray[np.float64]) -> dict[str, Any]:
    """Return the numbers of a `LatencyRow` for service times in seconds, [R,Q] by repeat or [Q].

    Percentiles are medians over the repeats; `spread` is (largest - smallest) / median of the repeats' p50.
    """
    ms = np.atleast_2d(times) * 1e3
    p50, p95, p99 = np.percentile(ms, [50, 95, 99], axis=1)
    middle = float(np.median(p50))
    return {
        "p50_ms": middle,
        "p95_ms": float(np.median(p95)),
        "p99_ms": float(np.median(p99)),
        "max_ms": float(ms.max()),
        "queries": ms.size,
        "spread": float(np.ptp(p50)) / middle if middle else 0.0,
    }


def calibrate(times: Sequence[float]) -> dict[str, Any]:
    """Return the `noise` of fixed work timed again and again, (p95 - p50) / p50, and a `warning` where it is large."""
    p50, p95 = np.percentile(np.asarray(times), [50, 95])
    noise = float((p95 - p50) / p50)
    text = f"noisy machine: fixed work varied by {noise:.0%} (p95 over p50); compare targets, do not trust the tail"
    return {"noise": noise, "warning": text if noise > NOISY else None}
