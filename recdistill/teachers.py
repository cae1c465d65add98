"""What a teacher says, as a label store: an encoder over the whole catalogue, a ranker over candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recdistill.data.sequences import Sequences
from recdistill.distill.spec import CandidatesSpec
from recdistill.labels import FACTS, PER_SHARD, coverage, missing_shards, open_labels, write_shard
from recdistill.models.ranker import Ranker
from recdistill.scoring import Chooser, rank
from recdistill.spec import canonical
from recdistill.store import write_text
from recdistill.topk import TopK, exact_topk
from recdistill.types import Dataset, Float, Int, Interactions, Log

Lister = Callable[[Int], TopK]
"""Users [n] -> their lists [n,depth] and the residual of everything else the teacher scored."""


def encoder_lister(users: Float, items: Float, depth: int, seen: Interactions | None) -> Lister:
    """Return the lists of an encoder over the whole catalogue, from vectors whose inner product is its logit."""
    return lambda rows: exact_topk(users, items, depth, seen=seen, rows=rows)


def ranker_lister(
    model: Ranker,
    dataset: Dataset,
    depth: int,
    *,
    sequences: Sequences,
    history: int,
    seen: Interactions | None,
    choose: Chooser | None,
) -> Lister:
    """Return the lists of a ranker over the candidates `choose` gives, the whole catalogue if None."""
    size = dataset.num_items
    return lambda rows: rank(
        model, rows, depth, sequences=sequences, history=history, num_items=size, seen=seen, choose=choose
    )


def chooser(
    spec: CandidatesSpec | None, dataset: Dataset, vectors: tuple[Float, Float] | None, seen: Interactions
) -> Chooser | None:
    """Return the candidates of a ranker: nearest by `vectors`, popular and uniform items, each once; None means all.

    The uniform items of a user are drawn by the user's own row, so that shards do not depend on each other.
    """
    if spec is None or spec.ann + spec.popular + spec.uniform >= dataset.num_items:
        return None
    popular = np.argsort(-np.bincount(dataset.train.items, minlength=dataset.num_items), kind="stable")[: spec.popular]

    def choose(users: Int) -> Int:
        parts = [np.broadcast_to(popular, (len(users), len(popular)))]
        if spec.ann and vectors is not None:
            parts.append(exact_topk(*vectors, spec.ann, seen=seen, rows=users).items.numpy())
        if spec.uniform:
            key = users[:, None] * np.int64(spec.uniform) + np.arange(spec.uniform)
            parts.append((splitmix(key) % np.uint64(dataset.num_items)).astype(np.int64))
        rows = np.sort(np.concatenate(parts, axis=1), axis=1)
        rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = -1
        return rows

    return choose


def splitmix(keys: Int) -> NDArray[np.uint64]:
    """Return a well-mixed 64-bit hash of each of `keys` (SplitMix64, Steele et al., OOPSLA 2014)."""
    z = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def write_labels(
    out: Path, lister: Lister, dataset: Dataset, depth: int, facts: Mapping[str, Any], log: Log
) -> dict[str, Any]:
    """Write the label store `out` shard by shard, going on where a killed run stopped; returns its facts."""
    total = dataset.num_users
    for shard, users in missing_shards(out, total):
        best = lister(users)
        write_shard(out, shard, users, best.items.numpy(), best.scores.numpy(), best.residual.numpy())
        log("label", int(users[-1]) + 1, total, {})
    known = {
        "depth": depth,
        "num_users": total,
        "num_items": dataset.num_items,
        "per_shard": PER_SHARD,
        "format": 1,
    } | dict(facts)
    write_text(out / FACTS, canonical(known))
    known["coverage"] = coverage(open_labels(out))
    write_text(out / FACTS, canonical(known))
    return known
