"""The label stores of controls, made from a run's own: of users, and of histories that nobody had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recdistill.diagnose.controls import NEVER, Population, mean_scores, one_list, population, strangers
from recdistill.diagnosis.controls import Kind
from recdistill.labels import BY_ITEM, TRANSFER, Layout, Lists, layout_of, write_histories, write_shard
from recdistill.models.heads import write_head_file
from recdistill.shards import finish
from recdistill.store import aside
from recdistill.types import Float, Int, Interactions, Labels

KEPT = ("teacher", "recipe", "space", "folds", "exclude_seen", "joined")  # facts that a control has of its source


class _Part(NamedTuple):
    """One store of lists: of users, or of histories that nobody had."""

    labels: Labels
    layout: Layout
    out: Path
    owners: Int  # [n] whose history each list is of
    seen: Interactions | None  # what is in no list, row by row


class _Mean(NamedTuple):
    """What everybody is told."""

    scores: Float  # [I] NEVER of an item that no list has
    lowest: float  # the score of each of these
    unlisted: int  # how many they are


def write_control(
    kind: Kind, labels: Labels, train: Interactions, out: Path, stamp: Mapping[str, str], *, seed: int
) -> dict[str, Any]:
    """Write the labels of the control `kind`, made from `labels`, to the store `out`; returns its facts.

    Those of label smoothing are the lists themselves, beside which every item is scored alike; there are none of their
    own for KD-pt, which reads the teacher's. Histories that nobody had are as many as in `labels`, and lack the same:
    each is given the lists of another one, of another user's items, or the one order that everybody is told.
    """
    exclude = labels.facts.get("exclude_seen", True)
    everybody = np.arange(labels.num_users)
    users = _Part(labels, replace(layout_of(labels.facts), stamp=stamp), out, everybody, train if exclude else None)
    parts = [users]
    if labels.transfer is not None:
        lists, synthetic = labels.transfer
        seen, nested = synthetic.interactions if exclude else None, out / TRANSFER
        nested.mkdir(exist_ok=True)
        write_histories(nested, synthetic)
        parts.append(_Part(lists, replace(layout_of(lists.facts), stamp=stamp), nested, synthetic.parents[:, 0], seen))
    if kind == "strangers":
        sources = [_write_strangers(part, seed) for part in parts]
        if labels.vectors is not None:
            _save(out, items=np.asarray(labels.vectors.items))  # once: beside histories items.npy is what they hold
        if labels.by_item is not None:
            _write_by_item(labels.by_item, users.layout, out / BY_ITEM, np.argsort(sources[0]))
        if labels.subclasses is not None:
            write_head_file(out, *labels.subclasses)
    else:
        parts = [part._replace(layout=replace(part.layout, rest=0, along=(0, 0, 0))) for part in parts]
        mean = _mean(parts[0]) if kind == "mean" else None
        level = np.zeros(labels.facts["num_items"]) if mean is None else np.maximum(mean.scores, mean.lowest)
        for part in parts:
            _write_lists(part) if mean is None else _write_mean(part, mean)
            _save(part.out, users=np.full((part.layout.num_users, 1), float(mean is not None)))
        _save(out, items=level[:, None])
        if labels.subclasses is not None:  # which then say no more than the classes: taken as the mean has it, or not
            sides = np.repeat(np.array([1.0, 0.0], np.float32), len(labels.subclasses[1]) // 2)
            write_head_file(out, sides[:, None], np.zeros_like(sides))
    facts: dict[str, Any] = {name: labels.facts[name] for name in KEPT if name in labels.facts} | {"control": kind}
    if labels.transfer is not None:
        facts |= {"transfer": labels.transfer[0].facts["transfer"]}
        told = {"side": "histories", "control": kind, "transfer": facts["transfer"]}
        finish(parts[1].out, parts[1].layout, told, labels.transfer[1].interactions)
    return finish(out, parts[0].layout, facts, train)


def _write_lists(part: _Part) -> None:
    """Write the lists as they are."""
    for shard in range(part.layout.shards):
        rows = part.layout.users(shard)
        lists = Lists(*part.labels.take(rows), part.labels.column("residual", rows))
        write_shard(part.out, part.layout, shard, lists)


def _write_strangers(part: _Part, seed: int) -> Int:
    """Write every row the lists of another, and what stands beside them: whose they are is all that is wrong.

    Returns the row whose lists each has, [n].
    """
    labels, layout = part.labels, part.layout
    first = np.concatenate([shard[:, :1] for shard in labels.items]) if labels.items else np.zeros((0, 1), np.int64)
    source = strangers(first.astype(np.int64), seed, part.owners)
    for shard in range(layout.shards):
        rows = source[layout.users(shard)]
        more = {name: labels.column(name, rows) for name in labels.extra}
        write_shard(part.out, layout, shard, Lists(*labels.take(rows), labels.column("residual", rows), **more))
    if labels.vectors is not None:
        _save(part.out, users=np.asarray(labels.vectors.users)[source])
    return source


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


def _mean(part: _Part) -> _Mean:
    """Return the mean of the teacher's chances over rows; an item in nobody's list has what the lists leave."""
    layout = part.layout
    of = Population(np.zeros(layout.num_items), np.zeros(layout.num_items, np.int64))
    left, told = 0.0, 0
    for shard in range(layout.shards):
        rows = layout.users(shard)
        items, scores = part.labels.take(rows)
        rest = part.labels.column("residual", rows)
        found = population(items, scores, rest, rows, num_items=layout.num_items, seen=part.seen)
        known = int((items >= 0).any(1).sum())
        of = Population(of.mass + found.mass, of.could + found.could)
        left, told = left + known - float(found.mass.sum()), told + known
    mean = mean_scores(of)
    unlisted = mean <= NEVER
    outside = np.log(max(left / max(told, 1), 1e-9) / max(int(unlisted.sum()), 1))
    lowest = min(float(outside), float(mean[~unlisted].min(initial=0.0)))
    return _Mean(mean, lowest, int(unlisted.sum()))


def _write_mean(part: _Part, mean: _Mean) -> None:
    """Write every row the one order, without what the row has seen."""
    rest = mean.lowest + np.log(max(mean.unlisted, 1))
    for shard in range(part.layout.shards):
        rows = part.layout.users(shard)
        found = one_list(mean.scores, rows, part.layout.depth, seen=part.seen)
        lists = Lists(found.items, found.scores, np.full(len(rows), rest, np.float32))
        write_shard(part.out, part.layout, shard, lists)


def _save(out: Path, **sides: NDArray[Any]) -> None:
    for name, vectors in sides.items():
        with aside(out / f"{name}.npy") as file, file.open("wb") as handle:
            np.save(handle, np.ascontiguousarray(vectors, dtype=np.float32))
