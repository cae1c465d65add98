"""Scores of a row as chances, in logarithms and in float64, so that what is nearly sure or nearly never stays exact."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recdistill.metrics import Values

Mask = NDArray[np.bool_]
Scores = NDArray[Any]


def log_sum(scores: Scores, mask: Mask | None = None) -> Values:
    """Return log sum exp of each row of `scores` [n,L] over its `mask` [n,L], [n]; -inf for a row without any."""
    known = _known(scores, mask)
    peak = known.max(1, keepdims=True, initial=-np.inf)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    total = np.exp(known - peak).sum(1)
    logs = np.log(total, out=np.full(len(total), -np.inf), where=total > 0)
    return logs + peak[:, 0]


def log_softmax(scores: Scores, mask: Mask | None = None) -> Values:
    """Return the log-chances of each row of `scores` [n,L] over its `mask` [n,L]; -inf outside, and where -inf."""
    total = log_sum(scores, mask)
    return _known(scores, mask) - np.where(np.isfinite(total), total, 0.0)[:, None]


def log_odds(scores: Scores, columns: NDArray[np.int64], mask: Mask | None = None) -> Values:
    """Return log p / (1 - p) of the entry of each row at `columns` [n], p the softmax of `scores` [n,L]: [n].

    It is the score less log sum exp of the others, which stays exact where 1 - p would round to 0. inf without others;
    NaN where the entry itself has no score.
    """
    known = _known(scores, mask)
    rows = np.arange(len(known))
    mine = known[rows, columns]
    known[rows, columns] = -np.inf
    there = np.isfinite(mine)
    return np.subtract(mine, log_sum(known), out=np.full(len(mine), np.nan), where=there)


def _known(scores: Scores, mask: Mask | None) -> Values:
    known = np.array(scores, dtype=np.float64)
    return known if mask is None else np.where(mask, known, -np.inf)
