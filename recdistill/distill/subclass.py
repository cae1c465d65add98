"""Subclass distillation (Mueller, Kornblith and Hinton, arXiv 2002.03936): what two classes are too few to say.

A pair of a user and an item is taken or not. A head splits either class into S subclasses that nobody names: 2S
sub-logits z_j(u,i) = <w_j, u o v> + b_j, those of "taken" first. A class's logit is the logsumexp of its sub-logits,
and the pair's logit the difference of the two, so the sums of the subclasses' chances are the chances of the classes.
The head is of training alone: what serves is the inner product <u, v>.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize, softplus

from recdistill.distill.losses import LOW
from recdistill.distill.ranks import sampled
from recdistill.distill.terms import levelled
from recdistill.types import Batch, Candidates, Space

NEGATIVES = 64  # of a batch's, that every row of it is compared with: a sub-logit costs as much as a score
EXAMPLES = 512  # pairs of either class, at most, whose subclasses are compared with each other


class SubLogits(nn.Module):
    """The head of a teacher, or of a student's term, on its vectors as they are scored.

    It begins where a pair's logit is near the score: of "taken" each is the score and noise, of "not taken" noise,
    since subclasses that begin alike would stay so. `noise` is the weights' own. The last `given` columns, which are a
    prior's and of any size, get none: noise times a popularity would be one subclass for everything.
    """

    def __init__(self, width: int, count: int, *, noise: float = 1.0, given: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise * torch.randn(2 * count, width))
        self.bias = nn.Parameter(torch.zeros(2 * count))
        with torch.no_grad():
            self.weight[:, width - given :] = 0.0
            self.weight[:count] += 1.0

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the sub-logits of each of `left` [R,D] with `right`, [R,K,D] of its own or [K,D] of all: [R,K,2S]."""
        return sub_logits(left, right, self.weight, self.bias)


def noise(width: int, space: Space, temperature: float) -> float:
    """Return the noise of weights at which sub-logits of vectors of so many dimensions vary by about 1 at first.

    Products of coordinates of two random vectors of length 1 are about 1 / `width`, and divided by the temperature; how
    long vectors are in dot space is not known before they are trained, and 1 is returned.
    """
    return temperature * math.sqrt(width) if space == "cosine" else 1.0


