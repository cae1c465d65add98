"""Noise that is a function of what it is added to: the same on any machine, in any batch, at any step."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.types import Candidates


def gumbel(candidates: Candidates, samples: int) -> Tensor:
    """Return Gumbel noise of the ranked items, a hash of the row's set of items, the sample and the item: [R,S,K]."""
    items = candidates.items
    row = _mixed(items).sum(1)  # as a set: the order does not change it, nor does padding, since -1 gives 0
    sample = _mixed(torch.arange(samples, device=items.device))
    bits = _mixed(_mixed(row.unsqueeze(1) + sample).unsqueeze(2) + items[:, : candidates.ranked].unsqueeze(1))
    uniform = (((bits >> 12) & ((1 << 52) - 1)).double() + 0.5) * 2.0**-52  # 52 bits and a half: never 0, never 1
    return -torch.log(-torch.log(uniform))


def _mixed(x: Tensor) -> Tensor:
    """Return 64 bits that look random, a bijection of int64: output number x of SplitMix64 (Steele et al., 2014)."""
    x = (x + 1) * -0x61C8864680B583EB
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & ((1 << 33) - 1))
