"""Agreement along an order that the student itself would give: place after place, against the teacher's chance."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from recdistill.distill.gumbel import gumbel
from recdistill.distill.losses import FAR, heated, scored
from recdistill.types import Candidates


def path(student: Tensor, candidates: Candidates, *, length: int, temperature: float) -> Tensor:
    """Return the mean over `length` places of (log p(i_k | before) - log q(i_k | before))^2, [R].

    The order i_1, i_2, ... is drawn from the student's Plackett-Luce model over the list; p and q are the teacher's and
    the student's chance of an item as the next of those that are left, both at `temperature`. It is 0 on every order
    if, and only if, both agree up to an offset of a row. Path consistency with the teacher's log-chance as reward and
    no value of states (Liu et al., arXiv 2502.17717). The noise of the draw is a function of the row's items.
    """
    known = scored(candidates)
    own, other = (heated(scores, known, temperature) for scores in (student, candidates.teacher))
    noise = gumbel(replace(candidates, ranked=known.shape[1]), 1)[:, 0].to(own.dtype)
    order = (own.detach() + noise).masked_fill(~known, -torch.inf).argsort(dim=1, descending=True, stable=True)
    there = known.gather(1, order)[:, :length]
    gap = torch.sub(*(_next(scores.masked_fill(~known, FAR).gather(1, order), length) for scores in (own, other)))
    return gap.masked_fill(~there, 0.0).square().sum(1) / there.sum(1).clamp(min=1)


def _next(ordered: Tensor, length: int) -> Tensor:
    """Return log of the chance of each of the first `length` items among itself and all that follow, [R,length]."""
    left = ordered.flip(1).logcumsumexp(1).flip(1)
    return (ordered - left)[:, :length]
