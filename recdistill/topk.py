"""The best items of each user, exactly: scores tile by tile, candidates by a proven bound, true scores of those.

A tile of scores comes from a fast matrix product, which is a little wrong. By how much at most is known, so everything
that may belong to the best k is kept, and true scores (summed in float64, rounded to float32) decide, ties by item row.
So a list depends neither on the precision and size of the tiles nor on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill.errors import DataError
from recdistill.threads import spread
from recdistill.types import Float, Int, Interactions

Precision = Literal["fp32", "bf16"]
Array = NDArray[Any]

USERS_PER_BLOCK = 512
ITEMS_PER_TILE = 8192  # a tile of scores stays in the last-level cache: 8 MB of bf16, 16 MB of fp32
CANDIDATE_BYTES = 32_000_000  # of a block's candidates: a large k makes blocks of fewer users
SAMPLE = 256  # items that tell what rounding its user did to a residual
EPS32, EPS16 = 2.0**-24, 2.0**-8  # what rounding to float32 or bfloat16 changes at most, relatively


class TopK(NamedTuple):
    """The best `k` items of each query, best first; item -1 and score -inf where there are fewer."""

    scores: Tensor  # [n,k] f32
    items: Tensor  # [n,k] int64
    residual: Tensor  # [n] logsumexp of the unmasked scores outside the list


def exact_topk(
    users: Float,
    items: Float,
    k: int,
    *,
    seen: Interactions | None = None,
    rows: Int | None = None,
    precision: Precision = "fp32",
) -> TopK:
    """Return the `k` items of largest inner product with each user; equal scores come in order of item row.

    users [U,D], items [I,D], finite. `rows` [n] picks users (all if None). `seen` holds, by user row, items never
    returned. `precision` is that of the tiles: lists and scores are the same in both, bit for bit. The residual is
    within 1e-5 (relative above 1) of its float64 value with fp32; with bf16 it is off by no more than two scores of
    a tile can be (see `_error`), in practice by 1e-4 |u| |v|: 1e-3 for scores up to 10. Memory, beside what is given
    and returned: 60 MB a thread, and with bf16 half of `items`. DataError if a vector, or a score, is not finite.
    """
    assert k > 0
    rows = np.arange(len(users), dtype=np.int64) if rows is None else rows
    found = (
        np.full((len(rows), k), -np.inf, np.float32),
        np.full((len(rows), k), -1, np.int64),
        np.full(len(rows), -np.inf, np.float32),
    )
    work = _work(users, items, rows, k, seen, precision)
    places = np.arange(len(rows))
    while len(places):
        places = _fill(found, places, work)
        if len(places) and work.room > len(items) and work.rounded is None:
            what = f"{len(places)} users have scores beyond float32, or products less exact than float32"
            fix = "scale the vectors; leave torch.set_float32_matmul_precision at 'highest'"
            raise DataError(what, where=f"user row {rows[places[0]]}", fix=fix)
        # Crowds of nearly equal scores are rare: they are tried again with finer scores and more room.
        work = work._replace(rounded=None, lost=0.0, room=min(8 * work.room, len(items) + 1))
    scores, columns, residual = map(torch.from_numpy, found)
    return TopK(scores, columns, residual)


def top_items(users: Float, items: Float, k: int, *, seen: Interactions | None = None, rows: Int | None = None) -> Int:
    """Return the items of `exact_topk` alone, [n,k]: the same in any precision, so in what is quickest here."""
    quick = "bf16" if getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() else "fp32"
    return exact_topk(users, items, k, seen=seen, rows=rows, precision=quick).items.numpy()


class Rows(NamedTuple):
    """The state of a block of n rows between tiles; no row depends on another."""

    keys: Array  # [n,cap] uint64, the first `count` of a row are its candidates
    count: Array  # [n] int64; -1 where there are more candidates than `cap` holds, or the error bound was broken
    limit: Array  # [n] f32: a score below it is not of the best k
    error: Array  # [n] f64: how far a score of the tile may be from the true one, beside `relative` of its size
    peak: Array  # [n] f32: largest score summed so far
    total: Array  # [n] f64: sum of exp(score - peak) over what is no candidate
    masked: Array  # [m] int64: columns never to be chosen, row by row, ascending
    at: Array  # [n] int64: the first of `masked` that no tile has come to
    end: Array  # [n] int64


class _Work(NamedTuple):
    """What every block of users needs."""

    users: Float  # [U,D]
    items: Float  # [I,D]
    rows: Int  # [n] the users asked for
    seen: Interactions | None
    rounded: Tensor | None  # [I,D] bf16 items, if tiles are of that
    norm: float  # of the longest item
    lost: float  # norm of the most that rounding took from an item
    room: int  # candidates a user may have at a time


def _work(users: Float, items: Float, rows: Int, k: int, seen: Interactions | None, precision: Precision) -> _Work:
    items = np.ascontiguousarray(items, dtype=np.float32)
    rounded = torch.empty(items.shape, dtype=torch.bfloat16) if precision == "bf16" else None
    norm = lost = 0.0
    for start, stop in blocks(len(items), USERS_PER_BLOCK):
        part = _tensor(items[start:stop])
        norms = _norms(part, "item", range(start, stop))
        norm = max(norm, float(norms.max()))
        if rounded is not None:
            away = part - rounded[start:stop].copy_(part).float()
            lost = max(lost, float(_norms(away, "item", range(start, stop)).max()))
    room = min(max(4 * k, 1024), len(items) + 1)  # there are never more candidates than items
    return _Work(users, items, rows, seen, rounded, norm, lost, room)


def _norms(vectors: Tensor, what: str, rows: Sequence[int] | Int) -> Tensor:
    """Return no less than the norm of each vector, [n] f64; DataError if one is not finite."""
    dim = vectors.shape[1]
    norms = torch.linalg.vector_norm(vectors, dim=1).double() * (1 + (dim + 2) * EPS32) + dim**0.5 * 2.0**-63
    bad = (~torch.isfinite(norms)).nonzero()
    if len(bad):
        raise DataError(
            f"vectors of {what}s that are not finite, or too long for float32",
            where=f"{what} row {rows[int(bad[0])]}",
            fix="train again with a smaller learning rate, or mend the vectors",
        )
    return norms


def _fill(found: tuple[Float, Int, Float], places: Int, work: _Work) -> Int:
    """Write the lists of users `work.rows[places]` to those places; return the places that need more room."""
    threads = min(torch.get_num_threads(), len(places))
    size = max(1, min(USERS_PER_BLOCK, CANDIDATE_BYTES // (8 * work.room), -(-len(places) // threads)))
    parts = [places[start:stop] for start, stop in blocks(len(places), size)]

    def share(first: int) -> list[Int]:
        buffer = np.empty(size * min(ITEMS_PER_TILE, max(1, len(work.items))), np.float32)
        return [_block(found, part, work, buffer) for part in parts[first::threads]]

    done = spread(share, range(threads))
    return np.sort(np.concatenate([left for part in done for left in part]))


def _block(found: tuple[Float, Int, Float], places: Int, work: _Work, buffer: Float) -> Int:
    """Do one block of `_fill`: `buffer` holds its tile."""
    from recdistill import topk_kernels  # numba takes its time to import

    n, k = len(places), found[0].shape[1]
    users = np.ascontiguousarray(work.users[work.rows[places]], dtype=np.float32)
    exact = torch.from_numpy(users)
    shown = exact if work.rounded is None else exact.bfloat16()
    state = Rows(
        keys=np.empty((n, work.room), np.uint64),
        count=np.zeros(n, np.int64),
        limit=np.full(n, topk_kernels.LOWEST),
        error=_error(exact, shown, work, work.rows[places]).numpy(),
        peak=np.full(n, -np.inf, np.float32),
        total=np.zeros(n),
        **_mask(work.seen, work.rows[places], len(work.items)),
    )
    relative = 0.0 if work.rounded is None else EPS16
    for start, stop in blocks(len(work.items), ITEMS_PER_TILE):
        right = _tensor(work.items[start:stop]) if work.rounded is None else work.rounded[start:stop]
        tile = torch.from_numpy(buffer).view(right.dtype)[: n * (stop - start)].view(n, stop - start)
        torch.mm(shown, right.T, out=tile)
        scores = tile.numpy() if work.rounded is None else tile.view(torch.uint16).numpy()
        topk_kernels.scan(scores, start, state, k, relative)
    lists = np.full((n, k), -np.inf, np.float32), np.full((n, k), -1), np.full(n, -np.inf, np.float32)
    topk_kernels.finish(users, _frozen(work.items), state, k, relative, lists)
    if work.rounded is not None:
        lists[2][:] += _drift(exact, shown, work.items, state)
    for whole, part in zip(found, lists, strict=True):
        whole[places] = part
    return places[state.count < 0]


def _error(exact: Tensor, shown: Tensor, work: _Work, rows: Int) -> Tensor:
    """Return how far a score of a tile can be from the true one, [n], before the tile's own rounding.

    With u' = u - du and v' = v - dv the rounded vectors, |u.v - u'.v'| = |du.v + u'.dv| <= |du| |v| + |u'| |dv|. Adding
    D products up in float32, in any order, is off by no more than D 2**-24 |u'| |v'|: twice that, and some for
    rounding the true score and for what underflows.
    """
    norms, away = _norms(shown.float(), "user", rows), _norms(exact - shown.float(), "user", rows)
    summed = 2 * (exact.shape[1] + 4) * EPS32 * norms * (work.norm + work.lost)
    return away * work.norm + norms * work.lost + summed + exact.shape[1] * 2.0**-125


def _drift(exact: Tensor, shown: Tensor, items: Float, state: Rows) -> Float:
    """Return what rounding its user took from a residual, [n], as every k-th item tells it.

    Errors of items cancel in a sum over many; a user's does not: to first order it is (u - u') times the mean item of
    the tail, each by its softmax. A sample of the tail knows that mean well enough to halve the error, or better.
    """
    sample = _tensor(items[:: max(1, len(items) // SAMPLE)])
    scores = exact @ sample.T
    weights = torch.softmax(scores.masked_fill(scores >= torch.from_numpy(state.limit)[:, None], -torch.inf), dim=1)
    return (weights.nan_to_num() * ((exact - shown.float()) @ sample.T)).sum(1).numpy()


def _mask(seen: Interactions | None, users: Int, num_items: int) -> dict[str, Int]:
    """Return the items each of `users` has seen, ascending, as the fields of Rows."""
    if seen is None:
        return {"masked": users[:0], "at": np.zeros(len(users), np.int64), "end": np.zeros(len(users), np.int64)}
    positions, items = (part.numpy() for part in pairs(seen, users))
    end = np.cumsum(np.bincount(positions, minlength=len(users)))
    masked = np.sort(positions * num_items + items) - positions * num_items
    return {"masked": masked, "at": np.concatenate([[0], end[:-1]]), "end": end}


def _frozen(array: Float) -> NDArray[np.float32]:
    """Return a read-only view, so that kernels are compiled once for arrays in memory and memory maps."""
    view = array.view()
    view.flags.writeable = False
    return view


def select(scores: Tensor, k: int) -> TopK:
    """Return the `k` best columns of `scores` [n,I], which is overwritten; -inf is never chosen."""
    width = min(k, scores.shape[1])
    best, columns = torch.topk(scores, width, dim=1)
    if width < scores.shape[1]:
        # torch.topk breaks a tie at the last place as it likes; the few rows that have one are settled by column.
        last = best[:, -1:]
        tied = ((scores == last).sum(1) > (best == last).sum(1)) & torch.isfinite(last[:, 0])
        for row in tied.nonzero()[:, 0].tolist():
            columns[row] = torch.sort(scores[row], descending=True, stable=True).indices[:width]
    columns, order = columns.sort(dim=1)
    best = scores.gather(1, columns)
    best, order = best.sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, order)
    residual = torch.logsumexp(scores.scatter_(1, columns, -torch.inf), dim=1)
    columns = columns.masked_fill(torch.isneginf(best), -1)
    if width < k:
        pad = (0, k - width)
        best = torch.nn.functional.pad(best, pad, value=-torch.inf)
        columns = torch.nn.functional.pad(columns, pad, value=-1)
    return TopK(best, columns, residual)


def pairs(seen: Interactions, users: Int) -> tuple[Tensor, Tensor]:
    """Return (position in `users`, item) of every interaction of `users`, for masking a score block."""
    starts, counts = seen.indptr[users], seen.indptr[users + 1] - seen.indptr[users]
    positions = np.repeat(np.arange(len(users)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    items = seen.items[np.repeat(starts, counts) + within]
    return torch.from_numpy(positions), torch.from_numpy(np.ascontiguousarray(items))


def _tensor(array: Float) -> Tensor:
    """Return `array` as a tensor, copied only if it is read-only (a memory map), of which torch would warn."""
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else np.array(array))


def blocks(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) that cover range(total) in steps of `size`."""
    for start in range(0, total, size):
        yield start, min(start + size, total)
