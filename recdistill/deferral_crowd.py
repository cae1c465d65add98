"""Users with something held out, as the served student lists for them, and what their teacher makes of these lists."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from recdistill.data.sequences import Sequences
from recdistill.errors import DataError, StageError
from recdistill.gains.defer import advantage, list_features
from recdistill.gains.paired import Real
from recdistill.labelling import ready_teacher
from recdistill.labels import open_labels
from recdistill.measure import Judged
from recdistill.metrics import METRICS, hits, relevant
from recdistill.serve import encode, open_bundle, read_index
from recdistill.serve_gate import unseen_lists
from recdistill.serve_search import search_index
from recdistill.topk import blocks, pairs
from recdistill.types import Dataset, Float, Int, Interactions, Labels

MOST_USERS = 200_000  # that are fitted to, or judged: a seeded sample of more
USERS_AT_ONCE = 1024  # whose lists the teacher scores
LEAST_KNOWN = 0.5  # of what the student lists, which a file of scores must score

Asked = Callable[[Int, Int], Float]
"""(users [n], items [n,K]) -> the teacher's scores of them [n,K], -inf where it has none."""


class Crowd(NamedTuple):
    """Users with something held out; `n` of them."""

    features: Real  # [n,F]
    gains: Real  # [n] advantage of the teacher's order of the student's list
    quality: Real  # [n] of that list as it is
    known: float  # share of what is listed that the teacher scores


def crowd(
    dataset: Dataset,
    judged: Judged,
    seen: Interactions,
    truth: Interactions,
    *,
    k: int,
    depth: int,
    metric: str,
    scale: float,
    popularity: Float,
) -> Crowd:
    """Return the users who have something in `truth`, as both models see them who know `seen`.

    Lists are `depth` long and judged by their first `k`; scale makes the served scores logits; popularity [I].
    StageError without any of them, DataError where the teacher is a file that scores too little of what is listed.
    """
    users = _sample(np.flatnonzero(np.diff(truth.indptr)))
    if not len(users):
        fix = "raise split.valid_fraction and split.test_fraction, or leave `defer` out"
        raise StageError("a gate is fitted to validation users and judged on test users", where="defer", fix=fix)
    sequences = Sequences.of(seen)
    scores, items = _lists(judged, depth, users, sequences, seen, dataset.num_items)
    teacher = _teacher(dataset, judged, sequences, seen)(users, items)
    known = float(np.isfinite(teacher[items >= 0]).mean()) if (items >= 0).any() else 0.0
    if known < LEAST_KNOWN:
        what = f"the teacher's file scores {known:.1%} of what the student lists, so it cannot say how to re-rank it"
        fix = f"let it score the student's {depth} items of each user too, raise labels.depth, or lower defer.depth"
        raise DataError(what, where="defer", fix=fix)
    history = np.diff(seen.indptr)[users]
    plain = METRICS[metric](hits(items, truth, users), relevant(truth, users), k)
    return Crowd(
        features=list_features(scores, items, history, popularity, scale=scale),
        gains=advantage(items, teacher, truth, users, k=k, metric=metric),
        quality=np.asarray(plain, np.float64),
        known=known,
    )


def _lists(
    judged: Judged, depth: int, users: Int, sequences: Sequences, seen: Interactions, num_items: int
) -> tuple[Float, Int]:
    """Return the scores and items [n,depth] that the bundle gives `users` who took what is in `seen`."""
    bundle = open_bundle(judged.index.path / "bundle")
    index = read_index(bundle.path / "index.faiss", bundle.params)
    offsets, items = sequences.indptr.numpy(), sequences.items.numpy()
    histories = [items[offsets[user] : offsets[user + 1]] for user in users] if bundle.kind == "two_tower" else []
    at, taken = (each.numpy() for each in pairs(seen, users))
    queries = encode(bundle, users.tolist(), histories)
    return unseen_lists(partial(search_index, index), queries, at, taken, depth, num_items)


def _teacher(dataset: Dataset, judged: Judged, sequences: Sequences, seen: Interactions) -> Asked:
    """Return the scores of the teacher that reads `sequences`; of a file, those that its labels hold."""
    teacher = judged.teacher
    if not teacher.models:
        assert judged.labels is not None, "a file becomes labels"
        labels = open_labels(judged.labels.path)
        return lambda users, items: labelled(labels, users, items, dataset.num_items)
    compute = judged.candidates.compute
    made = ready_teacher(dataset, teacher, sequences, seen, whole=not teacher.ranks, compute=compute)

    def score(users: Int, items: Int) -> Float:
        with torch.inference_mode():
            parts = [made.score(users[a:b], torch.from_numpy(items[a:b])) for a, b in blocks(len(users), USERS_AT_ONCE)]
        return torch.cat(parts).float().numpy()

    return score


def labelled(labels: Labels, users: Int, items: Int, num_items: int) -> Float:
    """Return the scores [n,K] that the lists of `users` [n] give to `items` [n,K], -inf where they give none."""
    listed, scores = labels.take(users)
    rows = np.arange(len(users))[:, None] * num_items
    keys, values = (rows + listed)[listed >= 0], scores[listed >= 0]
    order = np.argsort(keys)
    keys, values = np.append(keys[order], -1), np.append(values[order], -np.inf)
    place = np.searchsorted(keys[:-1], rows + items)
    return np.where((items >= 0) & (keys[place] == rows + items), values[place], -np.inf).astype(np.float32)


def _sample(users: Int) -> Int:
    if len(users) <= MOST_USERS:
        return users
    return np.sort(np.random.Generator(np.random.Philox(23)).choice(users, MOST_USERS, replace=False))
