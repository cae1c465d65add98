"""Two sets of lists beside each other: where the items of one stand in the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recdistill.metrics import hits
from recdistill.types import Int, Interactions


def places(lists: Int, others: Int) -> Int:
    """Return where in `others` [n,M] each item of `lists` [n,K] stands, [n,K]; M where it does not, and for -1."""
    missing = others.shape[1]
    valid = np.flatnonzero(others.ravel() >= 0)
    if not len(valid):
        return np.full(lists.shape, missing, dtype=np.int64)
    width = np.int64(max(lists.max(initial=0), others.max(initial=0)) + 1)
    first = np.arange(len(lists), dtype=np.int64)[:, None] * width
    keys = (first + others).ravel()[valid]
    order = np.argsort(keys)
    keys, valid = keys[order], valid[order]
    wanted = (first + lists).ravel()
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    there = (lists.ravel() >= 0) & (keys[at] == wanted)
    return np.where(there, valid[at] % missing, missing).reshape(lists.shape)


def found(lists: Int, rows: Int, items: Int) -> NDArray[np.bool_]:
    """Return whether each of `items` [p] is in the list of `lists` [n,K] at its row of `rows` [p]."""
    there = lists >= 0
    shown = Interactions(indptr=np.concatenate([[0], np.cumsum(there.sum(1))]), items=lists[there])
    return hits(items[:, None], shown, rows)[:, 0]


def top(values: NDArray[np.float64], k: int, mask: NDArray[np.bool_] | None = None) -> Int:
    """Return the `k` columns of the largest `values` [n,L], best first, equal ones by column; -1 where there are fewer.

    What is not in `mask` [n,L], or is -inf or NaN, is no column to choose.
    """
    there = ~np.isnan(values) & (values > -np.inf)
    there &= True if mask is None else mask
    order = np.argsort(np.where(there, -values, np.inf), axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(there, order, 1), order, -1)
