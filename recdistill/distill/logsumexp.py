"""The sum of exponentials of a wide table of scores, and its gradient, in a few passes over memory.

What autograd would make of its parts reads and writes the table a dozen times. Here a block of rows stays in the cache
until its probabilities are done, and the gradient is one product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recdistill.distill.losses import FAR
from recdistill.threads import spread

BLOCK = 2**17  # scores that stay in the second-level cache with what is made of them


def logsumexp_but(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return log sum exp of each row of `scores` [B,N] without the scores at (`rows`, `columns`) [m each]: [B].

    `rows` rise. Where nothing is left it is far below any score.
    """
    return _LogSumExp.apply(scores, rows, columns)


def meetings(wanted: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Return where `drawn` [N], or [B,N] of a row's own, is what is `wanted` [B]: rows, which rise, and columns [m]."""
    if drawn.dim() == 2:
        rows, columns = (drawn == wanted.unsqueeze(1)).nonzero().unbind(1)
        return rows, columns
    inorder, place = drawn.sort(stable=True)
    low = torch.searchsorted(inorder, wanted)
    count = torch.searchsorted(inorder, wanted, right=True) - low
    rows = torch.repeat_interleave(torch.arange(len(wanted), device=wanted.device), count)
    first = (count.cumsum(0) - count)[rows]
    return rows, place[low[rows] + torch.arange(len(rows), device=wanted.device) - first]


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:  # pyrefly: ignore
        size = len(scores) if scores.is_cuda else max(1, BLOCK // max(1, scores.shape[1]))
        share, found = torch.empty_like(scores), scores.new_empty(len(scores))
        starts = list(range(0, len(scores), size))
        cuts = torch.searchsorted(rows, torch.tensor([*starts, len(scores)], device=rows.device)).tolist()

        def work(at: int) -> None:
            start, (first, last) = starts[at], cuts[at : at + 2]
            part = slice(start, start + size)
            block = share[part].copy_(scores[part])
            if last > first:
                block[rows[first:last] - start, columns[first:last]] = FAR
            most = block.amax(1, keepdim=True)
            block.sub_(most).exp_()
            total = block.sum(1, keepdim=True)
            found[part] = (most + total.log())[:, 0]
            block.div_(total)

        spread(work, range(len(starts)))
        ctx.save_for_backward(share)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyrefly: ignore
        (share,) = ctx.saved_tensors
        return share * gradients[0].unsqueeze(1), None, None
