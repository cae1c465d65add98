"""How student scores are compared with a teacher's list: pure functions that return one value a row.

The caller takes the mean, so that a weight means the same at any batch and world size. `student` [B,K] are
scores (logits); an item of -1 is no item and takes part in nothing. Rows without any item give 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from recdistill.types import Candidates

FAR = -1e30  # a score of no item: its exponential is 0, and unlike -inf its gradient is not NaN


def softmax_kl(student: Tensor, candidates: Candidates, *, temperature: float) -> Tensor:
    """Return KL(softmax(teacher / T) || softmax(student / T)) over each row's list, [B].

    Both are normalised over the same items. There is no factor T^2: the gradient falls as 1/T (Hinton et al., 2015).
    """
    known = (candidates.items >= 0) & torch.isfinite(candidates.teacher)
    p = torch.log_softmax((candidates.teacher / temperature).masked_fill(~known, FAR), dim=1)
    q = torch.log_softmax((student / temperature).masked_fill(~known, FAR), dim=1)
    return (p.exp() * (p - q)).masked_fill(~known, 0.0).sum(1)


def soft_bce(student: Tensor, candidates: Candidates, *, temperature: float, shift: float) -> Tensor:
    """Return the mean cross-entropy of sigmoid(student) with sigmoid((teacher + shift) / T), [B].

    Lee et al. (CD, ICDM 2019), with their t1 as `temperature` and t2 as `shift`.
    """
    known = (candidates.items >= 0) & torch.isfinite(candidates.teacher)
    target = torch.sigmoid((candidates.teacher.masked_fill(~known, 0.0) + shift) / temperature)
    each = binary_cross_entropy_with_logits(student, target, reduction="none")
    return (each * known).sum(1) / known.sum(1).clamp(min=1)


def plackett_luce(student: Tensor, candidates: Candidates) -> Tensor:
    """Return the negative log-likelihood of the teacher's order, a ranked item, with the unranked below all: [B].

    Row by row -1/n sum_k [ s_k - log( sum_{i>=k} exp s_i + sum_{j unranked} exp s_j ) ] over the n ranked
    items: the relaxed ranking loss of Kang et al. (DE-RRD, CIKM 2020, eq. 7), divided by n so that its weight
    does not depend on the list's length. Nothing is said of the order among the unranked.
    """
    known = candidates.items >= 0
    scores = student.masked_fill(~known, FAR)
    ranked, rest = scores[:, : candidates.ranked], scores[:, candidates.ranked :]
    below = torch.logcumsumexp(ranked.flip(1), dim=1).flip(1)
    if rest.shape[1]:
        below = torch.logaddexp(below, rest.logsumexp(1, keepdim=True))
    valid = known[:, : candidates.ranked]
    return ((below - ranked) * valid).sum(1) / valid.sum(1).clamp(min=1)


def bpr(positive: Tensor, negatives: Tensor) -> Tensor:
    """Return -log sigmoid(s+ - s-), averaged over the row's negatives: positive [B], negatives [B,N] -> [B].

    Rendle et al. (BPR, UAI 2009), without the regulariser.
    """
    return -logsigmoid(positive.unsqueeze(1) - negatives).mean(1)


def sampled_softmax(positive: Tensor, negatives: Tensor, collides: Tensor, *, log_share: float) -> Tensor:
    """Return the cross-entropy of the positive against sampled items, corrected for how they were sampled: [B].

    positive [B], negatives [B,N], collides [B,N] true where a negative is the positive itself. `log_share` is the
    log of the expected number of times an item is among the negatives (logQ): subtracting it makes the
    denominator an estimate of the whole catalogue's (Bengio and Senecal, 2008).
    """
    rest = negatives.masked_fill(collides, FAR).logsumexp(1) - log_share
    return torch.logaddexp(positive, rest) - positive


def full_softmax(positive: Tensor, everything: Tensor) -> Tensor:
    """Return the cross-entropy of the positive [B] against every item of the catalogue [B,I], itself included: [B]."""
    return everything.logsumexp(1) - positive


def told(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of sigmoid(logits) [B] with what was declared [B], 0 where that is NaN: [B]."""
    known = ~torch.isnan(targets)
    each = binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return torch.where(known, each, 0.0)
