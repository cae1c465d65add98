"""From the student's width to the teacher's: small trainable networks, one value of each only where training needs it.

Every adapter is called as `adapter(student, teacher, at)`: student [n,Ds], teacher [n,Dt], both of the same entities,
and `at`, the share of training that is done; it returns [n,Dt]. Chance is a hash of a row's own content: a row gets the
same noise wherever it stands and whoever holds it, another after each step that moves it, and nothing is to be saved.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recdistill.errors import ConfigError

HARD = 0.1  # a gate this cold gives nearly all to one expert: from here on only that one is evaluated
GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio: its multiples spread evenly, as a signed integer
GOLDEN_32 = 0x9E3779B9 - 2**32
MIX = (0x7FEB352D, 0x846CA68B - 2**32)  # multipliers of the two rounds that scatter 32 bits (Wellons, lowbias32)
STEPS = 2**23  # float32 holds the middle of each of as many steps between 0 and 1 exactly


class Linear(nn.Module):
    """One matrix, with a bias."""

    def __init__(self, ds: int, dt: int) -> None:
        super().__init__()
        self.layer = nn.Linear(ds, dt)

    def forward(self, student: Tensor, teacher: Tensor, at: float) -> Tensor:  # noqa: ARG002
        """Return the adapted vectors, [n,Dt]."""
        return self.layer(student)


class Orthogonal(nn.Module):
    """A matrix with orthonormal columns: inner products after it are those before it (VkD, Miles et al., CVPR 2024).

    The trained parameter is any matrix; what is applied is the orthogonal factor of it, so the constraint holds at
    every step and under every optimiser. Raises ConfigError if the teacher is narrower than the student.
    """

    def __init__(self, ds: int, dt: int) -> None:
        super().__init__()
        if dt < ds:
            what = f"an orthogonal adapter from {ds} to {dt} dimensions has no orthonormal columns"
            raise ConfigError(what, fix="use the adapter linear, or a student no wider than its teacher")
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(dt, ds)))

    def matrix(self) -> Tensor:
        """Return the matrix that is applied, [Dt,Ds]; signs are those of the parameter, so that it is continuous."""
        q, r = torch.linalg.qr(self.weight)
        return q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)

    def forward(self, student: Tensor, teacher: Tensor, at: float) -> Tensor:  # noqa: ARG002
        """Return the adapted vectors, [n,Dt]."""
        return student @ self.matrix().T


class MLP(nn.Module):
    """One hidden layer, `ratio` times as wide as the student, its units dropped by chance while training (FitNet)."""

    def __init__(self, ds: int, dt: int, *, ratio: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(ds, ratio * ds), nn.Linear(ratio * ds, dt)
        self.dropout = dropout

    def forward(self, student: Tensor, teacher: Tensor, at: float) -> Tensor:  # noqa: ARG002
        """Return the adapted vectors, [n,Dt]."""
        hidden = self.first(student).relu()
        if self.training and self.dropout:
            hidden = hidden * (uniform(student, hidden.shape[1]) >= self.dropout) / (1 - self.dropout)
        return self.second(hidden)


class Experts(nn.Module):
    """`experts` small networks, mixed by a Gumbel gate over the teacher's vector (DE, Kang et al., CIKM 2020, eq. 2-4).

    The gate's temperature is anneal^at. Above HARD all experts are evaluated, as two products; below it each row goes
    through the expert it gives most to, and the gate learns from that one, at HARD: its own temperature would give it
    no gradient, and at a tie a boundless one.
    """

    def __init__(self, ds: int, dt: int, *, experts: int, anneal: float) -> None:
        super().__init__()
        hidden = (ds + dt) // 2
        self.experts, self.anneal = experts, anneal
        self.gate = nn.Linear(dt, experts)
        self.first, self.first_bias = _uniform(ds, experts, hidden, ds), _uniform(ds, experts, hidden)
        self.second, self.second_bias = _uniform(hidden, experts, hidden, dt), _uniform(hidden, experts, dt)

    def scores(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the gate's logits, while training with Gumbel noise from the student's content: [n,experts]."""
        logits = self.gate(teacher)
        if not self.training:
            return logits
        return logits - (-uniform(student, self.experts).log()).log().to(logits.dtype)

    def mix(self, student: Tensor, scores: Tensor, at: float) -> Tensor:
        """Return the experts' vectors, mixed as the gate's `scores` [n,experts] say at `at`: [n,Dt]."""
        temperature = self.anneal**at
        return (
            self._all(student, (scores / temperature).softmax(1)) if temperature > HARD else self._own(student, scores)
        )

    def forward(self, student: Tensor, teacher: Tensor, at: float) -> Tensor:
        """Return the adapted vectors, [n,Dt]."""
        return self.mix(student, self.scores(student, teacher), at)

    def _all(self, student: Tensor, gate: Tensor) -> Tensor:
        hidden = torch.addmm(self.first_bias.flatten(), student, self.first.flatten(0, 1).T).relu_()
        # What the gate gives an expert multiplies its hidden units, so that one product also sums over the experts.
        shares = hidden.unflatten(1, (self.experts, -1)) * gate.unsqueeze(2)
        return torch.addmm(gate @ self.second_bias, shares.flatten(1), self.second.flatten(0, 1))

    def _own(self, student: Tensor, scores: Tensor) -> Tensor:
        choice = scores.argmax(1)
        order, _, sizes = by_group(choice, self.experts)
        # Each expert gets as many rows as the fullest, so that one product serves all of them: at worst, where all rows
        # choose the same, it is the work of `_all`.
        most, begin = max(sizes), torch.tensor([0, *sizes[:-1]], device=order.device).cumsum(0)
        slot = torch.empty_like(order)
        slot[order] = torch.arange(len(order), device=order.device) - begin[choice[order]]
        slot += choice * most
        rows = student.new_zeros(self.experts * most, student.shape[1]).index_copy(0, slot, student)
        rows = rows.view(self.experts, most, -1)
        hidden = torch.baddbmm(self.first_bias.unsqueeze(1), rows, self.first.transpose(1, 2)).relu_()
        found = torch.baddbmm(self.second_bias.unsqueeze(1), hidden, self.second).flatten(0, 1)
        chance = (scores / HARD).softmax(1).gather(1, choice.unsqueeze(1))
        return found[slot] * (1 + chance - chance.detach())  # the factor is 1; its gradient is the gate's


