"""How student scores are compared with a teacher's list: pure functions that return one value a row.

The caller takes the mean, so that a weight means the same at any batch and world size. `student` [R,K] are
scores (logits); an item of -1 is no item and takes part in nothing. Rows without any item give 0.

Where `candidates.logq` is set, columns are samples, and losses that normalise over a list subtract it first from
all that they normalise, so that the sum over samples estimates the one over everything (Bengio and Senecal, 2008).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from recdistill.distill.gumbel import gumbel
from recdistill.types import Candidates

# A score of no item: its exponential is 0, and unlike -inf its gradient is not NaN. It is half of what float32 can
# hold: below the score of any item, and still a number when the largest of the others is taken from it.
FAR = -1.7e38
LOW = -1.6e38  # the least that a score of an item becomes by a temperature


def softmax_kl(student: Tensor, candidates: Candidates, *, temperature: float) -> Tensor:
    """Return KL(softmax(teacher / T - logq) || softmax(student / T - logq)) over each row's list, [R].

    Both are normalised over the same items. There is no factor T^2: the gradient falls as 1/T (Hinton et al., 2015).

    >>> given = Candidates(items=torch.tensor([[4, 7]]), teacher=torch.tensor([[0.0, 0.0]]), ranked=2)
    >>> [round(softmax_kl(torch.tensor([[gap, 0.0]]), given, temperature=1.0).item(), 4) for gap in (0.0, 1.0)]
    [0.0, 0.1201]
    """
    known = scored(candidates)
    p = weighed(heated(candidates.teacher, known, temperature), candidates, known)
    q = weighed(heated(student, known, temperature), candidates, known)
    return _kl(p, q)


def list_ce(student: Tensor, candidates: Candidates, *, temperature: float) -> Tensor:
    """Return -sum_k p_k log q_k over the ranked items, p the teacher's softmax over them, q the student's: [B].

    p is at `temperature`; q is normalised over the ranked and the unranked, so that what the student puts above the
    list costs it. Without unranked items it is softmax_kl, but for the teacher's entropy and the student's temperature.
    """
    known = candidates.items >= 0
    log_q = torch.log_softmax(weighed(student, candidates, known), dim=1)[:, : candidates.ranked]
    teacher = candidates.teacher[:, : candidates.ranked]
    taught = known[:, : candidates.ranked] & torch.isfinite(teacher)
    p = torch.softmax(heated(teacher, taught, temperature).masked_fill(~taught, FAR), dim=1)
    return -(p * log_q).masked_fill(~taught, 0.0).sum(1)


def gated_kl(student: Tensor, candidates: Candidates, *, temperature: float) -> Tensor:
    """Return (1 - g) KL over the ranked columns + g KL over the others, each list normalised over itself: [R].

    `candidates.gate` is g; ValueError without it. RCE-KD (ICLR 2026) has cross-entropies, which differ by the
    teacher's entropy, a constant. An item that stands in the second list twice is to be -1 the second time.
    """
    if candidates.gate is None:
        raise ValueError("gated_kl needs a draw that gives a gate")
    known = scored(candidates)
    p = weighed(heated(candidates.teacher, known, temperature), candidates, known)
    q = weighed(heated(student, known, temperature), candidates, known)
    n = candidates.ranked
    return torch.lerp(_kl(p[:, :n], q[:, :n]), _kl(p[:, n:], q[:, n:]), candidates.gate.to(q.dtype))


def normalised_ce(student: Tensor, candidates: Candidates) -> Tensor:
    """Return the cross-entropy of the sigmoids, each normalised to a distribution over the row's list: [R].

    -sum p log q with p = sigmoid(teacher) / its sum, q = sigmoid(student) / its sum (CLID, WSDM 2024). The student that
    says what the teacher says is among those that make it least, so what is calibrated stays so.
    """
    known = scored(candidates)
    p = torch.log_softmax(weighed(logsigmoid(candidates.teacher), candidates, known), dim=1)
    q = logsigmoid(student)
    total = weighed(q, candidates, known).logsumexp(1, keepdim=True)
    return (p.exp() * (total - q)).masked_fill(~known, 0.0).sum(1)


def soft_bce(student: Tensor, candidates: Candidates, *, temperature: float, shift: float) -> Tensor:
    """Return the mean cross-entropy of sigmoid(student) with sigmoid((teacher + shift) / T), [R].

    Lee et al. (CD, ICDM 2019), with their t1 as `temperature` and t2 as `shift`.
    """
    known = scored(candidates)
    target = torch.sigmoid((candidates.teacher.masked_fill(~known, 0.0) + shift) / temperature)
    return _mean(binary_cross_entropy_with_logits(student, target, reduction="none"), known)


def logit_mse(student: Tensor, candidates: Candidates) -> Tensor:
    """Return the mean squared difference of the scores, [R] (KD_DAGFM: Tian et al., WSDM 2023)."""
    known = scored(candidates)
    return _mean((student - candidates.teacher).masked_fill(~known, 0.0) ** 2, known)


def margin_mse(student: Tensor, candidates: Candidates) -> Tensor:
    """Return the mean over columns j >= 1 of ((s_0 - s_j) - (t_0 - t_j))^2, [R]; 0 where column 0 is not known.

    Hofstaetter et al. (2020), with more than one item against the first.
    """
    known = scored(candidates)
    own, other = (s[:, :1] - s[:, 1:] for s in (student, candidates.teacher.masked_fill(~known, 0.0)))
    both = _against_first(candidates)
    return _mean((own - other).masked_fill(~both, 0.0) ** 2, both)


def plackett_luce(student: Tensor, candidates: Candidates) -> Tensor:
    """Return the negative log-likelihood of the teacher's order, a ranked item, with the unranked below all: [R].

    Row by row -1/n sum_k [ s_k - log( sum_{i>=k} exp s_i + sum_{j unranked} exp(s_j - logq_j) ) ] over the n ranked
    items: the relaxed ranking loss of Kang et al. (DE-RRD, CIKM 2020, eq. 7), divided by n so that its weight
    does not depend on the list's length. Nothing is said of the order among the unranked.
    """
    valid = _ranked(candidates)
    return _partial_order(student[:, : candidates.ranked], valid, _unranked(student, candidates))


def sampled_pl(student: Tensor, candidates: Candidates, *, samples: int, temperature: float) -> Tensor:
    """Return the mean of `plackett_luce` over `samples` orders of the ranked items from the teacher's own model: [R].

    An order has the chance that Plackett-Luce gives it at scores teacher / `temperature`: that of sorting them with
    Gumbel noise added (RankDistil: Reddi et al., AISTATS 2021). The noise is a function of the row's items, so equal
    candidates give equal values, on any machine and in any batch. Ranked items without a score take no part.
    """
    n = candidates.ranked
    valid = scored(candidates)[:, :n]
    keys = candidates.teacher[:, :n].detach().double() / temperature
    keys = keys.unsqueeze(1) + gumbel(candidates, samples)
    order = keys.masked_fill(~valid.unsqueeze(1), -torch.inf).argsort(dim=2, descending=True, stable=True)
    shape = (-1, samples, -1)
    scores = student[:, :n].unsqueeze(1).expand(shape).gather(2, order)
    each = _partial_order(
        scores, valid.unsqueeze(1).expand(shape).gather(2, order), _unranked(student, candidates).unsqueeze(1)
    )
    return each.mean(1)


def independent(student: Tensor, candidates: Candidates) -> Tensor:
    """Return the cross-entropy of each ranked item against the unranked alone, averaged over the ranked: [R].

    -1/n sum_k [ s_k - log( exp s_k + sum_{j unranked} exp(s_j - logq_j) ) ]: ranked items do not compete
    (HetComp, Kang et al., WWW 2023, first stage).
    """
    valid = _ranked(candidates)
    ranked = student[:, : candidates.ranked].masked_fill(~valid, 0.0)
    return _mean(-logsigmoid(ranked - _unranked(student, candidates)), valid)


def hard_bce(
    student: Tensor, candidates: Candidates, *, decay: float, sharpness: float, dynamic: Tensor | float, num_items: int
) -> Tensor:
    """Return -sum_r w_r log sigmoid(s_r) over the ranked items, w a distribution over them without gradient: [R].

    w_r ~ exp(-r / decay), r from 0 among the row's ranked items; with `dynamic` 1 (0: not) times
    tanh(max(sharpness (rhat_r - r), 0)), rhat_r = floor((num_items - 1) * share of the unranked that score above s_r).
    A row whose ranked items all stand high enough gives 0. Tang and Wang (RD, KDD 2018).
    """
    valid, known = _ranked(candidates), candidates.items >= 0
    scores = student.detach()
    rest = scores.masked_fill(~known, -torch.inf)[:, candidates.ranked :].contiguous()
    ranked = student[:, : candidates.ranked]
    # A sorted row says how many of it are above a score without a table of all pairs.
    above = rest.shape[1] - torch.searchsorted(rest.sort(dim=1).values, ranked.detach().contiguous(), right=True)
    drawn = known[:, candidates.ranked :].sum(1, keepdim=True).clamp(min=1)
    place = valid.cumsum(1) - 1
    gap = torch.div(above * (num_items - 1), drawn, rounding_mode="floor") - place
    second = 1.0 - dynamic * (1.0 - torch.tanh(sharpness * gap.clamp(min=0).to(student.dtype)))
    low = valid & (second > 0)
    # The product is normalised as a softmax of its logarithm: far down the list its first factor underflows.
    weights = torch.softmax((second.log() - place.to(student.dtype) / decay).masked_fill(~low, FAR), dim=1)
    return -(weights * logsigmoid(ranked)).masked_fill(~low, 0.0).sum(1)


def pairwise(student: Tensor, candidates: Candidates) -> Tensor:
    """Return the mean of -log sigmoid(s_better - s_worse), [R]: columns 2j and 2j+1 are the better and the worse.

    Pairs lack where either is -1. RuntimeError for an odd number of columns. Chen et al. (UnKD, WSDM 2023).
    """
    scores = student.masked_fill(candidates.items < 0, 0.0).unflatten(1, (student.shape[1] // 2, 2))
    return _mean(-logsigmoid(scores[..., 0] - scores[..., 1]), _pairs(candidates))


def counts(kind: str, candidates: Candidates) -> Tensor:
    """Return by how many items the loss `kind` divided each row, [R]: times it, the row is the sum; KeyError if none.

    1 for a loss that compares distributions; 0 in rows of the others that hold nothing to compare.
    """
    return COUNTS[kind](candidates)


def scored(candidates: Candidates) -> Tensor:
    """Return which places hold an item whose teacher's score is known, [R,K]."""
    return (candidates.items >= 0) & torch.isfinite(candidates.teacher)


