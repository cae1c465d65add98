"""The objective: the one module that training sees, everything trainable inside; one lookup a step serves it all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from recdistill.data.sequences import joined
from recdistill.distill import align, task_losses
from recdistill.distill.actor import Actor
from recdistill.distill.attention import look
from recdistill.distill.auxiliary import Balance, Exit, Head, adapt
from recdistill.distill.compare import Seat, align_values, asked_items, list_scores, live
from recdistill.distill.logsumexp import meetings
from recdistill.distill.losses import FAR
from recdistill.distill.nested import all_averaged, averaged, named, own_of
from recdistill.distill.schedule import Part, part_at
from recdistill.distill.subclass import Classes, SubLogits, noise
from recdistill.distill.targets import Adapted
from recdistill.distill.terms import AlignTerm, GatesTerm, ListTerm, Term, key
from recdistill.models.encoders import MF, Encoded, Encoder, Group, TwoTower, encode_widths
from recdistill.models.lightgcn import LightGCN
from recdistill.models.ranker import Ranker
from recdistill.types import Batch, Candidates, Past, Space


class Widths(NamedTuple):
    """How long vectors are: the student's, what its head reads, and the teacher's on either side; its sub-logits."""

    student: int = 0
    shared: int = 0
    users: int = 0
    items: int = 0
    subs: int = 0


NONE = Widths()


class Objective(nn.Module):
    """The task loss and the weighted distillation terms of one batch.

    A term is there for the whole run or is not built: the wrapper that averages gradients over ranks records which
    parameters take part once. The `partner` learns the same task beside the model. A model that is `nested` has each of
    its losses as the mean over its widths.
    """

    def __init__(
        self,
        model: Encoder | Ranker,
        *,
        loss: str,
        num_items: int,
        terms: Sequence[Term] = (),
        heads: Mapping[str, float] = MappingProxyType({}),
        bf16: bool = False,
        widths: Widths = NONE,
        partner: Encoder | Ranker | None = None,
        task: float = 1.0,
        parts: Sequence[Part] = (),
        actor: Mapping[str, Any] | None = None,
        classes: Classes | None = None,
    ) -> None:
        super().__init__()
        self.model, self.partner = model, partner
        self.loss, self.num_items, self.task, self.parts = loss, num_items, task, parts
        self.listing = [term for term in terms if isinstance(term, ListTerm)]
        self.aligning = [term for term in terms if isinstance(term, AlignTerm)]
        self.gating = [term for term in terms if isinstance(term, GatesTerm)]
        self.heads = heads  # a ranker's further heads: name -> weight of its loss
        self.bf16 = bf16  # products of dense layers are taken in bfloat16; weights and losses stay as they are
        space: Space = "dot" if isinstance(model, Ranker) else model.space
        self.nested: tuple[int, ...] = model.nested if isinstance(model, MF | TwoTower) else ()
        self.own = nn.ModuleDict(_modules(terms, widths, space, self._temperature, self.nested))
        self.balance = Balance([term.name for term in terms if term.balance])
        self.classes = classes  # a teacher's head of sub-logits
        self.actor = None if actor is None else Actor([term.name for term in terms], **actor)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses by name, each weighted and averaged over this rank's rows."""
        lesson = batch.lesson
        part = part_at(self.parts, lesson.at)
        if self.parts and isinstance(self.model, MF | TwoTower):
            users_table, items_table = cast(Any, self.model.user), cast(Any, self.model.item)
            users_table.still, items_table.still = not part.users, not part.items
            users_table.columns = items_table.columns = part.columns
        users, past, seat = self._seated(batch)
        places = batch.positives >= 0 if batch.positives.dim() == 2 else None
        wanted = batch.positives if places is None else batch.positives[places]
        groups = [Group(batch.positives.unsqueeze(-1), seat.own, places), Group(batch.negatives, seat.own, places)]
        plain = [t for t in self.listing if t.side == "users" and not _own(t)]
        groups += [Group(_asked(lesson.candidates[t.name].items), seat.listed) for t in plain]
        judged: list[Tensor] = []
        views: list[Encoded] = []  # by the first numbers of the vectors, of each nested width; the last by all of them
        with torch.autocast(users.device.type, torch.bfloat16, enabled=self.bf16):
            if isinstance(self.model, Ranker) and self.heads:
                judged = [logits.float() for logits in self.model.judge(users, past, groups)]
                tables = [[logits[..., 0] for logits in judged]]
            elif isinstance(self.model, MF | TwoTower) or (isinstance(self.model, LightGCN) and self.classes):
                others = asked_items(self.listing, self.aligning, batch, self.num_items)
                histories: list[Tensor] = []
                if lesson.gates is not None:  # whose lists stand after all other requests
                    others.append((lesson.gates[0].reshape(-1), False))
                    histories.append(batch.list_past.items.reshape(-1))
                others += [] if self.classes is None else self.classes.asked(batch)
                asked, alike = [items for items, _ in others], [alike for _, alike in others]
                views = encode_widths(self.model, users, past, groups, asked, histories, alike, self.nested)
                tables = [[score.float() for score in view.scores] for view in views]
                if isinstance(self.model, LightGCN):
                    tables = [self.model.shifted(scores, groups) for scores in tables]
            else:
                tables = [[score.float() for score in self.model.score(users, past, groups)]]
            spoken = (
                list[Tensor]() if self.partner is None else [s.float() for s in self.partner.score(users, past, groups)]
            )
        collides = self._collides(batch, wanted)
        tasks = [self._task(batch, scores[0][:, 0], scores[1], collides) for scores in tables]
        found = {"task": self.task * averaged(tasks).sum() / batch.count}
        encoded = views[-1] if views else None
        if self.classes is not None and encoded is not None:
            found |= self._classes(self.classes, encoded, seat, batch)
        for i, (name, weight) in enumerate(self.heads.items(), start=1):
            each = task_losses.told(judged[0][:, 0, i], batch.tasks[name])
            found[f"task.{name}"] = weight * each.sum() / batch.count
        if spoken:
            found["partner"] = self._task(batch, spoken[0][:, 0], spoken[1], collides).sum() / batch.count
        owns = own_of(self.own, self.nested)
        seen = zip(tables, views or [None], owns, strict=True)
        values = all_averaged([self._values(s, v, own, plain, batch, seat, spoken) for s, v, own in seen])
        found |= self._weighed(values, found["task"], encoded, batch)
        if self.actor is not None and self.training:
            self.actor.hear(found["task"].detach(), batch.step)
        return found if part.task else found | {"task": 0.0 * found["task"]}

    def _values(
        self,
        scores: Sequence[Tensor],
        encoded: Encoded | None,
        own: Mapping[str, nn.Module],
        plain: Sequence[ListTerm],
        batch: Batch,
        seat: Seat,
        spoken: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Return the value of each term, of the student that has these scores and vectors, and modules of its `own`."""
        compared = list_scores(self.listing, plain, batch, seat, scores, encoded, own, self._temperature)
        if spoken:
            compared = live(self.listing, plain, compared, spoken)
        values = self._list_values(compared, batch)
        if encoded is not None:
            values |= align_values(self.aligning, batch, seat, self.listing, encoded, own)
            if isinstance(self.model, TwoTower) and batch.lesson.gates is not None:
                apart = look(self.model, encoded, seat.listed, batch.list_past.items, *batch.lesson.gates)
                values |= {term.name: apart.mean() for term in self.gating}
        return values

    def _classes(self, classes: Classes, encoded: Encoded, seat: Seat, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the teacher's sub-logits, which are of its vectors as labels keep them."""
        left = encoded.left[seat.own].float() / self._temperature
        positives, negatives = (vectors.float() for vectors in encoded.others[-2:])
        if isinstance(self.model, LightGCN):
            asked = zip((positives, negatives), (items for items, _ in classes.asked(batch)), strict=True)
            left, (positives, negatives) = self.model.prior_beside(left, *asked)
        return classes(left, positives, negatives, batch)

    @property
    def _temperature(self) -> float:
        return 1.0 if isinstance(self.model, Ranker) else self.model.temperature

    def _seated(self, batch: Batch) -> tuple[Tensor, Past, Seat]:
        """Return everybody a step asks for, and who is where: the batch, the list users, the crowd of item lists."""
        users, past, lesson = batch.users, batch.past, batch.lesson
        size, listed = len(users), len(batch.list_users)
        if not listed and lesson.crowd is None:
            return users, past, Seat(slice(None), slice(0, 0), size)
        users, past = torch.cat([users, batch.list_users]), joined(past, batch.list_past)
        if lesson.crowd is not None:
            users, past = torch.cat([users, lesson.crowd]), joined(past, cast(Past, lesson.crowd_past))
        return users, past, Seat(slice(size), slice(size, size + listed), size + listed)

    def _collides(self, batch: Batch, wanted: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return where a negative is the positive itself; None where that is asked of no loss."""
        everything = batch.negatives.dim() == 1 and len(batch.negatives) == self.num_items
        return None if self.loss == "bpr" or everything else meetings(wanted, batch.negatives)

    def _task(
        self, batch: Batch, positive: Tensor, negatives: Tensor, collides: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        if self.loss == "bpr":
            return task_losses.bpr(positive, negatives)
        if batch.positives.dim() == 2:
            negatives = negatives.masked_fill(read(batch.past.items, batch.positives, batch.negatives), FAR)
        if collides is None:
            return task_losses.full_softmax(positive, negatives)
        share = math.log(negatives.shape[1] / self.num_items)
        return task_losses.sampled_softmax(positive, negatives, collides, log_share=share)

    def _list_values(self, compared: Mapping[str, tuple[Tensor, Candidates]], batch: Batch) -> dict[str, Tensor]:
        """Return the value of each list term, and the loss of each network that adapts what is taught."""
        values: dict[str, Tensor] = {}
        for term in self.listing:
            student, candidates = compared[term.name]
            if term.adapted is not None:
                network = self.own[f"{key(term)}_adapted"]
                values[f"{term.name}.adapter"], candidates = adapt(network, candidates)
            values[term.name] = term.value(student, candidates, batch.count, batch.lesson.at)
        return values

    def _weighed(
        self, values: Mapping[str, Tensor], task: Tensor, encoded: Encoded | None, batch: Batch
    ) -> dict[str, Tensor]:
        """Return each term's value times its weight, its part of the schedule, and what balances it with the task."""
        if encoded is not None and self.balance.names and self.training:
            self.balance.update(task, values, (encoded.shared, encoded.found), batch.step, encoded.alike)
        found = dict[str, Tensor]()
        for term in (*self.listing, *self.aligning, *self.gating):
            weight = term.weight * batch.lesson.curves.get(term.name, 1.0)
            scale = self.balance.scale(term.name) if term.balance else 1.0
            if self.actor is not None:
                scale = scale * self.actor.scale(term.name)
            found[term.name] = weight * scale * values[term.name]
            if (extra := f"{term.name}.adapter") in values:
                assert isinstance(term, ListTerm)
                assert term.adapted is not None
                found[extra] = term.adapted[1] * values[extra]
        return found


def _asked(items: Tensor) -> Tensor:
    """Return the items [R,K] that a term scores; one row [K] where they are the same for every row."""
    return items[0] if len(items) > 1 and items.stride(0) == 0 else items


def _own(term: ListTerm) -> bool:
    """Say whether the scores of a term over lists are made apart from the batch's own."""
    return bool(term.in_batch) or term.rest or term.subs or term.gradient is not None


def _modules(
    terms: Sequence[Term], widths: Widths, space: Space, temperature: float, nested: Sequence[int]
) -> dict[str, nn.Module]:
    """Return what the terms train of their own."""
    own: dict[str, nn.Module] = {}
    for term in terms:
        if isinstance(term, AlignTerm):
            taught = {"users": widths.users, "items": widths.items}
            for side, called in ((side, f"{key(term)}_{side}") for side in term.sides):
                own[called] = align.build(term.loss, widths.student, taught[side])
                own |= {named(called, width): align.build(term.loss, width, taught[side]) for width in nested}
            continue
        if isinstance(term, GatesTerm):
            continue
        if term.subs:
            first = noise(widths.student, space, temperature)
            own[f"{key(term)}_subs"] = SubLogits(widths.student, widths.subs // 2, noise=first)
        if term.exit:
            own[f"{key(term)}_head"] = Exit(space)
        elif term.gradient is not None:
            own[f"{key(term)}_head"] = Head(widths.shared, widths.student, term.gradient, space)
        if term.adapted is not None:
            own[f"{key(term)}_adapted"] = Adapted(term.adapted[0])
    return own


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
