"""Distillation terms: what each draws for a step's rows, and what it makes of the student's scores or vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from recdistill.distill import draws, losses, targets
from recdistill.distill.blend import best_weight, blend
from recdistill.distill.draws import own_items, owned
from recdistill.distill.partial import sim
from recdistill.distill.rectify import among_first
from recdistill.distill.schedule import Curve
from recdistill.distill.signals import Treated
from recdistill.types import Candidates


class Score(Protocol):
    """The teacher's scores of items [R,n], as products of vectors; `right` [I,D] are those of the items.

    `subs` gives its sub-logits of them, [R,n,2S].
    """

    @property
    def right(self) -> Tensor: ...

    def __call__(self, items: Tensor) -> Tensor: ...

    def subs(self, items: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ListTerm:
    """Compares the student's scores with the teacher's on the items its draws choose."""

    name: str
    weight: float
    draws: Sequence[Callable[[draws.Lists, Generator], draws.Draw]]
    num_ranked: int | None = None  # columns in teacher order; None: those of the first `lead` draws
    lead: int = 0
    loss: Callable[..., Tensor]
    kind: str  # of the loss, whose rows `compat: sum` multiplies back
    scored: bool = False  # the loss reads scores, so what the lists do not score is scored by the teacher's vectors
    sampled: bool = False  # sampled draws stand for all that is not in the list
    target: Callable[[Any], Any] | None = None
    side: str = "users"
    groups: int = 0  # of popularity, that pairs are drawn in
    teacher: str = "labels"
    rest: bool = False  # the student's scores of all that is not in the list stand as one below it
    in_batch: int = 0  # items of each row of the batch: its positive and so many negatives
    debiased: bool = False
    free: bool = False  # the level of a row's scores is not compared
    told: bool = False  # somebody asks which items the row's user took
    parts: int = 0  # of the list, that its loss tells apart: 2 where `told`, else groups of popularity
    subs: bool = False  # sub-logits are compared too, the student's those of a head of the term's own
    similar: float | None = None  # temperature at which likeness to what was taken is taught in place of scores
    half_way: float | None = None  # how far from the student's own scores to the teacher's it is taught
    trusts: bool = False  # somebody asks how far the teacher is to be trusted
    right: int | None = None  # among how many of its first the teacher must have something taken to be right
    auto: bool = False  # teacher and what was taken are blended so that the gradient has the least noise
    signal: Callable[[Tensor, Candidates, float], Treated] | None = None
    total: bool = False
    balance: bool = False
    curve: Curve = field(default_factory=Curve)
    gradient: float | None = None  # of the term's own head as it reaches the shared vectors; None: it has none
    exit: bool = False  # the last hidden layer is what is compared
    adapted: tuple[int, float] | None = None  # hidden width and loss weight of the network that adapts the teacher
    dynamic: Callable[[float], float] | None = None  # what the loss is told of how far the training is

    def candidates(self, lists: draws.Lists, generator: Generator, score: Score | None = None) -> Candidates:
        """Draw what to compare for each row of `lists`; `score` gives the teacher's scores of any items [R,n]."""
        drawn = [draw(lists, generator) for draw in self.draws]
        alone = len(drawn) == 1  # then what is one row in memory stays so
        items = drawn[0].items if alone else torch.cat([d.items for d in drawn], dim=1)
        teacher = drawn[0].scores if alone else torch.cat([d.scores for d in drawn], dim=1)
        if self.scored and self.teacher == "labels" and score is not None:
            unknown = ~torch.isfinite(teacher) & (items >= 0)
            if bool(unknown.any()):
                teacher = torch.where(unknown, score(items), teacher)
        logq = None
        if self.sampled:
            parts = [torch.zeros_like(d.scores) if d.logq is None else d.logq for d in drawn]
            logq = torch.cat(parts, dim=1)
        ranked = sum(d.items.shape[1] for d in drawn[: self.lead]) if self.num_ranked is None else self.num_ranked
        if self.rest:
            items, teacher, logq = _with_rest(items, teacher, logq)
        gate = next((d.gate for d in drawn if d.gate is not None), None)
        seen = own_items(lists.seen) if self.rest else None
        found = Candidates(items=items, teacher=teacher, ranked=ranked, logq=logq, gate=gate, seen=seen)
        if self.told:
            found = replace(found, taken=owned(lists, items))
        if self.parts:
            found = replace(found, parts=_parts(found, lists))
        if self.subs and score is not None:
            found = replace(found, subs=score.subs(items))
        if self.trusts:
            found = replace(found, trust=lists.trust)
        if self.similar is not None and score is not None:
            found = sim(found, vectors=score.right, temperature=self.similar)
        if self.right is not None:  # of the teacher as it is, whom a target may set right
            found = replace(found, right=among_first(found, self.right))
        return found if self.target is None else self.target(found)

    def value(self, student: Tensor, candidates: Candidates, rows: float, at: float = 0.0) -> Tensor:
        """Return the mean over the rows of `student` [R,K]; `compat: sum` gives the sum over items, by `rows`."""
        if self.debiased and candidates.logq is not None:
            student, teacher = student - candidates.logq, candidates.teacher - candidates.logq
            candidates = replace(candidates, teacher=teacher, logq=None)
        if self.free:
            student = levelled(student, candidates)
        if self.half_way is not None:
            candidates = targets.half_way(student, candidates, step=self.half_way)
        if self.auto:
            candidates = blend(candidates, teacher=best_weight(student, candidates))
        counts = None
        if self.signal is not None:
            counts, factor = self.signal(student.detach(), candidates, at)
            if factor is not None:
                student, candidates = student * factor, replace(candidates, teacher=candidates.teacher * factor)
        late = dict[str, float]() if self.dynamic is None else {"dynamic": self.dynamic(at)}
        each = self.loss(student, candidates, **late)
        each = each if counts is None else each * counts
        if not self.total:
            return each.mean()
        return (each * losses.counts(self.kind, candidates)).sum() / rows


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignTerm:
    """Compares the student's vectors, adapted, with the teacher's."""

    name: str
    weight: float
    sides: tuple[str, ...]
    loss: dict[str, Any]  # what `align.build` makes a module of, one for each side
    filter: dict[str, Any] | None = None
    preserve: dict[str, Any] | None = None
    balance: bool = False
    curve: Curve = field(default_factory=Curve)

    def candidates(self, lists: draws.Lists, generator: Generator) -> Candidates:
        """Draw the items whose ranking the adapter must keep."""
        assert self.preserve is not None
        k = self.preserve["k"]
        found = draws.ranked(lists, generator, k=k, temperature=self.preserve["draw_temperature"])
        return Candidates(items=found.items, teacher=found.scores, ranked=k)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatesTerm:
    """Compares which items of a history move the student's confidence with which move the teacher's."""

    name: str
    weight: float
    balance: bool = False
    curve: Curve = field(default_factory=Curve)


