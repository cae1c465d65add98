"""Scores of several groups of items that are each row's own, from one table of vectors that were looked up for them.

Cut into groups, the table's gradient would be put together again by a copy as large as it is, and a user's length and
temperature taken in passes of their own. Here both directions are one loop a group, straight from table to table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recdistill.models.inner import SHORTEST, Array, score, shared, unscore
from recdistill.topk_kernels import _compiled as compiled

Span = tuple[int, int, int]
"""A group: its first user, the user after its last, and how many items each of them has."""


def scores_together(
    users: Tensor, items: Tensor, spans: Sequence[Span], *, cosine: bool, temperature: float
) -> list[Tensor]:
    """Return the scores of each group, [rows,K], by the inner products of `users` [B,D], divided by `temperature`.

    The items of all groups lie one after the other in `items` [n,D], row by row. With `cosine` both sides are taken at
    length 1. On a processor alone.
    """
    return list(_Together.apply(users.to(items.dtype).contiguous(), items, tuple(spans), cosine, temperature))


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(  # pyrefly: ignore
        ctx: Any, users: Tensor, items: Tensor, spans: tuple[Span, ...], cosine: bool, temperature: float
    ) -> tuple[Tensor, ...]:
        queries, over = torch.empty_like(users), users.new_empty(len(users))
        aim(users.detach().numpy(), queries.numpy(), over.numpy(), cosine, temperature)
        found, lengths = list[Tensor](), list[Tensor]()
        for span, each in zip(spans, _cut(items.detach(), spans), strict=True):
            scores, length = items.new_empty(each.shape[:2]), items.new_ones(each.shape[:2])
            arrays = [tensor.numpy() for tensor in (queries[span[0] : span[1]], each, scores, length)]
            shared(lambda part, arrays=arrays: score(*(array[part] for array in arrays), cosine), each)
            found.append(scores)
            lengths.append(length)
        ctx.save_for_backward(queries, over, items, *found, *lengths)
        ctx.spans, ctx.cosine, ctx.temperature = spans, cosine, temperature
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # pyrefly: ignore
        queries, over, items, *kept = ctx.saved_tensors
        scores, lengths = kept[: len(ctx.spans)], kept[len(ctx.spans) :]
        to_users, to_items = torch.zeros_like(queries), torch.empty_like(items)
        parts = zip(ctx.spans, _cut(items, ctx.spans), _cut(to_items, ctx.spans), strict=True)
        for (start, stop, _), each, out in parts:
            given = gradients[0].contiguous(), to_users[start:stop], out
            arrays = [t.detach().numpy() for t in (queries[start:stop], each, scores[0], lengths[0], *given)]
            shared(lambda part, arrays=arrays: unscore(*(array[part] for array in arrays), ctx.cosine), each)
            gradients, scores, lengths = gradients[1:], scores[1:], lengths[1:]
        unaim(queries.numpy(), over.numpy(), to_users.numpy(), ctx.cosine, ctx.temperature)
        return to_users, to_items, None, None, None


def _cut(items: Tensor, spans: Sequence[Span]) -> list[Tensor]:
    """Return the items of each group, [rows,K,D] each."""
    sizes = [(stop - start) * count for start, stop, count in spans]
    shapes = [(stop - start, count, items.shape[1]) for start, stop, count in spans]
    return [part.view(shape) for part, shape in zip(items.split(sizes), shapes, strict=True)]


@compiled(fastmath={"reassoc", "contract", "nsz"})
def aim(users: Array, queries: Array, over: Array, cosine: bool, temperature: float) -> None:
    """Write `users` [B,D] over `temperature`, with `cosine` at length 1, to `queries`, and what they are times."""
    for b in range(len(users)):
        user, query = users[b], queries[b]
        square = user[0] * user[0]
        for d in range(1, len(user)):
            square += user[d] * user[d]
        over[b] = 1 / (temperature * (max(np.sqrt(square), SHORTEST) if cosine else 1.0))
        for d in range(len(user)):
            query[d] = user[d] * over[b]


@compiled(fastmath={"reassoc", "contract", "nsz"})
def unaim(queries: Array, over: Array, gradient: Array, cosine: bool, temperature: float) -> None:
    """Turn the gradient of `queries` [B,D] into that of users, in place."""
    for b in range(len(queries)):
        query, out = queries[b], gradient[b]
        along = query[0] * out[0]
        for d in range(1, len(query)):
            along += query[d] * out[d]
        # A query has length 1 / temperature, so what lies along it is found with the square of that.
        along = over.dtype.type(along * (temperature * temperature if cosine else 0.0))
        for d in range(len(query)):
            out[d] = (out[d] - along * query[d]) * over[b]
