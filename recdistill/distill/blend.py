"""How much of the teacher, and how much of what the user took: the two as one distribution over a list.

Cross-entropy is linear in what is taught, so that (1 - w) CE(taken, q) + w CE(teacher, q) is the cross-entropy with
the blend of both, and one term over lists is the whole loss of a paper that mixes two.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from recdistill.distill import ranks
from recdistill.distill.losses import FAR, scored
from recdistill.distill.partial import LEAST
from recdistill.types import Candidates


def blend(candidates: Candidates, *, teacher: float | Tensor) -> Candidates:
    """Return the candidates with log((1 - w) ybar + w p) as scores, w `teacher`, one number or [R,1].

    ybar is even over the row's own items, p the teacher's softmax over the list. A row without own items is taught the
    teacher alone. ValueError for candidates that do not say what was taken.
    """
    labels, p, known, there = _sides(candidates)
    share = torch.where(there, torch.as_tensor(teacher, dtype=p.dtype, device=p.device), 1.0)
    mixed = ((1 - share) * labels + share * p).clamp(min=LEAST).log().to(candidates.teacher.dtype)
    return replace(candidates, teacher=torch.where(known, mixed, -torch.inf))


def trusted(candidates: Candidates) -> Candidates:
    """Return the `blend` in which each row's share of the teacher is how far it is to be trusted.

    ValueError for candidates that do not say it, or not what was taken. Lukasik et al. (TMLR 2022).
    """
    if candidates.trust is None:
        raise ValueError("these candidates do not say how far the teacher is to be trusted")
    return blend(candidates, teacher=candidates.trust.unsqueeze(1))


def best_weight(student: Tensor, candidates: Candidates) -> Tensor:
    """Return the w in [0, 1] at which the teacher takes most noise out of a step's gradient at the scores: a number.

    The gradient of the blend is (q - ybar) - w (p - ybar): the teacher's part is a control variate, and the noise is
    least at w = E<q - ybar, p - ybar> / E|p - ybar|^2 (Safaryan et al., NeurIPS 2023). Collective: of all processes'
    rows; 0 without rows that took something.
    """
    labels, p, known, there = _sides(candidates)
    q = torch.softmax(student.detach().double().masked_fill(~known, FAR), dim=1) * known
    own, other = (q - labels) * there, (p - labels) * there
    sums = ranks.summed(torch.stack([(own * other).sum(), other.square().sum()]))
    return (sums[0] / sums[1].clamp(min=1e-30)).clamp(0.0, 1.0)


def _sides(candidates: Candidates) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ybar and p [R,K], which items take part, and which rows took any of them [R,1]."""
    if candidates.taken is None:
        raise ValueError("these candidates do not say which items the user took")
    known = scored(candidates)
    own = known & candidates.taken
    labels = own.double() / own.sum(1, keepdim=True).clamp(min=1)
    p = torch.softmax(candidates.teacher.double().masked_fill(~known, FAR), dim=1) * known
    return labels, p, known, own.any(1, keepdim=True)
