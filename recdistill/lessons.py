"""What a step's distillation terms compare: drawn from the labels, and from what the student itself ranks first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from recdistill.data.sequences import Sequences, mapped
from recdistill.distill.draws import Lists, Seen, popularity_groups
from recdistill.distill.terms import AlignTerm, GatesTerm, ListTerm, Term
from recdistill.guide import Guide
from recdistill.parts import cut, of_rank
from recdistill.taught import Near, Scores, Sides, comparable, looks, neighbours, scores_of
from recdistill.types import Around, Candidates, Dataset, Float, Int, Interactions, Labels, Lesson, Past, Vectors
from recdistill.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """Everything that lessons are drawn from; each is a function of the step, the rows and the generator alone."""

    terms: Sequence[Term]
    labels: Labels | None
    users: Seen  # of every user, then of every history that nobody had: rows are set for a step
    items: Seen  # of every item
    groups: Mapping[int, Tensor]  # number of popularity groups -> the group of each item [I]
    tables: Mapping[str, Sides]  # align term -> what it is to come near to, of all users and items
    near: Mapping[str, Near]  # align term -> neighbours and weights of all users, of all items
    guide: Guide | None
    sequences: Sequences
    history: int
    steps: int  # of the whole training

    @property
    def asks_items(self) -> bool:
        """Say whether a step needs items of its own: for lists of users, or vectors."""
        return any(isinstance(t, AlignTerm) or (isinstance(t, ListTerm) and t.side == "items") for t in self.terms)

    @property
    def asks_users(self) -> bool:
        """Say whether a step needs users beside those of its batch."""
        return any(not isinstance(t, ListTerm) or (t.side == "users" and not t.in_batch) for t in self.terms)

    @property
    def asks_batch(self) -> bool:
        """Say whether a term compares the first of the batch's negatives, which are then in no order."""
        return any(isinstance(t, ListTerm) and t.in_batch for t in self.terms)

    @property
    def widths(self) -> tuple[int, int]:
        """Return how long the teacher's vectors are that users and items are compared with; 0 where none are."""
        return next(((left.shape[1], right.shape[1]) for left, right in self.tables.values()), (0, 0))

    @property
    def follows(self) -> bool:
        """Say whether what is drawn depends on what the student has learned by then."""
        return self.guide is not None

    def kept(self) -> Tensor | None:
        """Return the users whose lists are compared now; None for all of them."""
        return None if self.guide is None else self.guide.kept()

    def prepare(self, step: int) -> None:
        """Bring what the student ranks first up to date where it is time to; collective."""
        if self.guide is not None:
            self.guide.prepare(step)

    def draw(
        self,
        step: int,
        users: Tensor,
        items: Tensor,
        world: World,
        generator: Generator,
        histories: Tensor | None = None,
    ) -> Lesson:
        """Return this rank's part of what is compared for `users` and `histories` [R together], and `items` [Q]."""
        candidates: dict[str, Candidates] = {}
        crowd: list[Tensor] = []
        features: dict[str, Sides] = {}
        kept: dict[str, Tensor] = {}
        around: dict[str, Around] = {}
        mine, own = world.slice(len(users)), world.slice(len(items))
        rows, parts = users, [mine]
        if histories is not None and len(histories):
            assert not self.tables, "nobody has no vector to come near to"
            rows = torch.cat([users, self._num_users + histories])
            parts = of_rank(world, len(users), len(histories))
        whole = dict(self._drawn(rows, items, generator))
        for term in self.terms:
            found = whole.get(term.name)
            if found is not None:
                candidates[term.name] = cut(found, *([own] if getattr(term, "side", "") == "items" else parts))
        for term in self.terms:
            if isinstance(term, ListTerm) and term.side == "items":
                crowd.append(candidates[term.name].items.reshape(-1))
        for term in self.terms:
            if not isinstance(term, AlignTerm):
                continue
            left, right = self.tables[term.name]
            features[term.name] = left[users[mine]], right[items[own]]
            if term.preserve is not None:
                kept[term.name] = right[candidates[term.name].items.reshape(-1).clamp(min=0)]
            if term.filter is not None:
                by_user, by_item = self.near[term.name]
                around[term.name] = Around(
                    users=by_user[0][users[mine]],
                    user_weights=by_user[1][users[mine]],
                    items=by_item[0][items[own]],
                    item_weights=by_item[1][items[own]],
                )
                if "users" in term.sides:
                    crowd.append(around[term.name].users.reshape(-1))
        everyone = torch.cat(crowd) if crowd else None
        share = step / self.steps
        return Lesson(
            candidates=candidates,
            features=features,
            kept=kept,
            around=around,
            items=items[own] if self.asks_items else None,
            gates=looks(self.labels, users[mine]) if any(isinstance(t, GatesTerm) for t in self.terms) else None,
            crowd=everyone,
            crowd_past=None if everyone is None else self._past(everyone),
            at=share,
            curves={term.name: term.curve.at(share) for term in self.terms},
        )

    def of_batch(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Iterator[tuple[str, Candidates]]:
        """Yield what the terms over the batch's own items compare: users [B], positives [B], negatives [N] or [B,N]."""
        for term in self.terms:
            if not isinstance(term, ListTerm) or not term.in_batch:
                continue
            part, first = negatives[..., : term.in_batch], positives.unsqueeze(1)
            part = part.expand(len(users), -1)
            items = torch.cat([first, part.masked_fill(part == first, -1)], dim=1)
            teacher = torch.full(items.shape, -torch.inf)
            if self.labels is not None and self.labels.vectors is not None and term.teacher == "labels":
                score = scores_of(self.labels.vectors, users.numpy())
                teacher = torch.cat([score(first), score(part)], dim=1)  # shared negatives are one product
            logq = torch.full(items.shape, math.log(part.shape[1] / self.users.num_items))
            logq[:, 0] = 0.0
            found = Candidates(items=items, teacher=teacher, ranked=1, logq=logq if term.debiased else None)
            yield term.name, found if term.target is None else term.target(found)

    def _past(self, users: Tensor) -> Past:
        return self.sequences.latest(users.clamp(min=0), self.history)

    def _drawn(self, users: Tensor, items: Tensor, generator: Generator) -> Iterator[tuple[str, Candidates]]:
        lists: dict[str, Lists] = {}
        for term in self.terms:
            if isinstance(term, AlignTerm):
                if term.preserve is not None:
                    yield term.name, term.candidates(self._lists(users, "labels", 0), generator)
                continue
            if isinstance(term, GatesTerm) or term.in_batch:
                continue
            rows = items if term.side == "items" else users
            asked = f"{term.side}.{term.teacher}.{term.groups}"
            if asked not in lists:
                make = self._by_item if term.side == "items" else self._lists
                lists[asked] = make(rows, term.teacher, term.groups)
            yield term.name, term.candidates(lists[asked], generator, self._score(rows.numpy(), term.side))

    def _lists(self, users: Tensor, teacher: str, groups: int) -> Lists:
        rows, guide = users.numpy(), self.guide
        mine = None if guide is None else guide.student(rows)
        other = None if guide is None else guide.partner(rows)
        seen = self.users._replace(users=users)
        if teacher == "labels":
            assert self.labels is not None
            found, scores = map(torch.from_numpy, self._taken(rows))
            fused = None if guide is None else guide.fused(rows)
            said = self.labels.trust
            trust = None if said is None else torch.from_numpy(said[rows])
            return Lists(found, scores, seen, mine, fused, groups=self.groups.get(groups), trust=trust)
        taught, teaches = (mine, other) if teacher == "partner" else (other, mine)
        teaches = torch.zeros(len(users), 0, dtype=torch.int64) if teaches is None else teaches
        nothing = torch.full(teaches.shape, -torch.inf)
        return Lists(teaches, nothing, seen, student=taught, groups=self.groups.get(groups))

    def _by_item(self, items: Tensor, teacher: str, groups: int) -> Lists:  # noqa: ARG002
        assert self.labels is not None
        assert self.labels.by_item is not None
        found, scores = map(torch.from_numpy, self.labels.by_item.take(items.numpy()))
        mine = None if self.guide is None else self.guide.by_item(items.numpy())
        return Lists(found, scores, self.items._replace(users=items), student=mine)

    def _score(self, rows: Int, side: str) -> Scores | None:
        if self.labels is None or self.labels.vectors is None:
            return None
        given = self.labels.vectors
        if side == "items":
            return scores_of(Vectors(users=given.items, items=given.users, space=given.space), rows)
        users, histories = self._split(rows)
        left = given.users[users]
        if len(histories):
            assert self.labels.transfer is not None
            said = self.labels.transfer[0].vectors
            assert said is not None
            left = np.concatenate([left, said.users[histories]])
        return Scores(torch.from_numpy(left), torch.from_numpy(np.asarray(given.items)), self.labels.subclasses)

    @property
    def _num_users(self) -> int:
        return self.items.num_items  # what is listed for an item is users

    def _split(self, rows: Int) -> tuple[Int, Int]:
        """Return the users among `rows`, and the histories after them, which are numbered on from the last user."""
        count = int((rows < self._num_users).sum())
        return rows[:count], rows[count:] - self._num_users

    def _taken(self, rows: Int) -> tuple[Int, Float]:
        """Return the lists of users and histories: items [n,K] and scores [n,K]."""
        assert self.labels is not None
        users, histories = self._split(rows)
        if not len(histories):
            return self.labels.take(users)
        assert self.labels.transfer is not None
        assert self.guide is None, "the student's own lists are of users"
        (items, scores), (more, said) = self.labels.take(users), self.labels.transfer[0].take(histories)
        return np.concatenate([items, more]), np.concatenate([scores, said])


def make_lessons(
    dataset: Dataset,
    labels: Labels | None,
    terms: Sequence[Term],
    guide: Guide | None,
    sequences: Sequences,
    history: int,
    steps: int,
) -> Lessons:
    """Return what the lessons of `terms` are drawn from; the teacher's vectors are made comparable here."""
    train = dataset.train
    users, items = mapped(train.users()), mapped(train.items)
    counts = torch.bincount(items, minlength=dataset.num_items)
    nobody = torch.zeros(0, dtype=torch.int64)
    tables: dict[str, Sides] = {}
    near: dict[str, Near] = {}
    aligning = [term for term in terms if isinstance(term, AlignTerm)]
    if aligning:
        assert labels is not None
        assert labels.vectors is not None
        table = comparable(labels.vectors)
        for term in aligning:
            tables[term.name] = table
            if term.filter is not None:
                near[term.name], tables[term.name] = neighbours(dataset, table, **term.filter)
    return Lessons(
        terms=terms,
        labels=labels,
        users=Seen(nobody, _keys(train, labels, dataset.num_items), dataset.num_items),
        items=Seen(nobody, (items * dataset.num_users + users).sort().values, dataset.num_users),
        groups={n: popularity_groups(counts, n) for n in {getattr(t, "groups", 0) for t in terms} - {0}},
        tables=tables,
        near=near,
        guide=guide,
        sequences=sequences,
        history=history,
        steps=steps,
    )


def _keys(train: Interactions, labels: Labels | None, num_items: int) -> Tensor:
    """Return the sorted user * num_items + item of all that users took, then of the histories that nobody had."""
    logs = [train] if labels is None or labels.transfer is None else [train, labels.transfer[1].interactions]
    owners = np.concatenate([log.users() + first for log, first in zip(logs, (0, train.num_users), strict=False)])
    return torch.from_numpy(owners * num_items + np.concatenate([log.items for log in logs])).sort().values
