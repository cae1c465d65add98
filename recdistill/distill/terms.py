"""A distillation term, and the objective: the one module that training sees, everything trainable inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor, nn

from recdistill.data.sequences import joined
from recdistill.distill import draws, losses
from recdistill.distill.spec import ListTermSpec
from recdistill.models.encoders import Encoder, Group
from recdistill.models.ranker import Ranker
from recdistill.types import Batch, Candidates

DRAWS = {"top": draws.top, "ranked": draws.ranked, "unseen": draws.unseen}
LOSSES = {"softmax_kl": losses.softmax_kl, "soft_bce": losses.soft_bce, "plackett_luce": losses.plackett_luce}


@dataclass(frozen=True, slots=True)
class ListTerm:
    """Compares the student's scores with the teacher's lists on the items its draws choose."""

    name: str
    weight: float
    draws: Sequence[Callable[[draws.Lists, Generator], draws.Draw]]
    num_ranked: int  # how many of the draws, the first, keep the teacher's order
    loss: Callable[[Tensor, Candidates], Tensor]

    def candidates(self, lists: draws.Lists, generator: Generator) -> Candidates:
        """Draw what to compare for each row of `lists`."""
        drawn = [draw(lists, generator) for draw in self.draws]
        return Candidates(
            items=torch.cat([d.items for d in drawn], dim=1),
            teacher=torch.cat([d.scores for d in drawn], dim=1),
            ranked=sum(d.items.shape[1] for d in drawn[: self.num_ranked]),
        )


def make_term(spec: ListTermSpec, position: int) -> ListTerm:
    """Return the term that `spec` describes; ranked draws come first, whatever order they were written in."""
    ordered = sorted(spec.draw, key=lambda d: d.kind == "unseen")
    return ListTerm(
        name=f"{position}.{spec.loss.kind}",
        weight=spec.weight,
        draws=[partial(DRAWS[d.kind], **d.model_dump(exclude={"kind"})) for d in ordered],
        num_ranked=sum(d.kind != "unseen" for d in ordered),
        loss=partial(LOSSES[spec.loss.kind], **spec.loss.model_dump(exclude={"kind"})),
    )


class Objective(nn.Module):
    """The task loss and the weighted distillation terms of one batch.

    A term's weight is fixed and positive for the whole run: the wrapper that averages gradients over ranks
    records which parameters take part once, so a term is there or is not built.
    """

    def __init__(self, model: Encoder | Ranker, *, loss: str, num_items: int, terms: Sequence[ListTerm] = ()) -> None:
        super().__init__()
        self.model, self.loss, self.num_items, self.terms = model, loss, num_items, list(terms)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses by name, each weighted and averaged over this rank's rows."""
        lists = [batch.candidates[term.name] for term in self.terms]
        users, past = batch.users, batch.past
        own = slice(None) if not lists else slice(len(users))
        listed = slice(len(users), None)
        if lists:
            users, past = torch.cat([users, batch.list_users]), joined(past, batch.list_past)
        groups = [Group(batch.positives.unsqueeze(1), own), Group(batch.negatives, own)]
        groups += [Group(c.items, listed) for c in lists]
        positive, negatives, *scores = self.model.score(users, past, groups)
        found = {"task": self._task(batch, positive[:, 0], negatives).sum() / batch.count}
        for term, candidates, score in zip(self.terms, lists, scores, strict=True):
            found[term.name] = term.weight * term.loss(score, candidates).mean()
        return found

    def _task(self, batch: Batch, positive: Tensor, negatives: Tensor) -> Tensor:
        if self.loss == "bpr":
            return losses.bpr(positive, negatives)
        shared = batch.negatives.dim() == 1
        if shared and len(batch.negatives) == self.num_items:
            return losses.full_softmax(positive, negatives)
        collides = batch.negatives == batch.positives.unsqueeze(1)
        share = math.log(negatives.shape[1] / self.num_items)
        return losses.sampled_softmax(positive, negatives, collides, log_share=share)
