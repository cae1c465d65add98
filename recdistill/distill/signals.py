"""One number a row that says how a step should treat it: read from the student's scores, and the teacher's.

A signal is without gradient. What it is used for: rows count by it, the uncertain ones alone count, or each gets a
temperature of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from recdistill.distill import ranks
from recdistill.distill.losses import FAR, scored
from recdistill.types import Candidates


def entropy(student: Tensor, candidates: Candidates) -> Tensor:
    """Return the entropy of the student's softmax over each list, over that of an even one: in [0, 1], [R].

    Li et al. (EMNLP 2021). A list of one item or none says nothing: 0.
    """
    known = scored(candidates)
    log_q = torch.log_softmax(student.masked_fill(~known, FAR), dim=1)
    most = known.sum(1).clamp(min=2).to(student.dtype).log()
    return -(log_q.exp() * log_q).masked_fill(~known, 0.0).sum(1) / most


def doubt(student: Tensor, candidates: Candidates) -> Tensor:
    """Return 1 - the student's largest probability over each list, 0 where there is no item: [R]."""
    known = scored(candidates)
    best = torch.softmax(student.masked_fill(~known, FAR), dim=1).amax(1)
    return (1 - best).masked_fill(~known.any(1), 0.0)


def closeness(student: Tensor, candidates: Candidates) -> Tensor:
    """Return 1 - the gap between the student's two largest probabilities over each list, [R]."""
    known = scored(candidates)
    q = torch.softmax(student.masked_fill(~known, FAR), dim=1).masked_fill(~known, 0.0)
    two = q.topk(min(2, q.shape[1]), dim=1).values
    gap = two[:, 0] - two[:, 1] if two.shape[1] == 2 else two[:, 0]
    return (1 - gap).masked_fill(~known.any(1), 0.0)


def confusion(student: Tensor, candidates: Candidates) -> Tensor:
    """Return 1 - the cosine of the student's and the teacher's scores, each centred over the list: in [0, 2], [R].

    Wen et al. (2019). Centred, since inner products leave an offset of each user open; 0 for a list without any.
    """
    known = scored(candidates)
    count = known.sum(1, keepdim=True).clamp(min=1)
    sides = []
    for scores in (student, candidates.teacher):
        kept = scores.masked_fill(~known, 0.0)
        sides.append((kept - kept.sum(1, keepdim=True) / count).masked_fill(~known, 0.0))
    return (1 - cosine_similarity(*sides, dim=1)).masked_fill(~known.any(1), 0.0)


SIGNALS: dict[str, Callable[[Tensor, Candidates], Tensor]] = {
    "entropy": entropy,
    "doubt": doubt,
    "closeness": closeness,
    "confusion": confusion,
}


class Treated(NamedTuple):
    """How a step treats its rows."""

    weight: Tensor | None = None  # [R] how much each counts
    factor: Tensor | None = None  # [R,1] by which the scores of both are multiplied


def treatment(signal: Mapping[str, Any], epochs: int) -> Callable[[Tensor, Candidates, float], Treated]:
    """Return what treats rows as `signal`, its specification dumped, says, over a training of so many epochs.

    It is called with the student's scores, the candidates and the share of the training that is done; collective.
    """
    kind = signal["kind"]

    def treat(student: Tensor, candidates: Candidates, at: float) -> Treated:
        if kind == "reliability":
            assert candidates.trust is not None, "this signal needs labels that say how far the teacher is right"
            return Treated(weight=candidates.trust)
        if kind == "right_first":
            gone, ramp = at * epochs - signal["start"], signal["ramp"]
            late = float(gone >= 0) if not ramp else min(max(gone / ramp, 0.0), 1.0)
            assert candidates.right is not None, "this signal needs to know where the teacher is right"
            return Treated(weight=by_right(candidates.right, late))
        found = SIGNALS[signal["of"]](student, candidates)
        if kind == "weight":
            return Treated(weight=by_weight(found))
        if kind == "keep":
            return Treated(weight=by_share(found, signal["share"]))
        warm = temperatures(found, base=signal["base"], slope=signal["slope"])
        return Treated(factor=1 / warm.unsqueeze(1))

    return treat


def by_weight(signal: Tensor) -> Tensor:
    """Return how much each row counts: its signal over the mean of all rows of the step, on all processes; [R]."""
    return signal / ranks.mean(signal).clamp(min=1e-12)


def by_share(signal: Tensor, share: float) -> Tensor:
    """Return 1 / `share` for the rows of the largest signals, that many of all processes' rows, 0 for the rest: [R].

    Ties at the edge all count, less each.
    """
    of_all = ranks.everyone(signal)
    edge = of_all.topk(max(1, round(share * len(of_all)))).values[-1]
    return (signal >= edge).to(signal.dtype) * (len(of_all) / (of_all >= edge).sum())


def by_right(right: Tensor, late: float) -> Tensor:
    """Return 1 for rows in which the teacher is `right` [R], `late` for those in which it is wrong: [R].

    Easy rows first, hard ones as the training goes on (after Zhang et al., 2024).
    """
    return torch.where(right, 1.0, late)


def temperatures(signal: Tensor, *, base: float, slope: float, least: float = 0.5) -> Tensor:
    """Return base + (mean - signal) slope, never below `least`: what confuses the student is taught sharper, [R].

    The mean is of all processes' rows, and so is the mean temperature where none is raised to `least`: `base`
    (dynamic temperature distillation, Wen et al. 2019).
    """
    return (base + (ranks.mean(signal) - signal) * slope).clamp(min=least)
