"""From what a user writes of a term to the term: draws, targets, loss and signal found by their names, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial as given
from typing import Any

import torch
from torch import Tensor

from recdistill.distill import blend, draws, grouped, guided, losses, partial, paths, rectify, subclass, targets
from recdistill.distill.schedule import Curve, risen
from recdistill.distill.signals import treatment
from recdistill.distill.spec import AlignTermSpec, GatesTermSpec, ListTermSpec, TermSpec, trusts
from recdistill.distill.spec_signals import RightFirst
from recdistill.distill.spec_targets import Adapted, of_the_step
from recdistill.distill.terms import AlignTerm, GatesTerm, ListTerm, Term
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
    "own": draws.own,
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
    "grouped_kl": grouped.grouped_kl,
    "hinge_mse": grouped.hinge_mse,
    "path": paths.path,
    "subclass_kl": subclass.subclass_kl,
}
TARGETS: dict[str, Callable[..., Any]] = {
    "rank": targets.rank,
    "scale": targets.scale,
    "adjust": targets.adjust,
    "smooth": partial.smooth,
    "pt": partial.pt,
    "topk": partial.topk,
    "rectify": rectify.rectify,
    "blend": blend.blend,
}


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
    if isinstance(spec, GatesTermSpec):
        return GatesTerm(name=f"{position}.gates", weight=spec.weight, balance=spec.balance, curve=curve)
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
    kinds, whole = [t.kind for t in spec.target], getattr(spec.loss, "whole", False)
    changes = _changes(spec, counts)
    loss, dynamic = _loss(spec, curve, num_items)
    grouped = spec.loss if spec.loss.kind == "grouped_kl" else None
    groups = [d.groups for d in ordered if d.kind == "pairs"]
    if grouped is not None and grouped.by == "popularity":
        groups = [grouped.groups]
    return ListTerm(
        name=f"{position}.{spec.loss.kind}",
        weight=spec.weight,
        draws=[
            given(DRAWS[d.kind], **d.model_dump(exclude={"kind"}), **({"logq": whole} if d.kind == "unseen" else {}))
            for d in ordered
            if d.kind not in ("in_batch", "rest")
        ],
        num_ranked=next((d.k for d in ordered if d.kind == "closure"), None),
        lead=sum(not below(d) for d in ordered),
        loss=loss,
        kind=spec.loss.kind,
        scored=spec.loss.needs != "rank" and "rank" not in kinds,
        sampled=whole,
        target=given(_in_turn, changes=changes) if changes else None,
        side=spec.side,
        groups=groups[0] if groups else 0,
        teacher=spec.teacher,
        in_batch=next((d.n for d in ordered if d.kind == "in_batch"), 0),
        rest=any(d.kind == "rest" for d in ordered),
        debiased="debias" in kinds,
        free=getattr(spec.loss, "level", "given") == "free",
        total=spec.compat == "sum",
        balance=spec.balance,
        curve=curve,
        dynamic=dynamic,
        told=asks_taken(spec),
        parts=0 if grouped is None else grouped.parts,
        subs=spec.loss.kind == "subclass_kl",
        similar=next((t.temperature for t in spec.target if t.kind == "sim"), None),
        half_way=next((t.step for t in spec.target if t.kind == "half_way"), None),
        trusts=trusts(spec),
        right=spec.signal.k if isinstance(spec.signal, RightFirst) else None,
        auto=any(t.kind == "blend" and t.teacher == "auto" for t in spec.target),
        signal=None if spec.signal is None else treatment(spec.signal.model_dump(), curve.epochs),
        gradient=1.0 if spec.exit else None if spec.head is None else spec.head.gradient,
        exit=spec.exit,
        adapted=next(((t.hidden, t.loss) for t in spec.target if isinstance(t, Adapted)), None),
    )


def _loss(
    spec: ListTermSpec, curve: Curve, num_items: int
) -> tuple[Callable[..., Tensor], Callable[[float], float] | None]:
    """Return the loss with its settings, and what it is told of how far the training is, if it asks."""
    loss = spec.loss
    settings = loss.model_dump(exclude={"kind", "whole", "start", "level", "by", "groups", "hottest"})
    dynamic: Callable[[float], float] | None = None
    if loss.kind == "hard_bce":
        settings["num_items"] = num_items
        dynamic = replace(curve, switch=loss.start).switched
    if loss.kind == "hinge_mse":
        dynamic = given(risen, hottest=loss.hottest)
    if loss.kind == "grouped_kl":
        settings |= {"parts": loss.parts, "within": loss.within or None}
    return given(LOSSES[loss.kind], **settings), dynamic


def _changes(spec: ListTermSpec, counts: Tensor | None) -> list[Callable[..., Any]]:
    """Return the targets that are functions of the candidates alone, with their settings."""
    known = {"adjust": {} if counts is None else {"log_counts": torch.log1p(counts.double()).float()}}
    return [
        blend.trusted
        if t.kind == "blend" and t.teacher == "reliable"
        else given(TARGETS[t.kind], **t.model_dump(exclude={"kind"}), **known.get(t.kind, {}))
        for t in spec.target
        if t.kind in TARGETS and not of_the_step(t)
    ]


def asks_taken(spec: ListTermSpec) -> bool:
    """Say whether a target, the loss or the signal of a term asks which of its items the user took."""
    of_loss = spec.loss.kind == "grouped_kl" and spec.loss.by == "taken"
    of_signal = spec.signal is not None and spec.signal.kind == "right_first"
    return of_loss or of_signal or any(t.kind in ("smooth", "pt", "sim", "rectify", "blend") for t in spec.target)


def below(draw: Any) -> bool:
    """Say whether what `draw` gives stands below the teacher's list, in no order of its own."""
    return draw.kind in ("unseen", "rest", "own", "whole", "student_top", "student_ranked") or (
        draw.kind == "rank_gap" and draw.side == "over"
    )


def _in_turn(candidates: Candidates, changes: Sequence[Callable[..., Any]]) -> Candidates:
    for change in changes:
        candidates = change(candidates)
    return candidates
