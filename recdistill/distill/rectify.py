"""Setting a teacher right where it is wrong: where it puts something else above what the user took.

It knows what it has learned by heart, so this is to be asked of scores that come from a model without the interaction
(out-of-fold). `candidates.taken` says which items are the row's own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from recdistill.distill.losses import FAR, scored
from recdistill.distill.partial import smooth
from recdistill.types import Candidates


def rectify(candidates: Candidates, *, how: Literal["swap", "smooth", "drop"], share: float = 0.1) -> Candidates:
    """Return the candidates with every row set right in which the teacher is wrong; the others stay as they are.

    swap: own items that stand too low exchange their scores with the intruders, best with best, so that the scores stay
    the same ones (DR-KD, Amik et al. 2022; of one item it is the published swap). smooth: such a row is taught label
    smoothing by `share` (KA, Wen et al. 2019). drop: it is taught nothing (Zhang et al. 2024).
    """
    if how == "swap":
        return replace(candidates, teacher=swapped(candidates))
    wrong = ~right(candidates).unsqueeze(1)
    other = (
        smooth(candidates, share=share).teacher if how == "smooth" else torch.full_like(candidates.teacher, -torch.inf)
    )
    return replace(candidates, teacher=torch.where(wrong, other, candidates.teacher))


def right(candidates: Candidates) -> Tensor:
    """Return whether no other item has a higher score than an own one, [R]; so is a row that has none of either."""
    own, others = _sides(candidates)
    least = candidates.teacher.masked_fill(~own, torch.inf).amin(1)
    return least >= candidates.teacher.masked_fill(~others, -torch.inf).amax(1)


def among_first(candidates: Candidates, k: int) -> Tensor:
    """Return whether fewer than `k` other items have a higher score than the best own one, [R]; or there is none."""
    own, others = _sides(candidates)
    best = candidates.teacher.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
    above = ((candidates.teacher > best) & others).sum(1)
    return (above < k) | ~own.any(1)


def swapped(candidates: Candidates) -> Tensor:
    """Return the teacher's scores [R,K] with the row's P own items in the P first places, by the fewest exchanges."""
    own, others = _sides(candidates)
    known = own | others
    scores = candidates.teacher.masked_fill(~known, FAR)
    ordered, order = scores.sort(dim=1, descending=True, stable=True)
    mine = own.gather(1, order)
    first = torch.arange(scores.shape[1], device=scores.device) < own.sum(1, keepdim=True)
    intruders, low = first & ~mine, ~first & mine  # as many of one as of the other
    # Stable sorts bring both to the front in the order of their scores: the j-th of one meets the j-th of the other.
    from_above = (~intruders).sort(dim=1, stable=True).indices
    from_below = (~low).sort(dim=1, stable=True).indices
    meets = torch.arange(scores.shape[1], device=scores.device) < low.sum(1, keepdim=True)
    above, below = ordered.gather(1, from_above), ordered.gather(1, from_below)
    changed = ordered.scatter(1, from_above, torch.where(meets, below, above))
    changed.scatter_(1, from_below, torch.where(meets, above, changed.gather(1, from_below)))
    found = torch.empty_like(scores).scatter_(1, order, changed)
    return torch.where(known, found, candidates.teacher)


def _sides(candidates: Candidates) -> tuple[Tensor, Tensor]:
    if candidates.taken is None:
        raise ValueError("these candidates do not say which items the user took")
    known = scored(candidates)
    return known & candidates.taken, known & ~candidates.taken
