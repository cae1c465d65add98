"""Causal self-attention over a history: what each of its items says in the light of those before it.

Attention over the past items (SASRec, Kang and McAuley, ICDM 2018) with the gate and the relative place and time of
HSTU (Zhai et al., ICML 2024, eq. 1-3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recdistill.models.clock import SECOND
from recdistill.types import Past

AGES = 64  # buckets of the time between two items: two an octave of 1 + seconds, up to 136 years
FAR = -1e9  # a weight of nothing; unlike -inf it leaves no NaN where there is nothing to attend to


class Reading(nn.Module):
    """Layers of attention, between two norms."""

    def __init__(self, dim: int, layers: int, heads: int, history: int) -> None:
        super().__init__()
        self.first, self.last = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(Block(dim, heads, history) for _ in range(layers))

    def forward(self, items: Tensor, past: Past) -> Tensor:
        """Return the state after each place, [B,L,D], of the vectors `items` [B,L,D] of `past`.

        It depends on the places up to its own, and is zeros before the first item.
        """
        there = past.items >= 0
        gates = None if past.gates is None else past.gates.unsqueeze(2)
        x = self.first(items) if gates is None else self.first(items) * gates
        at = torch.arange(there.shape[1], device=there.device)
        apart = at.unsqueeze(1) - at
        visible = (apart >= 0) & there[:, None, None, :]
        ages = None if past.times is None else between(past.times)
        for block in self.blocks:
            x = x + block(x, apart.clamp(min=0), ages, visible, gates)
        return self.last(x) * (there.cumsum(1) > 0).unsqueeze(2)


class Block(nn.Module):
    """One layer of attention to the past, and a gate on what it finds."""

    def __init__(self, dim: int, heads: int, history: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mix, self.out = nn.Linear(dim, 4 * dim), nn.Linear(dim, dim)
        # It starts as linear decay, steep in the first head and flat in the last (ALiBi, Press et al., ICLR 2022).
        self.place = nn.Parameter(-torch.logspace(0, -2, heads) * torch.arange(history)[:, None])
        self.age = nn.Parameter(torch.zeros(AGES, heads))

    def forward(
        self, x: Tensor, apart: Tensor, ages: Tensor | None, visible: Tensor, gates: Tensor | None = None
    ) -> Tensor:
        """Return what is added to `x` [B,L,D].

        apart [L,L] is how many places back each one lies, ages [B,L,L] the bucket of the time between, visible
        [B,1,L,L] what each place may read, gates [B,L,1] what each place's values are multiplied by: before the norm
        they would be undone.
        """
        batch, length, dim = x.shape
        gate, *rest = self.mix(self.before(x)).chunk(4, dim=2)
        rest = rest if gates is None else [rest[0] * gates, *rest[1:]]
        split = (batch, length, self.heads, dim // self.heads)
        value, query, key = (part.view(split).transpose(1, 2) for part in rest)
        bias = nn.functional.embedding(apart, self.place).unsqueeze(0)
        if ages is not None:
            bias = bias + nn.functional.embedding(ages, self.age)
        weights = query @ key.transpose(2, 3) / (dim // self.heads) ** 0.5 + bias.permute(0, 3, 1, 2)
        weights = weights.masked_fill(~visible, FAR).softmax(3)
        found = (weights @ value).transpose(1, 2).reshape(batch, length, dim)
        return self.out(self.between(found) * nn.functional.silu(gate))


def between(times: Tensor) -> Tensor:
    """Return the bucket of the time from each place to each other one before it, [B,L,L] in [0,AGES)."""
    apart = (times.unsqueeze(2) - times.unsqueeze(1)).clamp(min=0).double() / SECOND
    return (2 * torch.log2(1 + apart)).long().clamp(max=AGES - 1)
