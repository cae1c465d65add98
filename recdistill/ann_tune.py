"""Runtime parameters of a FAISS index by counted work: what each setting finds, and how many bytes it reads for it.

The grid, what of it need not be tried and the Pareto set are FAISS's own (`ParameterSpace`, `OperatingPoints`). Only
the cost is not: a clock gives another answer on every run, and a choice that moves is no artifact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recdistill.serve_search import search_index
from recdistill.types import Float, Int

TIE = 1e-3  # ann-benchmarks: an item this close to the k-th true score counts as found


class Tuned(NamedTuple):
    """One setting of an index."""

    params: str  # such as `nprobe=8`; empty where there is nothing to set
    recall: dict[int, float]  # by depth
    work: float  # bytes of vectors and codes that one query compares itself with


def operating_points(
    index: Any, items: Float, queries: NDArray[np.float32], enough: Mapping[int, Float]
) -> list[Tuned]:
    """Return the settings of `index` that no other beats in both recall and work, by rising work.

    Recall is the lowest over the depths of `enough`, which `least` gives for each of the same queries [Q,D] and `items`
    [I,D]. Leaves `index` set to the last setting tried.
    """
    import faiss

    library: Any = faiss  # its stubs leave most of this out
    space = library.ParameterSpace()
    space.verbose = 0
    space.initialize(index)
    points = library.OperatingPoints()
    measured: dict[str, Tuned] = {}
    # From both ends inwards, so that what is between two settings of one recall is soon known not to be needed.
    for cno in sorted(range(space.n_combinations()), key=lambda n: min(n, space.n_combinations() - 1 - n)):
        if _beaten(space, points, cno):
            continue
        params = space.combination_name(cno)
        space.set_index_parameters(index, params)
        cost = work(index, queries, max(enough), params)
        measured[params] = Tuned(params, {n: reached(index, items, queries, one, n) for n, one in enough.items()}, cost)
        points.add(min(measured[params].recall.values()), cost, params, cno)
    best = [points.optimal_pts.at(i) for i in range(points.optimal_pts.size())]
    found = [measured[point.key] for point in best if point.cno >= 0]  # FAISS begins the set with a point of nothing
    if not found:  # an index that finds nothing at all still has a setting
        found = [next(iter(measured.values()))]
    return sorted(found, key=lambda tuned: tuned.work)


def _beaten(space: Any, points: Any, cno: int) -> bool:
    """Return whether combination `cno` cannot be better than what was tried, by what FAISS knows of its neighbours."""
    import faiss

    library: Any = faiss
    most, least = np.ones(1), np.zeros(1)  # recall that it may reach, work that it takes at least
    for i in range(points.all_pts.size()):
        space.update_bounds(cno, points.all_pts.at(i), library.swig_ptr(most), library.swig_ptr(least))
    return bool(points.t_for_perf(float(most[0])) <= least[0])


def work(index: Any, queries: NDArray[np.float32], k: int, params: str) -> float:
    """Return how many bytes of codes one query is compared with: the cost that, unlike time, is the same on every run.

    What is refined is counted by its own codes, which are longer; what every setting reads alike is left out.
    """
    import faiss

    counters: Any = faiss.cvar
    inverted, graph = counters.indexIVF_stats, counters.hnsw_stats
    inverted.reset()
    graph.reset()
    search_index(index, queries, min(k, index.ntotal))
    factors = dict(p.split("=") for p in params.split(",") if p)
    refined = k * float(factors.get("k_factor_rf", 0))
    scanned, again = _code_bytes(index)
    return (inverted.ndis + graph.ndis) / len(queries) * scanned + refined * again


def code_bytes(index: Any) -> int:
    """Return the bytes of an item's code where `index` looks first."""
    return _code_bytes(index)[0]


def _code_bytes(index: Any) -> tuple[int, int]:
    """Return the bytes of an item where `index` looks first, and where it refines."""
    import faiss

    library: Any = faiss
    found = library.downcast_index(index)
    if isinstance(found, library.IndexPreTransform):
        return _code_bytes(found.index)
    if isinstance(found, library.IndexRefine):
        return _code_bytes(found.base_index)[0], library.downcast_index(found.refine_index).sa_code_size()
    if isinstance(found, library.IndexHNSW):
        return _code_bytes(found.storage)
    return (int(found.code_size) if hasattr(found, "code_size") else 4 * int(found.d)), 0


def recall(index: Any, flat: Any, items: Float, queries: Float, k: int) -> float:
    """Return the share of the `k` returned items that score at least the k-th best score less the tie tolerance."""
    return reached(index, items, queries, least(flat, queries, k), k)


def least(flat: Any, queries: Float, k: int) -> Float:
    """Return what an item must score to be one of a query's best `k`, ties with the k-th included: [Q,1]."""
    kth = flat.search(queries, min(k, flat.ntotal))[0][:, -1:]
    # Scores far below one would all tie within a fixed tolerance, so there it shrinks with the score.
    return kth - np.maximum(TIE * np.minimum(1.0, np.abs(kth)), 1e-6)


def reached(index: Any, items: Float, queries: Float, enough: Float, k: int) -> float:
    """Return the share of the first `k` items by `index`, of `items` if there are fewer, that score `enough` [Q,1]."""
    _, found = search_padded(index, queries, min(k, len(items)))
    scores = np.einsum("qkd,qd->qk", items[np.maximum(found, 0)], queries)
    return float(((scores >= enough) & (found >= 0)).mean())


def search_padded(index: Any, queries: NDArray[np.float32], k: int) -> tuple[Float, Int]:
    """Return scores and item rows [Q,k], -inf and -1 beyond what the index holds or finds."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    items = np.full((len(queries), k), -1, np.int64)
    n = min(k, index.ntotal)
    if n:
        scores[:, :n], items[:, :n] = search_index(index, queries, n)
        scores[items < 0] = -np.inf
    return scores, items
