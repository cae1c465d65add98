"""A distillation term, and the objective: the one module that training sees, everything trainable inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

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

    def __init__(
        self,
        model: Encoder | Ranker,
        *,
        loss: str,
        num_items: int,
        terms: Sequence[ListTerm] = (),
        heads: Mapping[str, float] = MappingProxyType({}),
        bf16: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.num_items, self.terms = model, loss, num_items, list(terms)
        self.heads = heads  # a ranker's further heads: name -> weight of its loss
        self.bf16 = bf16  # products of dense layers are taken in bfloat16; weights and losses stay as they are

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses by name, each weighted and averaged over this rank's rows."""
        lists = [batch.candidates[term.name] for term in self.terms]
        users, past = batch.users, batch.past
        own = slice(None) if not lists else slice(len(users))
        listed = slice(len(users), None)
        if lists:
            users, past = torch.cat([users, batch.list_users]), joined(past, batch.list_past)
        places = batch.positives >= 0 if batch.positives.dim() == 2 else None
        wanted = batch.positives if places is None else batch.positives[places]
        groups = [Group(batch.positives.unsqueeze(-1), own, places), Group(batch.negatives, own, places)]
        groups += [Group(c.items, listed) for c in lists]
        judged: list[Tensor] = []
        with torch.autocast(users.device.type, torch.bfloat16, enabled=self.bf16):
            if isinstance(self.model, Ranker) and self.heads:
                judged = [logits.float() for logits in self.model.judge(users, past, groups)]
                positive, negatives, *scores = [logits[..., 0] for logits in judged]
            else:
                positive, negatives, *scores = [score.float() for score in self.model.score(users, past, groups)]
        found = {"task": self._task(batch, wanted, positive[:, 0], negatives).sum() / batch.count}
        for i, (name, weight) in enumerate(self.heads.items(), start=1):
            each = losses.told(judged[0][:, 0, i], batch.tasks[name])
            found[f"task.{name}"] = weight * each.sum() / batch.count
        for term, candidates, score in zip(self.terms, lists, scores, strict=True):
            found[term.name] = term.weight * term.loss(score, candidates).mean()
        return found

    def _task(self, batch: Batch, wanted: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        if self.loss == "bpr":
            return losses.bpr(positive, negatives)
        if batch.positives.dim() == 2:
            negatives = negatives.masked_fill(read(batch.past.items, batch.positives, batch.negatives), losses.FAR)
        shared = batch.negatives.dim() == 1
        if shared and len(batch.negatives) == self.num_items:
            return losses.full_softmax(positive, negatives)
        collides = batch.negatives == wanted.unsqueeze(1)
        share = math.log(negatives.shape[1] / self.num_items)
        return losses.sampled_softmax(positive, negatives, collides, log_share=share)


def read(history: Tensor, positives: Tensor, items: Tensor) -> Tensor:
    """Return which of `items` [N] the user had taken by each place of `history` [B,L] with a positive [B,L]: [n,N].

    They are no negatives: a log keeps an item once, so none of them comes next, and no list is asked for them again.
    An item of the past that the step hides is told by the positive before it.
    """
    taken = torch.cat([history, positives], dim=1)
    distinct, where = items.unique(return_inverse=True)
    column = torch.searchsorted(distinct, taken).clamp(max=len(distinct) - 1)
    column = torch.where(distinct[column] == taken, column, len(distinct))  # one column more for what is none
    at = torch.arange(history.shape[1], dtype=torch.int16, device=items.device)
    since = torch.full((len(history), len(distinct) + 1), history.shape[1], dtype=torch.int16, device=items.device)
    since = since.scatter_reduce(1, column, torch.cat([at, at + 1]).expand_as(taken), "amin")
    row, place = (positives >= 0).nonzero(as_tuple=True)
    return since[:, where][row] <= place.unsqueeze(1)