def _ranked(candidates: Candidates) -> Tensor:
    return candidates.items[:, : candidates.ranked] >= 0


def _pairs(candidates: Candidates) -> Tensor:
    return (candidates.items >= 0).unflatten(1, (candidates.items.shape[1] // 2, 2)).all(2)


def _against_first(candidates: Candidates) -> Tensor:
    known = scored(candidates)
    return known[:, :1] & known[:, 1:]


def _one(candidates: Candidates) -> Tensor:
    return torch.ones(len(candidates.items), dtype=torch.int64, device=candidates.items.device)


COUNTS: dict[str, Callable[[Candidates], Tensor]] = {
    "softmax_kl": _one,
    "list_ce": _one,
    "gated_kl": _one,
    "soft_bce": lambda c: scored(c).sum(1),
    "normalised_ce": _one,
    "logit_mse": lambda c: scored(c).sum(1),
    "margin_mse": lambda c: _against_first(c).sum(1),
    "plackett_luce": lambda c: _ranked(c).sum(1),
    "sampled_pl": lambda c: scored(c)[:, : c.ranked].sum(1),
    "independent": lambda c: _ranked(c).sum(1),
    "hard_bce": _one,
    "pairwise": lambda c: _pairs(c).sum(1),
    "grouped_kl": _one,
    "path": _one,
    "subclass_kl": lambda c: (c.items >= 0).sum(1),
    "hinge_mse": lambda c: scored(c).sum(1),
}


def _mean(each: Tensor, valid: Tensor) -> Tensor:
    return (each.masked_fill(~valid, 0.0) / valid.sum(-1, keepdim=True).clamp(min=1)).sum(-1)


def weighed(scores: Tensor, candidates: Candidates, known: Tensor) -> Tensor:
    """Return scores less logq, FAR where not known."""
    return (scores if candidates.logq is None else scores - candidates.logq).masked_fill(~known, FAR)


def heated(scores: Tensor, known: Tensor, temperature: float) -> Tensor:
    """Return scores over the temperature, [R,K], up to one number a row, which no softmax sees.

    Below 1 it is their distance from the largest that is `known` which is divided: of two scores near each other that
    is exact, and what overflows has no chance anyway.
    """
    if temperature >= 1:
        return scores / temperature
    return (below(scores, known) / temperature).clamp(min=LOW)


def below(scores: Tensor, known: Tensor) -> Tensor:
    """Return how far each score is from the row's largest that is `known`, [R,K]: 0 or less; without its gradient."""
    if not scores.shape[1]:
        return scores
    return scores - scores.detach().masked_fill(~known, FAR).amax(1, keepdim=True).clamp(min=LOW)


def _kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Return the KL of two rows of log-weights that are FAR in the same places: [R,K] each -> [R]."""
    p, q = torch.log_softmax(teacher, dim=1), torch.log_softmax(student, dim=1)
    return (p.exp() * (p - q)).sum(1)  # 0 times 0 where there is no item, and where nothing is


def _unranked(student: Tensor, candidates: Candidates) -> Tensor:
    """Return the log of the sum of the exponentials of the unranked, [R,1], FAR where there are none."""
    rest = weighed(student, candidates, candidates.items >= 0)[:, candidates.ranked :]
    return rest.logsumexp(1, keepdim=True) if rest.shape[1] else student.new_full((len(student), 1), FAR)


def _partial_order(scores: Tensor, valid: Tensor, below: Tensor) -> Tensor:
    """Return the mean of log(sum of it and what follows, and exp `below` [...,1]) - score over the last dimension."""
    return _PartialOrder.apply(scores, valid, below.expand(*scores.shape[:-1], 1))


class _PartialOrder(torch.autograd.Function):
    """With its gradient as a formula, which is one scan; what autograd would record takes twice the time."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, valid: Tensor, below: Tensor) -> Tensor:  # pyrefly: ignore
        scores = scores.masked_fill(~valid, FAR)
        left = torch.logaddexp(scores.flip(-1).logcumsumexp(-1).flip(-1), below)
        ctx.save_for_backward(scores, valid, below, left)
        return _mean(left - scores, valid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor]:  # pyrefly: ignore
        scores, valid, below, left = ctx.saved_tensors
        weight = gradients[0].unsqueeze(-1) / valid.sum(-1, keepdim=True).clamp(min=1)
        # An item is in its own denominator and in those of all before it: exp(s_i) sum_{k<=i} exp(-left_k).
        before = (-left).masked_fill(~valid, FAR).logcumsumexp(-1)
        share = torch.exp(scores + before) - valid.to(scores.dtype)
        return weight * share, None, weight * torch.exp(below + before[..., -1:])
