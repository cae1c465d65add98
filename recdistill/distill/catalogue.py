"""A list against the whole rest of the catalogue, without more than one table of scores in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def against_rest(left: Tensor, right: Tensor, items: Tensor, rows: Tensor, seen: Tensor) -> Tensor:
    """Return the scores of `items` and, in one more column, the logsumexp of those of all other unseen items: [R,K+1].

    left [R,D] and right [I,D], whose products are the scores; items [R,K], -1 for none, which scores 0. What row
    `rows[j]` has seen, `seen[j]`, is in neither. A row without any other item has -inf there.
    """
    return _AgainstRest.apply(left, right, items, rows, seen)


class _AgainstRest(torch.autograd.Function):
    """One product, exponentials in its place, and in the backward pass two products: nothing else is of size [R,I]."""

    @staticmethod
    def forward(  # pyrefly: ignore
        ctx: Any, left: Tensor, right: Tensor, items: Tensor, rows: Tensor, seen: Tensor
    ) -> Tensor:
        table = left @ right.T
        known = items >= 0
        listed = table.gather(1, items.clamp(min=0)).masked_fill(~known, 0.0)
        table[rows, seen] = -torch.inf
        table[known.nonzero()[:, 0], items[known]] = -torch.inf
        peak = table.amax(1, keepdim=True).clamp(min=torch.finfo(table.dtype).min)  # of no item at all: not -inf
        table.sub_(peak).exp_()
        total = table.sum(1, keepdim=True)
        ctx.save_for_backward(left, right, items, known, table, total)
        return torch.cat([listed, peak + total.log()], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # pyrefly: ignore
        left, right, items, known, table, total = ctx.saved_tensors
        of_list, of_rest = gradients[0][:, :-1], gradients[0][:, -1:]
        share = (of_rest / total).masked_fill(total == 0, 0.0)  # a loss may have no gradient where nothing is left
        slope = table * share
        slope.scatter_add_(1, items.clamp(min=0), of_list * known)
        return slope @ right, slope.T @ left, None, None, None