Term = ListTerm | AlignTerm | GatesTerm


def key(term: Term) -> str:
    """Return what the modules of a term are called: a module's name has no dot."""
    return term.name.replace(".", "_")


def levelled(student: Tensor, candidates: Candidates) -> Tensor:
    """Return each row of `student` [R,K] shifted so that its mean over what is compared is the teacher's."""
    known = (candidates.items >= 0) & torch.isfinite(candidates.teacher)
    apart = (candidates.teacher.masked_fill(~known, 0.0) - student).masked_fill(~known, 0.0)
    return student + (apart / known.sum(1, keepdim=True).clamp(min=1)).sum(1, keepdim=True)


def _parts(candidates: Candidates, lists: draws.Lists) -> Tensor:
    """Return in which part each item is: what was taken is the second of two; or its group of popularity."""
    if candidates.taken is not None:
        return candidates.taken.long()
    assert lists.groups is not None, "parts by popularity need the items' groups"
    return lists.groups[candidates.items.clamp(min=0)]


def _with_rest(items: Tensor, teacher: Tensor, logq: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return a list's columns and one more, of an item that stands for all others; the teacher says nothing of it."""
    if logq is not None:
        logq = pad(logq, (0, 1))
    return pad(items, (0, 1)), pad(teacher, (0, 1), value=-torch.inf), logq