def sub_logits(left: Tensor, right: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return <w_j, u o v> + b_j of `left` [R,D] with `right`, [R,K,D] of each or [K,D] of all, weight [2S,D]: [R,K,2S].

    The product u o v of a pair is not made: the users' vectors are multiplied into the weights instead.
    """
    keyed = left.unsqueeze(1) * weight  # [R,2S,D]
    if right.dim() == 2:
        return (keyed.flatten(0, 1) @ right.T).view(*keyed.shape[:2], len(right)).transpose(1, 2) + bias
    return torch.bmm(right, keyed.transpose(1, 2)) + bias


def class_logit(subs: Tensor) -> Tensor:
    """Return the log-odds that a pair is taken, from its sub-logits [...,2S]: [...]."""
    taken, other = subs.chunk(2, dim=-1)
    return taken.logsumexp(-1) - other.logsumexp(-1)


def spread(subs: Tensor, temperature: float) -> Tensor:
    """Return mean_i logsumexp_j(v_i.v_j / T) - 1/T - log n over the sub-logits [n,2S] of n examples.

    v_i is example i's sub-logits less their mean, of length 1 (to divide by their deviation first changes nothing). It
    is 0, and no more than that, where all examples use one subclass, and the lower the less alike they are (the
    auxiliary loss of Mueller et al., 2020).
    """
    v = normalize(subs - subs.mean(1, keepdim=True), dim=1)
    alike = (v @ v.T / temperature).logsumexp(1)
    return alike.mean() - 1 / temperature - math.log(len(subs))


def subclass_kl(
    student: Tensor, candidates: Candidates, *, temperature: float, between: float = 1.0, tie: float = 1.0
) -> Tensor:
    """Return the mean over each row's items of T^2 KL(softmax(t/T) || softmax(z/T)) + `tie` BCE, [R].

    `student` [R,K,1+2S] is the score that serves and the sub-logits z of the student's head, `candidates.subs` [R,K,2S]
    the teacher's t. By the chain rule the KL is that of the classes and, weighed by their mass, of the subclasses
    within each (`grouped_kl` with classes as parts); `between` is the weight of the first.
    The BCE ties the score to what the head's classes learn, the teacher's chance that a pair is taken: up to a shift of
    the row, whose level the task leaves free. It does not go through the head, which would teach the score its own
    beginnings. ValueError for candidates without sub-logits.
    """
    if candidates.subs is None:
        raise ValueError("these candidates have no sub-logits of the teacher's")
    known, score, subs = candidates.items >= 0, student[..., 0], student[..., 1:]
    p, q = (
        torch.log_softmax(((z - z.detach().amax(-1, keepdim=True)) / temperature).clamp(min=LOW), dim=-1)
        for z in (candidates.subs, subs)
    )
    apart = (p.exp() * (p - q)).sum(-1)
    if between != 1:
        of, to = (torch.stack([part.logsumexp(-1) for part in z.chunk(2, dim=-1)]) for z in (p, q))
        apart = apart + (between - 1) * (of.exp() * (of - to)).sum(0)
    said = class_logit(candidates.subs)
    level = levelled(score, replace(candidates, teacher=said))
    tied = binary_cross_entropy_with_logits(level, said.sigmoid(), reduction="none")
    each = temperature**2 * apart + tie * tied
    return each.masked_fill(~known, 0.0).sum(1) / known.sum(1).clamp(min=1)


class Classes(nn.Module):
    """A teacher's head and what it learns from: the batch's positives, and some of its negatives."""

    def __init__(self, head: SubLogits, *, weight: float, spread: float, temperature: float) -> None:
        super().__init__()
        self.head = head
        self.weight, self.spread, self.temperature = weight, spread, temperature

    def asked(self, batch: Batch) -> list[tuple[Tensor, bool]]:
        """Return the items whose vectors it asks for: the positives [B], and negatives [n] of all or [B*n] of each.

        Beside each stands whether every process asks for the same.

        What the batch shares may be the catalogue in order, so it is taken evenly apart, from elsewhere at each step.
        """
        negatives, size = batch.negatives, batch.negatives.shape[-1]
        count = min(NEGATIVES, size)
        if negatives.dim() == 2:
            return [(batch.positives, False), (negatives[:, :count].reshape(-1), False)]
        places = torch.arange(count, device=negatives.device) * (size // count)
        return [(batch.positives, False), (negatives[(places + batch.step * 40_503) % size], True)]

    def forward(self, left: Tensor, positives: Tensor, negatives: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy, in which both classes count alike, and the loss that spreads, both weighted.

        left [B,D]; positives [B,D] and negatives [n,D] or [B*n,D] are those that `asked` asks for. The sub-logits that
        are compared with each other are of the whole batch, so that ranks learn what one process does; collective.
        """
        shared = batch.negatives.dim() == 1
        items = self.asked(batch)[1][0].view(1 if shared else len(left), -1)
        taken = self.head(left, positives.unsqueeze(1))[:, 0]
        other = self.head(left, negatives if shared else negatives.view(len(left), -1, left.shape[1]))
        real = items != batch.positives.unsqueeze(1)
        down = softplus(class_logit(other)).masked_fill(~real, 0.0).sum(1) / real.sum(1).clamp(min=1)
        told = (softplus(-class_logit(taken)) + down).mean() / 2
        place = (batch.users * 31 + batch.positives) % other.shape[1]  # of the row itself, not of where it stands
        one = other.gather(1, place.view(-1, 1, 1).expand(-1, 1, other.shape[2]))[:, 0]
        examples = sampled(torch.stack([taken, one], dim=1), EXAMPLES).flatten(0, 1)
        apart = spread(examples, self.temperature)
        return {"subclasses": self.weight * told, "subclasses.spread": self.weight * self.spread * apart}
