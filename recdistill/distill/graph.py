"""A graph of what is taken together, and vectors smoothed over it: only what neighbours share is then compared (FreqD).

The filter is H = alpha A^ + (1 - alpha) I, with A^ the normalised adjacency, kept as a fixed number of neighbours a
row: a step reads its own rows and their neighbours', however large the catalogue is.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from recdistill.distill.adapters import uniform
from recdistill.types import Float, Int, Interactions


def co_taken(
    train: Interactions, *, num_items: int, neighbours: int, side: Literal["users", "items"]
) -> tuple[Int, Float]:
    """Return each row's neighbours [n,2k], -1 where fewer, and their weights [n,2k], 0 there; k is `neighbours`.

    A row is joined with the k others it is taken with most often (users: that took the most in common), and with those
    that it is among the first k of; equal counts by lower row. Weights are 1 / sqrt(d_i d_j) of the degrees in that
    graph. A row with more than 2k neighbours keeps those with the highest counts, scaled so that its sum stays.
    Time grows with the sum over the other side of squared degrees, memory with the log. FreqD (KDD 2025).
    """
    row, other, count = _edges(*_nearest(train, num_items, neighbours, side))
    n = train.num_users if side == "users" else num_items
    degree = np.bincount(row, minlength=n)
    weight = 1 / np.sqrt(degree[row].astype(np.float64) * degree[other])
    order = np.lexsort((other, -count, row))
    row, other, weight = row[order], other[order], weight[order]
    place = np.arange(len(row)) - (np.cumsum(degree) - degree)[row]
    kept = place < 2 * neighbours
    sums = [np.bincount(row[part], weights=weight[part], minlength=n) for part in (slice(None), kept)]
    row, other, place = row[kept], other[kept], place[kept]
    found, weights = np.full((n, 2 * neighbours), -1), np.zeros((n, 2 * neighbours), dtype=np.float32)
    found[row, place], weights[row, place] = other, weight[kept] * sums[0][row] / sums[1][row]
    return found, weights


def smooth_all(vectors: Float, neighbours: Int, weights: Float, *, alpha: float) -> Float:
    """Return H v for a whole table: vectors [n,D], neighbours and weights [n,k] of `co_taken` -> [n,D]."""
    found = (1 - alpha) * vectors
    for column in range(neighbours.shape[1]):  # a column at a time, so that no [n,k,D] is made
        found += alpha * weights[:, column, None] * vectors[neighbours[:, column].clip(min=0)]
    return found


def smooth(own: Tensor, around: Tensor, weights: Tensor, *, alpha: float, keep: float) -> Tensor:
    """Return H v for some rows: own [E,D], their neighbours' vectors [E,k,D], weights [E,k], 0 for none -> [E,D].

    A share `keep` of the edges counts, scaled to the same sum on average; which ones is a hash of the row's own vector,
    so others at each step that moves it. What stands for no neighbour may be any finite vector.
    """
    if keep < 1:
        weights = weights * (uniform(own, weights.shape[1]) < keep) / keep
    return (1 - alpha) * own + alpha * (weights.unsqueeze(1) @ around).squeeze(1)


def _nearest(train: Interactions, num_items: int, neighbours: int, side: Literal["users", "items"]) -> tuple[Int, Int]:
    """Return the others that share the most with each row, -1 where fewer, and how much they share: [n,k] each."""
    from recdistill.distill import graph_kernels  # numba takes its time to import

    order = np.argsort(train.items, kind="stable")
    by_item = np.concatenate([[0], np.cumsum(np.bincount(train.items, minlength=num_items))])
    sides = [(np.asarray(train.indptr), np.asarray(train.items)), (by_item, train.users()[order])]
    (starts, columns), (across_starts, across) = sides if side == "users" else sides[::-1]
    others = np.full((len(starts) - 1, neighbours), -1)
    counts = np.zeros_like(others)
    graph_kernels.nearest(starts, columns, across_starts, across, others, counts)
    return others, counts


def _edges(others: Int, counts: Int) -> tuple[Int, Int, Int]:
    """Return the edges in both directions, each once: row, other and count [m], by row, then other."""
    row, place = (others >= 0).nonzero()
    other, count = others[row, place], counts[row, place]
    keys = np.concatenate([row * len(others) + other, other * len(others) + row])
    keys, first = np.unique(keys, return_index=True)  # where both chose each other, the count is the same
    return *np.divmod(keys, len(others)), np.concatenate([count, count])[first]