def by_group(group: Tensor, groups: int) -> tuple[Tensor, Tensor, list[int]]:
    """Return the order [n] that brings rows of one of `groups` together, the order back [n], and the groups' sizes."""
    order = group.argsort(stable=True)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return order, back, group.bincount(minlength=groups).tolist()


def uniform(rows: Tensor, columns: int) -> Tensor:
    """Return numbers in (0, 1), float32 [n,columns], that are a hash of each row [n,D] and the column alone."""
    bits = rows.detach().float().contiguous().view(torch.int32).long()
    odd = (2 * torch.arange(rows.shape[1], device=rows.device) + 1) * GOLDEN
    halves = (bits * odd).sum(1, keepdim=True).view(torch.int32)  # [n,2]
    place = torch.arange(columns, dtype=torch.int32, device=rows.device) * GOLDEN_32
    mixed = (halves[:, :1] ^ halves[:, 1:]) + place
    for shift, multiplier in zip((16, 15), MIX, strict=True):
        mixed ^= (mixed >> shift) & (2 ** (32 - shift) - 1)  # what is shifted in are zeros, not the sign
        mixed *= multiplier
    mixed ^= (mixed >> 16) & 0xFFFF
    return (mixed & (STEPS - 1)).float().add_(0.5).div_(STEPS)


def _uniform(inputs: int, *shape: int) -> nn.Parameter:
    """Return a parameter that begins as nn.Linear's weights and biases do."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
