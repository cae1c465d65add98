"""Scores of items that are a row's own: inner products, of unit vectors or as they are, in one pass over memory.

Made of its parts, a cosine and its gradient go a dozen times over vectors that were looked up to be used once. On a
processor one compiled loop does both directions; elsewhere the parts are good enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill.threads import spread
from recdistill.topk_kernels import _compiled as compiled

Array = NDArray[Any]
SHORTEST = 1e-9  # a vector that is shorter is divided by this instead
LEAST_SHARED = 2**20  # numbers of a call below which threads would take longer to start than to work


def own_scores(queries: Tensor, items: Tensor, *, cosine: bool) -> Tensor:
    """Return the inner product of each of `queries` [B,D] with its own `items` [B,K,D]: [B,K].

    With `cosine` that of the items at length 1; queries are taken as they are.
    """
    if items.device.type == "cpu":
        return _Own.apply(queries.to(items.dtype).contiguous(), items.contiguous(), cosine)
    if cosine:
        items = items * items.square().sum(-1, keepdim=True).clamp(min=SHORTEST**2).rsqrt()
    return (items * queries.unsqueeze(1)).sum(2)


class _Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, items: Tensor, cosine: bool) -> Tensor:  # pyrefly: ignore
        scores, over = items.new_empty(items.shape[:2]), items.new_ones(items.shape[:2])
        arrays = [tensor.detach().numpy() for tensor in (queries, items, scores, over)]
        shared(lambda part: score(*(array[part] for array in arrays), cosine), items)
        ctx.save_for_backward(queries, items, scores, over)
        ctx.cosine = cosine
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:  # pyrefly: ignore
        queries, items, scores, over = ctx.saved_tensors
        to_queries, to_items = torch.zeros_like(queries), torch.empty_like(items)
        given = (
            queries.detach(),
            items.detach(),
            scores.detach(),
            over,
            gradients[0].contiguous(),
            to_queries,
            to_items,
        )
        arrays = [tensor.numpy() for tensor in given]
        shared(lambda part: unscore(*(array[part] for array in arrays), ctx.cosine), items)
        return to_queries, to_items, None


def shared(work: Callable[[slice], None], items: Tensor) -> None:
    """Call `work` with slices that cover the rows of `items`, as many at once as torch has threads."""
    size = len(items) if items.numel() < LEAST_SHARED else -(-len(items) // torch.get_num_threads())
    spread(work, [slice(start, start + size) for start in range(0, len(items), max(size, 1))])


@compiled(fastmath={"reassoc", "contract", "nsz"})
def score(queries: Array, items: Array, scores: Array, over: Array, cosine: bool) -> None:
    """Write the `scores` [B,K] of `items` [B,K,D], and with `cosine` what an item is multiplied by, to `over` [B,K]."""
    for b in range(items.shape[0]):
        query = queries[b]
        for k in range(items.shape[1]):
            item = items[b, k]
            inner, square = query[0] * item[0], item[0] * item[0]
            for d in range(1, len(item)):
                inner += query[d] * item[d]
                square += item[d] * item[d]
            if cosine:
                over[b, k] = 1 / max(np.sqrt(square), SHORTEST)
            scores[b, k] = inner * over[b, k]


@compiled(fastmath={"reassoc", "contract", "nsz"})
def unscore(
    queries: Array,
    items: Array,
    scores: Array,
    over: Array,
    gradient: Array,
    to_queries: Array,
    to_items: Array,
    cosine: bool,
) -> None:
    """Write the gradient of `items` [B,K,D], given that of their scores [B,K], and add that of `queries` [B,D]."""
    for b in range(items.shape[0]):
        query, total = queries[b], to_queries[b]
        for k in range(items.shape[1]):
            item, out = items[b, k], to_items[b, k]
            first = gradient[b, k] * over[b, k]
            second = first * scores[b, k] * over[b, k] if cosine else first * 0
            for d in range(len(item)):
                out[d] = first * query[d] - second * item[d]
                total[d] += first * item[d]
