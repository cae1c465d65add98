"""Searches of a FAISS index where it serves: as deep as asked, and without the items that each query has seen.

A part of the file that MLflow runs (recdistill.bundle.model_code), so it imports nothing of recdistill, and what is
measured offline is what serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 20_000  # comparisons that take less time than sorting
MORE = 256  # items of which a scan keeps so many more in less time than it tests each against a selector


def search_index(index: Any, queries: NDArray[np.float32], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return scores and item rows, [Q,k], with -1 where the index finds no more.

    A graph stops after efSearch results, so a deeper answer is searched as wide as it is deep.
    """
    graph = getattr(index, "hnsw", None)
    if graph is None or graph.efSearch >= k:
        return index.search(queries, k)
    import faiss

    # pyrefly: ignore[missing-attribute] the library has it, its stubs leave it out
    return index.search(queries, k, params=faiss.SearchParametersHNSW(efSearch=k))


def search_without(
    index: Any, queries: NDArray[np.float32], k: int, seen: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores and item rows, [Q,k], of the best that query q [Q,D] has not `seen[q]`; -inf and -1 where fewer.

    The kinds of index that take a selector leave the seen out while they search; of the others as many more are asked
    for as are seen. What a query is answered is a matter of its own, not of who else asks.
    """
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    depth = min(k, index.ntotal)
    each = [np.ascontiguousarray(items, np.int64) for items in seen]
    for at in _together(index, each):
        gone, first = each[at[0]], at[0]
        asked = queries[first : first + 1] if len(at) == 1 else queries[at]
        held: list[Any] = []
        params = _leaving_out(index, gone, depth, held) if len(at) == 1 and not _deeper(index, gone) else None
        if params is not None:
            found, listed = index.search(asked, depth, params=params)
            scores[first, :depth], rows[first, :depth] = found[0], listed[0]
            continue
        found, listed = search_index(index, asked, min(depth + len(gone), index.ntotal))
        for q, score, row in zip(at, found, listed, strict=True):
            there = np.flatnonzero((row >= 0) & ~_among(row, each[q]))[:depth]
            scores[q, : len(there)], rows[q, : len(there)] = score[there], row[there]
    scores[rows < 0] = -np.inf
    return scores, rows


def _deeper(index: Any, gone: NDArray[np.int64]) -> bool:
    """Return whether to ask for as many more as are `gone`: of a scan a selector tests every item, which takes longer.

    The answer is the same either way.
    """
    import faiss

    return not len(gone) or (len(gone) <= MORE and isinstance(index, (faiss.IndexFlat, faiss.IndexScalarQuantizer)))


def _among(row: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which entries of `row` [n] are among `items` [m]; of few, by comparing each with each."""
    if len(row) * len(items) > FEW:
        return np.isin(row, items)
    return (row[:, None] == items).any(axis=1)


def _together(index: Any, seen: Sequence[NDArray[np.int64]]) -> list[list[int]]:
    """Return which queries are searched in one call: of a scan those that leave out as many, else each alone.

    A scan that is asked for as many more gives what a selector would, and many queries share its pass over the items.
    """
    if len(seen) == 1:
        return [[0]]
    import faiss

    library: Any = faiss
    found = library.downcast_index(index)
    scans = library.IndexFlat, library.IndexScalarQuantizer, library.IndexFastScan
    if isinstance(found, library.IndexRefine):  # only where nothing of it takes a selector is the answer the same
        found, scans = library.downcast_index(found.base_index), (library.IndexFastScan,)
    if not isinstance(found, scans):
        return [[q] for q in range(len(seen))]
    groups: dict[int, list[int]] = {}
    for q, items in enumerate(seen):
        groups.setdefault(len(items), []).append(q)
    return list(groups.values())


def _leaving_out(index: Any, gone: NDArray[np.int64], k: int, held: list[Any]) -> Any:
    """Return parameters with which a search for `k` finds none of `gone`, None of an index that takes no selector.

    Parameters stand in the place of all that the index was set to, so what it was set to is written into them: an
    inverted file would otherwise probe one list. `held` keeps alive what FAISS only points at while it searches.
    """
    import faiss

    library: Any = faiss  # its stubs leave most of this out
    index = library.downcast_index(index)
    if isinstance(index, library.IndexPreTransform):
        return _leaving_out(index.index, gone, k, held)
    if isinstance(index, library.IndexRefine):
        deep = int(np.ceil(k * index.k_factor))
        base = _leaving_out(index.base_index, gone, deep, held)
        if base is None:
            return None
        return library.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=base)
    if not isinstance(
        index,
        (library.IndexFlat, library.IndexScalarQuantizer, library.IndexRaBitQ, library.IndexIVF, library.IndexHNSW),
    ):
        return None  # product quantisers and fast scans refuse, whatever is new may ignore what it is given
    among = library.IDSelectorBatch(gone)  # a set: of an array every distance would cost a walk through it
    selector = library.IDSelectorNot(among)
    held += [among, selector]
    if isinstance(index, library.IndexHNSW):
        wide = max(index.hnsw.efSearch, min(k + len(gone), index.ntotal))  # for it may meet all the seen first
        params = library.SearchParametersHNSW(sel=selector, efSearch=wide)
    elif isinstance(index, library.IndexIVFPQ):
        params = library.IVFPQSearchParameters(sel=selector, nprobe=index.nprobe, max_codes=index.max_codes)
        params.polysemous_ht, params.scan_table_threshold = index.polysemous_ht, index.scan_table_threshold
    elif isinstance(index, library.IndexIVF):
        params = library.SearchParametersIVF(sel=selector, nprobe=index.nprobe, max_codes=index.max_codes)
    else:
        params = library.SearchParameters(sel=selector)
    held.append(params)
    return params
