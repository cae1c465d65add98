"""What is taught in place of a teacher's scores: pure functions of the candidates, and the one network among them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from recdistill.types import Candidates


def rank(candidates: Candidates, *, temperature: float) -> Candidates:
    """Return the candidates with -rank / `temperature` as the teacher's scores.

    The rank is the column, from 0, of a ranked item, and the number of ranked columns for all others: they are below
    the list, and nothing is said of their order. Items that the teacher has not scored get one too; -inf for no item.
    BlackD's blind mode: what is left of a teacher of which only the order is known.
    """
    columns = torch.arange(candidates.items.shape[1], device=candidates.items.device)
    scores = -columns.clamp(max=candidates.ranked).to(candidates.teacher.dtype) / temperature
    return replace(candidates, teacher=torch.where(candidates.items >= 0, scores, -torch.inf))


def scale(candidates: Candidates, *, factor: float) -> Candidates:
    """Return the candidates with the teacher's scores times `factor`, above 0; what is not known stays -inf.

    The label scaling of ExFM (2025).
    """
    return replace(candidates, teacher=candidates.teacher * factor)


def adjust(candidates: Candidates, *, exponent: float, log_counts: Tensor) -> Candidates:
    """Return the candidates with the teacher's scores less `exponent` times the item's entry of `log_counts` [I].

    Logit adjustment (Menon et al., ICLR 2021) of what is taught: items that many took count for less, by one power of
    how many did.
    """
    less = exponent * log_counts[candidates.items.clamp(min=0)]
    return replace(candidates, teacher=candidates.teacher - less.to(candidates.teacher.dtype))


def half_way(student: Tensor, candidates: Candidates, *, step: float) -> Candidates:
    """Return the candidates with s + `step` (t - s) as the teacher's scores, both centred over the list, s constant.

    A teacher that asks no more of a student than a step (Livanos et al., AAAI 2024).
    """
    known = (candidates.items >= 0) & torch.isfinite(candidates.teacher)
    count = known.sum(1, keepdim=True).clamp(min=1)
    own, other = (
        scores - scores.masked_fill(~known, 0.0).sum(1, keepdim=True) / count
        for scores in (student.detach(), candidates.teacher)
    )
    return replace(candidates, teacher=torch.where(known, own + step * (other - own), -torch.inf))


class Adapted(nn.Module):
    """The teacher's logit plus a network of it with one hidden layer: the student adapter of ExFM (2025).

    It begins as the identity: its last layer is zero.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(1, hidden), nn.Linear(hidden, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, teacher: Tensor) -> Tensor:
        """Return the adapted logits, [R,K] -> [R,K]; what is not known stays -inf and gives no gradient."""
        unknown = ~torch.isfinite(teacher)
        logit = teacher.masked_fill(unknown, 0.0)
        change = self.outer(torch.relu(self.inner(logit.unsqueeze(-1)))).squeeze(-1)
        return (logit + change).masked_fill(unknown, -torch.inf)
