"""Ranking quality as functions of hits, one value a user, and intervals by paired bootstrap over users."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recdistill.types import Int, Interactions

Values = NDArray[np.float64]


def hits(lists: Int, truth: Interactions, users: Int) -> NDArray[np.bool_]:
    """Return which entries of `lists` [n,K] (items, -1 for none) are in the truth of `users` [n]."""
    width = np.int64(max(lists.max(initial=0), truth.items.max(initial=0)) + 1)
    known = truth.users() * width + truth.items  # sorted by user; items within a user need not be
    known.sort()
    wanted = users[:, None] * width + lists
    at = np.searchsorted(known, wanted)
    found = (at < len(known)) & (known[np.minimum(at, len(known) - 1)] == wanted) if len(known) else at < 0
    return found & (lists >= 0)


def relevant(truth: Interactions, users: Int) -> Int:
    """Return how many items each of `users` has in the truth, [n]."""
    return np.diff(truth.indptr)[users]


def recall(hit: NDArray[np.bool_], count: Int, k: int) -> Values:
    """Return the share of a user's relevant items in the first `k`: hits over |G_u|, which may exceed `k`.

    >>> recall(np.array([[True, False, True]]), np.array([4]), 3)
    array([0.5])
    """
    return hit[:, :k].sum(1) / count


def precision(hit: NDArray[np.bool_], count: Int, k: int) -> Values:  # noqa: ARG001
    """Return the share of the first `k` places that are relevant."""
    return hit[:, :k].sum(1) / k


def ndcg(hit: NDArray[np.bool_], count: Int, k: int) -> Values:
    """Return binary DCG over the ideal, which places min(|G_u|, k) relevant items first.

    >>> ndcg(np.array([[True, False], [False, True]]), np.array([1, 1]), 2).round(4)
    array([1.    , 0.6309])
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(count, k)]
    return np.asarray((hit[:, :k] * discount[: hit.shape[1]]).sum(1) / ideal)


def mrr(hit: NDArray[np.bool_], count: Int, k: int) -> Values:  # noqa: ARG001
    """Return 1 / (place of the first hit) within the first `k`, 0 without one.

    >>> mrr(np.array([[False, True, True], [False, False, True]]), np.array([2, 1]), 2)
    array([0.5, 0. ])
    """
    top = hit[:, :k]
    return np.where(top.any(1), 1 / (top.argmax(1) + 1), 0.0)


def hit_rate(hit: NDArray[np.bool_], count: Int, k: int) -> Values:  # noqa: ARG001
    """Return 1 for a user with any hit in the first `k`, else 0."""
    return np.where(hit[:, :k].any(1), 1.0, 0.0)


METRICS = {"recall": recall, "ndcg": ndcg, "mrr": mrr, "hit": hit_rate, "precision": precision}


def coverage(lists: Int, num_items: int, k: int) -> float:
    """Return the share of the catalogue that appears in somebody's first `k`."""
    top = lists[:, :k]
    return len(np.unique(top[top >= 0])) / num_items


def bootstrap(values: Values, times: int, seed: int) -> Values:
    """Return the column means of `values` [n,m] over `times` resamples of its rows (users), [times,m].

    Every column sees the same resamples, so that differences and ratios of columns are paired.
    """
    n = len(values)
    rng = np.random.Generator(np.random.Philox(seed))
    block = max(1, 20_000_000 // max(n, 1))
    parts = []
    for start in range(0, times, block):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(block, times - start))
        parts.append(counts @ values / n)
    return np.concatenate(parts)


def interval(means: Values, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of resampled `means` [times]; NaN where any of them is."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
