"""Distillation terms: what each draws for a step's rows, and what it makes of the student's scores or vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from recdistill.distill import draws, guided, losses, targets
from recdistill.distill.draws import own_items
from recdistill.distill.schedule import Curve
from recdistill.distill.spec import AlignTermSpec, ListTermSpec, TermSpec
from recdistill.distill.spec_lists import Adapted
from recdistill.types import Candidates

DRAWS: dict[str, Callable[..., draws.Draw]] = {
    "top": draws.top,
    "ranked": draws.ranked,
    "unseen": draws.unseen,
    "pairs": draws.pairs,
    "student_top": guided.student_top,
    "student_ranked": guided.student_ranked,
    "rank_gap": guided.rank_gap,
    "closure": guided.closure,
    "trajectory": guided.fused,
    "whole": guided.whole,
}
LOSSES: dict[str, Callable[..., Tensor]] = {
    "softmax_kl": losses.softmax_kl,
    "list_ce": losses.list_ce,
    "gated_kl": losses.gated_kl,
    "soft_bce": losses.soft_bce,
    "normalised_ce": losses.normalised_ce,
    "logit_mse": losses.logit_mse,
    "margin_mse": losses.margin_mse,
    "plackett_luce": losses.plackett_luce,
    "sampled_pl": losses.sampled_pl,
    "independent": losses.independent,
    "hard_bce": losses.hard_bce,
    "pairwise": losses.pairwise,
}
TARGETS: dict[str, Callable[..., Any]] = {"rank": targets.rank, "scale": targets.scale, "adjust": targets.adjust}


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
    total: bool = False
    balance: bool = False
    curve: Curve = field(default_factory=Curve)
    gradient: float | None = None  # of the term's own head as it reaches the shared vectors; None: it has none
    adapted: tuple[int, float] | None = None  # hidden width and loss weight of the network that adapts the teacher
    switches: bool = False  # the loss has a second form, which it takes on when told that it is `dynamic`

    def candidates(
        self, lists: draws.Lists, generator: Generator, score: Callable[[Tensor], Tensor] | None = None
    ) -> Candidates:
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
        return found if self.target is None else self.target(found)

    def value(self, student: Tensor, candidates: Candidates, rows: float, at: float = 0.0) -> Tensor:
        """Return the mean over the rows of `student` [R,K]; `compat: sum` gives the sum over items, by `rows`."""
        if self.debiased and candidates.logq is not None:
            student, teacher = student - candidates.logq, candidates.teacher - candidates.logq
            candidates = replace(candidates, teacher=teacher, logq=None)
        if self.free:
            student = levelled(student, candidates)
        late = {"dynamic": self.curve.switched(at)} if self.switches else {}
        each = self.loss(student, candidates, **late)
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


Term = ListTerm | AlignTerm


def key(term: Term) -> str:
    """Return what the modules of a term are called: a module's name has no dot."""
    return term.name.replace(".", "_")


def make_terms(specs: Sequence[TermSpec], *, num_items: int, epochs: int, counts: Tensor | None = None) -> list[Term]:
    """Return the terms that `specs` describe, over `num_items` items and at most `epochs` epochs.

    `counts` [I] are the interactions of each item, which an adjusted target reads.
    """
    return [make_term(spec, i, num_items=num_items, epochs=epochs, counts=counts) for i, spec in enumerate(specs)]


def make_term(
    spec: TermSpec, position: int, *, num_items: int = 0, epochs: int = 1, counts: Tensor | None = None
) -> Term:
    """Return the term that `spec` describes; ranked draws come first, whatever order they were written in."""
    curve = Curve(**spec.phase.model_dump(), epochs=epochs)
    if isinstance(spec, AlignTermSpec):
        return AlignTerm(
            name=f"{position}.{spec.loss.kind}",
            weight=spec.weight,
            sides=spec.sides,
            loss=spec.loss.model_dump(),
            filter=None if spec.filter is None else spec.filter.model_dump(),
            preserve=None if spec.preserve is None else spec.preserve.model_dump(),
            balance=spec.balance,
            curve=curve,
        )
    return _list_term(spec, position, curve, num_items, counts)


def _list_term(spec: ListTermSpec, position: int, curve: Curve, num_items: int, counts: Tensor | None) -> ListTerm:
    ordered = sorted(spec.draw, key=below)
    in_batch = next((d.n for d in ordered if d.kind == "in_batch"), 0)
    settings = spec.loss.model_dump(exclude={"kind", "whole", "start", "level"})
    if spec.loss.kind == "hard_bce":
        settings["num_items"] = num_items
    kinds, whole = [t.kind for t in spec.target], getattr(spec.loss, "whole", False)
    known = {"adjust": {} if counts is None else {"log_counts": torch.log1p(counts.double()).float()}}
    changes = [
        partial(TARGETS[t.kind], **t.model_dump(exclude={"kind"}), **known.get(t.kind, {}))
        for t in spec.target
        if t.kind in TARGETS
    ]
    late = getattr(spec.loss, "start", None)
    return ListTerm(
        name=f"{position}.{spec.loss.kind}",
        weight=spec.weight,
        draws=[
            partial(DRAWS[d.kind], **d.model_dump(exclude={"kind"}), **({"logq": whole} if d.kind == "unseen" else {}))
            for d in ordered
            if d.kind not in ("in_batch", "rest")
        ],
        num_ranked=next((d.k for d in ordered if d.kind == "closure"), None),
        lead=sum(not below(d) for d in ordered),
        loss=partial(LOSSES[spec.loss.kind], **settings),
        kind=spec.loss.kind,
        scored=spec.loss.needs != "rank" and "rank" not in kinds,
        sampled=whole,
        target=partial(_in_turn, changes=changes) if changes else None,
        side=spec.side,
        groups=next((d.groups for d in ordered if d.kind == "pairs"), 0),
        teacher=spec.teacher,
        in_batch=in_batch,
        rest=any(d.kind == "rest" for d in ordered),
        debiased="debias" in kinds,
        free=getattr(spec.loss, "level", "given") == "free",
        total=spec.compat == "sum",
        balance=spec.balance,
        curve=curve if late is None else replace(curve, switch=late),
        switches=late is not None,
        gradient=None if spec.head is None else spec.head.gradient,
        adapted=next(((t.hidden, t.loss) for t in spec.target if isinstance(t, Adapted)), None),
    )


def below(draw: Any) -> bool:
    """Say whether what `draw` gives stands below the teacher's list, in no order of its own."""
    return draw.kind in ("unseen", "rest", "whole", "student_top", "student_ranked") or (
        draw.kind == "rank_gap" and draw.side == "over"
    )


def levelled(student: Tensor, candidates: Candidates) -> Tensor:
    """Return each row of `student` [R,K] shifted so that its mean over what is compared is the teacher's."""
    known = (candidates.items >= 0) & torch.isfinite(candidates.teacher)
    apart = (candidates.teacher.masked_fill(~known, 0.0) - student).masked_fill(~known, 0.0).sum(1, keepdim=True)
    return student + apart / known.sum(1, keepdim=True).clamp(min=1)


def _with_rest(items: Tensor, teacher: Tensor, logq: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return a list's columns and one more, of an item that stands for all others; the teacher says nothing of it."""
    if logq is not None:
        logq = pad(logq, (0, 1))
    return pad(items, (0, 1)), pad(teacher, (0, 1), value=-torch.inf), logq


def _in_turn(candidates: Candidates, changes: Sequence[Callable[..., Any]]) -> Candidates:
    for change in changes:
        candidates = change(candidates)
    return candidates
