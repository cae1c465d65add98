"""Who teaches whom: every model of a pool is a student where another one is better.

Cooperative distillation (Livanos, Davidson and Wong, AAAI 2024): a model learns from another only where that one is
right and it is not. How far it goes is said by the target (`half_way` of distill.targets), on which histories by
`flips`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recdistill.types import Int

Quality = NDArray[np.float64]


def quality_of(values: Quality, segment: Int, segments: int) -> Quality:
    """Return the mean of `values` [U,M] (users by models) in each segment [U] of the users: [segments,M].

    A user's NaN counts for nothing; a segment where a model has no other value is NaN. The values should come from
    models that did not learn from what they are measured on: in what it knows by heart a teacher is always right.
    """
    found = np.empty((segments, values.shape[1]))
    for m, column in enumerate(values.T):
        known = ~np.isnan(column)
        total = np.bincount(segment[known], column[known], minlength=segments)
        count = np.bincount(segment[known], minlength=segments)
        found[:, m] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def route(quality: Quality) -> Int:
    """Return which model teaches each one in each segment, [S,M]: the best, if it is better than the student, else -1.

    quality [S,M], the larger the better; equals do not teach each other, and the first of equal teachers does. A
    model whose quality is NaN neither teaches nor learns there.
    """
    known = np.where(np.isnan(quality), -np.inf, quality)
    best = known.argmax(1)[:, None]
    better = np.take_along_axis(known, best, 1) > quality  # never where the student's is NaN
    return np.where(better, best, -1).astype(np.int64)
