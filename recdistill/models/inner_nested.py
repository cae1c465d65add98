"""Scores of items that are a row's own, by the first numbers of the vectors alone: all widths in one pass over memory.

The inner product of a wider prefix is that of the narrower one and of the numbers between them, and so is the square of
its length. So what several widths cost beside one is their scores, not the vectors, which are what takes the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recdistill.models.inner import SHORTEST, Array, shared
from recdistill.topk_kernels import _compiled as compiled


def own_nested(queries: Tensor, items: Tensor, widths: Sequence[int], *, cosine: bool) -> list[Tensor]:
    """Return the inner products of the first w numbers of `queries` [B,D] and of their own `items` [B,K,D]: [B,K] each.

    `widths` rise to D. With `cosine` those of the items' first numbers at length 1; queries are taken as they are.
    """
    if items.device.type == "cpu":
        ends = torch.tensor(widths)
        return list(_Nested.apply(queries.to(items.dtype).contiguous(), items.contiguous(), ends, cosine).unbind(0))
    return in_parts(queries, items, widths, cosine=cosine)


def in_parts(queries: Tensor, items: Tensor, widths: Sequence[int], *, cosine: bool) -> list[Tensor]:
    """Return what `own_nested` does, of sums that torch takes, on whatever device."""
    spans = list(pairwise((0, *widths)))
    found = list(accumulate((items[..., a:b] * queries[:, None, a:b]).sum(2) for a, b in spans))
    if not cosine:
        return found
    squares = accumulate(items[..., a:b].square().sum(2) for a, b in spans)
    return [one * square.clamp(min=SHORTEST**2).rsqrt() for one, square in zip(found, squares, strict=True)]


class _Nested(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, items: Tensor, ends: Tensor, cosine: bool) -> Tensor:  # pyrefly: ignore
        scores = items.new_empty(len(ends), *items.shape[:2])
        over = torch.ones_like(scores)
        given = (queries.detach(), items.detach(), scores.transpose(0, 1), over.transpose(0, 1))
        arrays = [tensor.numpy() for tensor in given]
        shared(lambda part: score(*(array[part] for array in arrays), ends.numpy(), cosine), items)
        ctx.save_for_backward(queries, items, scores, over, ends)
        ctx.cosine = cosine
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:  # pyrefly: ignore
        queries, items, scores, over, ends = ctx.saved_tensors
        to_queries, to_items = torch.empty_like(queries), torch.empty_like(items)
        rowed = [one.detach().transpose(0, 1) for one in (scores, over, gradients[0].contiguous())]
        arrays = [tensor.numpy() for tensor in (queries.detach(), items.detach(), *rowed, to_queries, to_items)]
        shared(lambda part: unscore(*(array[part] for array in arrays), ends.numpy(), ctx.cosine), items)
        return to_queries, to_items, None, None


@compiled(fastmath={"reassoc", "contract", "nsz"})
def score(queries: Array, items: Array, scores: Array, over: Array, ends: Array, cosine: bool) -> None:
    """Write the `scores` [B,W,K] of `items` [B,K,D] up to each of `ends` [W], and what items are multiplied by."""
    for b in range(items.shape[0]):
        query = queries[b]
        for k in range(items.shape[1]):
            item = items[b, k]
            inner, square, start = query[0] - query[0], item[0] - item[0], 0
            for w in range(len(ends)):
                for d in range(start, ends[w]):
                    inner += query[d] * item[d]
                    square += item[d] * item[d]
                start = ends[w]
                if cosine:
                    over[b, w, k] = 1 / max(np.sqrt(square), SHORTEST)
                scores[b, w, k] = inner * over[b, w, k]


@compiled(fastmath={"reassoc", "contract", "nsz"})
def unscore(
    queries: Array,
    items: Array,
    scores: Array,
    over: Array,
    gradient: Array,
    to_queries: Array,
    to_items: Array,
    ends: Array,
    cosine: bool,
) -> None:
    """Write the gradients of `queries` [B,D] and `items` [B,K,D], given that of their scores, [B,W,K].

    A number takes part in the widths that reach it, so what they say adds up from the widest down.
    """
    for b in range(items.shape[0]):
        query, total = queries[b], to_queries[b]
        total[:] = 0
        for k in range(items.shape[1]):
            item, out = items[b, k], to_items[b, k]
            first, second = query[0] - query[0], query[0] - query[0]
            for w in range(len(ends) - 1, -1, -1):
                each = gradient[b, w, k] * over[b, w, k]
                first += each
                if cosine:
                    second += each * scores[b, w, k] * over[b, w, k]
                for d in range(ends[w - 1] if w else 0, ends[w]):
                    out[d] = first * query[d] - second * item[d]
                    total[d] += first * item[d]
