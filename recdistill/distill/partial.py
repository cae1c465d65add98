"""Partial teachers: what is left of a teacher's distribution over a list when all but one thing it says is taken away.

Tang et al. (Understanding and Improving Knowledge Distillation, 2020): a gain that label smoothing gives too is no
knowledge. Each function returns the candidates with log-probabilities as the teacher's scores, so that a softmax at
temperature 1 gives the distribution back. `candidates.taken` says which items are the row's own.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from recdistill.distill.losses import FAR, scored
from recdistill.types import Candidates

LEAST = 1e-30  # a share that is nothing, as a number that has a logarithm


def smooth(candidates: Candidates, *, share: float) -> Candidates:
    """Return label smoothing: 1 - `share` even over the row's own items, `share` even over the others.

    The teacher is not asked. All of it goes to the others in a row without own items, and the other way round.
    """
    own, others = _own(candidates)
    return _taught(candidates, torch.where(_any(own) & _any(others), 1.0 - share, _any(own).double()), own, others)


def pt(candidates: Candidates) -> Candidates:
    """Return KD-pt: the mass that the teacher gives the row's own items, even over them; the rest even over the others.

    What it keeps of the teacher is how sure it is of what was taken; none of the order among the others.
    """
    own, others = _own(candidates)
    p = torch.softmax(candidates.teacher.double().masked_fill(~scored(candidates), FAR), dim=1)
    return _taught(candidates, (p * own).sum(1, keepdim=True), own, others)


def topk(candidates: Candidates, *, k: int) -> Candidates:
    """Return KD-topk: the teacher's `k` largest probabilities as they are, what is left even over the others."""
    known = scored(candidates)
    scores = candidates.teacher.double().masked_fill(~known, FAR)
    p = torch.softmax(scores, dim=1)
    kept = torch.zeros_like(known).scatter_(1, scores.topk(min(k, scores.shape[1]), dim=1).indices, True) & known
    others = known & ~kept
    rest = (1.0 - (p * kept).sum(1, keepdim=True)).clamp(min=0) / others.sum(1, keepdim=True).clamp(min=1)
    return _logs(candidates, torch.where(kept, p, rest), known)


def sim(candidates: Candidates, *, vectors: Tensor, temperature: float) -> Candidates:
    """Return KD-sim: softmax of the cosines between items and what was taken, over `temperature`.

    `vectors` [I,D] are the teacher's of items; a row's own items stand together as the mean of their directions. A row
    without own items is taught nothing.
    """
    own, _ = _own(candidates)
    listed = torch.nn.functional.normalize(vectors[candidates.items.clamp(min=0)].float(), dim=2)
    centre = torch.nn.functional.normalize((listed * own.unsqueeze(2)).sum(1), dim=1)
    cosine = torch.bmm(listed, centre.unsqueeze(2)).squeeze(2) / temperature
    there = (candidates.items >= 0) & _any(own)
    return replace(candidates, teacher=torch.where(there, cosine.to(candidates.teacher.dtype), -torch.inf))


def _own(candidates: Candidates) -> tuple[Tensor, Tensor]:
    """Return which of the items with a score are the row's own, and which are not; ValueError if nobody said."""
    if candidates.taken is None:
        raise ValueError("these candidates do not say which items the user took")
    known = scored(candidates)
    return known & candidates.taken, known & ~candidates.taken


def _any(mask: Tensor) -> Tensor:
    return mask.any(1, keepdim=True)


def _taught(candidates: Candidates, mass: Tensor, own: Tensor, others: Tensor) -> Candidates:
    """Return `mass` [R,1] spread evenly over `own`, and what is left of 1 over `others`."""
    each = own * (mass / own.sum(1, keepdim=True).clamp(min=1))
    each = each + others * ((1.0 - mass) / others.sum(1, keepdim=True).clamp(min=1))
    return _logs(candidates, each, own | others)


def _logs(candidates: Candidates, p: Tensor, known: Tensor) -> Candidates:
    logs = p.clamp(min=LEAST).log().to(candidates.teacher.dtype)
    return replace(candidates, teacher=torch.where(known, logs, -torch.inf))
