"""The best items of each user, exactly: blocked scoring, masking and selection, ties by row number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recdistill.types import Float, Int, Interactions

SCORES_PER_BLOCK = 16_000_000  # floats of one score block: 64 MB


class TopK(NamedTuple):
    """The best `k` items of each query, best first; item -1 and score -inf where there are fewer."""

    scores: Tensor  # [n,k] f32
    items: Tensor  # [n,k] int64
    residual: Tensor  # [n] logsumexp of the unmasked scores outside the list


def exact_topk(
    users: Float, items: Float, k: int, *, seen: Interactions | None = None, rows: Int | None = None
) -> TopK:
    """Return the `k` items of largest inner product with each user; equal scores come in order of item row.

    users [U,D], items [I,D]. `rows` [n] picks users (all if None). `seen` holds, by user row, items never returned.
    """
    rows = np.arange(len(users), dtype=np.int64) if rows is None else rows
    catalogue = _tensor(items)
    found = []
    for start, stop in blocks(len(rows), max(1, SCORES_PER_BLOCK // max(1, len(items)))):
        block = rows[start:stop]
        scores = _tensor(users[block]) @ catalogue.T
        if seen is not None:
            scores[pairs(seen, block)] = -torch.inf
        found.append(select(scores, k))
    if not found:
        return TopK(torch.zeros(0, k), torch.zeros(0, k, dtype=torch.int64), torch.zeros(0))
    return TopK(*(torch.cat(parts) for parts in zip(*found, strict=True)))


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
