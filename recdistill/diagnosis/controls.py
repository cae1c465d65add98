"""Controls as labels and terms: what a student of a teacher is taught that lacks one thing, all else being equal.

A control of terms swaps what is taught; one of labels is a label store like any other, made from the run's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recdistill.diagnose.controls import NEVER, Population, mean_scores, one_list, population, strangers
from recdistill.distill.spec import ListTermSpec, TermSpec
from recdistill.distill.spec_draws import Draw, Own, Top, Unseen
from recdistill.distill.spec_lists import SoftmaxKL
from recdistill.distill.spec_targets import Pt, Scale, Smooth
from recdistill.labels import BY_ITEM, Layout, Lists, layout_of, write_shard
from recdistill.shards import finish
from recdistill.store import aside
from recdistill.types import Float, Int, Interactions, Labels

Kind = Literal["smooth", "pt", "strangers", "mean"]
OWN, UNSEEN, SHARE, K = 20, 80, 0.1, 100  # as in the presets of partial teachers
PLACES = ("top", "ranked", "pairs", "closure")  # draws of the teacher's list that say how many


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """What a control is called, and what its teacher lacks."""

    name: str
    lacks: str


CONTROLS: Mapping[Kind, Lacking] = {
    "smooth": Lacking(name="label smoothing", lacks="all it knows: what was taken shares 0.9, some other items 0.1"),
    "pt": Lacking(name="KD-pt", lacks="all but how sure it is of what was taken"),
    "strangers": Lacking(name="another user's lists", lacks="whose lists they are"),
    "mean": Lacking(name="population mean", lacks="the user: everybody is taught one list"),
}


def control_terms(kind: Kind, terms: Sequence[TermSpec], depth: int) -> tuple[TermSpec, ...]:
    """Return `terms` as the control `kind` is taught; those of which nothing would be left are left out.

    Terms of label smoothing and of KD-pt draw the head of the list, `depth` at most, some of what was taken and some
    of the rest, and compare by KL: no other loss reads them. Weights and phases stay.
    """
    if kind == "strangers":  # at which items of a history to look, nobody else's teacher says
        return tuple(term for term in terms if term.kind != "gates")
    found = []
    for term in terms:
        if isinstance(term, ListTermSpec) and term.teacher != "labels":
            found.append(term)  # who learns from or teaches a partner does so in any case
        elif isinstance(term, ListTermSpec) and term.side == "users" and not _along(term):
            found.append(term if kind == "mean" else _partial(kind, term, depth))
    return tuple(found)


def cooled_terms(terms: Sequence[TermSpec], temperature: float) -> tuple[TermSpec, ...]:
    """Return `terms` with the teacher's scores over `temperature`; none if no term reads the labels' scores."""
    found, changed = list[TermSpec](), False
    for term in terms:
        if isinstance(term, ListTermSpec) and term.teacher == "labels" and term.loss.needs != "rank":
            changed = True
            term = term.model_copy(update={"target": (*term.target, Scale(factor=1 / temperature))})
        found.append(term)
    return tuple(found) if changed else ()


def _along(term: ListTermSpec) -> bool:
    return any(draw.kind == "trajectory" for draw in term.draw)


def _partial(kind: Kind, term: ListTermSpec, depth: int) -> ListTermSpec:
    wanted = [getattr(draw, "k", getattr(draw, "n", K)) for draw in term.draw if draw.kind in PLACES]
    draws: tuple[Draw, ...] = (Top(k=min(max(wanted, default=K), depth)), Own(n=OWN), Unseen(n=UNSEEN))
    target = Smooth(share=SHARE) if kind == "smooth" else Pt()
    return term.model_copy(update={"draw": draws, "target": (target,), "loss": SoftmaxKL(), "signal": None})


def write_control(
    kind: Kind, labels: Labels, train: Interactions, out: Path, stamp: Mapping[str, str], *, seed: int
) -> dict[str, Any]:
    """Write the labels of the control `kind`, made from `labels`, to the store `out`; returns its facts.

    Those of label smoothing are the lists themselves, beside which every item is scored alike; there are none of their
    own for KD-pt, which reads the teacher's.
    """
    layout = replace(layout_of(labels.facts), stamp=stamp)
    facts = {
        name: labels.facts[name]
        for name in ("teacher", "recipe", "space", "folds", "exclude_seen", "joined")
        if name in labels.facts
    }
    seen = train if labels.facts.get("exclude_seen", True) else None
    if kind == "strangers":
        _write_strangers(labels, layout, out, seed)
    elif kind == "mean":
        layout = replace(layout, rest=0, along=(0, 0, 0))
        _write_mean(labels, layout, out, seen)
    else:
        layout = replace(layout, rest=0, along=(0, 0, 0))
        for shard in range(layout.shards):
            users = layout.users(shard)
            write_shard(out, layout, shard, Lists(*labels.take(users), labels.column("residual", users)))
        _write_vectors(out, np.zeros((layout.num_users, 1), np.float32), np.zeros((layout.num_items, 1), np.float32))
    return finish(out, layout, facts | {"control": kind}, train)


def _write_strangers(labels: Labels, layout: Layout, out: Path, seed: int) -> None:
    """Write everybody the lists of another user, and what stands beside them: whose they are is all that is wrong."""
    first = np.concatenate([shard[:, :1] for shard in labels.items]) if labels.items else np.zeros((0, 1), np.int64)
    source = strangers(first.astype(np.int64), seed)
    for shard in range(layout.shards):
        rows = source[layout.users(shard)]
        more = {name: labels.column(name, rows) for name in labels.extra}
        write_shard(out, layout, shard, Lists(*labels.take(rows), labels.column("residual", rows), **more))
    if labels.vectors is not None:
        _write_vectors(out, np.asarray(labels.vectors.users)[source], np.asarray(labels.vectors.items))
    if labels.by_item is not None:
        _write_by_item(labels.by_item, layout, out / BY_ITEM, np.argsort(source))


def _write_by_item(by_item: Labels, layout: Layout, out: Path, called: Int) -> None:
    """Write the lists of users with everybody called by the name of who has their lists, `called` [U]."""
    out.mkdir(exist_ok=True)
    other = replace(layout_of(by_item.facts), stamp=layout.stamp)
    for shard in range(other.shards):
        rows = other.users(shard)
        users, scores = by_item.take(rows)
        found = Lists(np.where(users >= 0, called[users], -1), scores, by_item.column("residual", rows))
        write_shard(out, other, shard, found)
    nobody = Interactions(indptr=np.zeros(other.num_users + 1, np.int64), items=np.zeros(0, np.int64))
    finish(out, other, {"side": "items"}, nobody)


def _write_mean(labels: Labels, layout: Layout, out: Path, seen: Interactions | None) -> None:
    """Write everybody the mean of the teacher's chances; an item in nobody's list has what the lists leave."""
    of = Population(np.zeros(layout.num_items), np.zeros(layout.num_items, np.int64))
    left, told = 0.0, 0
    for shard in range(layout.shards):
        users = layout.users(shard)
        items, scores = labels.take(users)
        part = population(items, scores, labels.column("residual", users), users, num_items=layout.num_items, seen=seen)
        known = int((items >= 0).any(1).sum())
        of = Population(of.mass + part.mass, of.could + part.could)
        left, told = left + known - float(part.mass.sum()), told + known
    mean = mean_scores(of)
    unlisted = mean <= NEVER
    outside = np.log(max(left / max(told, 1), 1e-9) / max(int(unlisted.sum()), 1))
    lowest = min(float(outside), float(mean[~unlisted].min(initial=0.0)))
    for shard in range(layout.shards):
        users = layout.users(shard)
        found = one_list(mean, users, layout.depth, seen=seen)
        rest = np.full(len(users), lowest + np.log(max(int(unlisted.sum()), 1)), np.float32)
        write_shard(out, layout, shard, Lists(found.items, found.scores, rest))
    filled = np.where(unlisted, np.float32(lowest), mean)[:, None]
    _write_vectors(out, np.ones((layout.num_users, 1), np.float32), filled)


def _write_vectors(out: Path, users: Float, items: Float) -> None:
    for name, vectors in (("users", users), ("items", items)):
        with aside(out / f"{name}.npy") as file, file.open("wb") as handle:
            np.save(handle, np.ascontiguousarray(vectors, dtype=np.float32))
