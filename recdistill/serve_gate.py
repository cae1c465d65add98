"""Whom a served student asks its teacher about: what its list tells, and the gate that reads it, in numpy alone.

A part of the file that MLflow runs (recdistill.bundle.model_code), so it imports nothing of recdistill, and what is
fitted and judged offline is what serves. In the bundle it adds

    gate.json             what the gate weighs, its threshold, depth of the lists it reads, and how scores are scaled
    gate.npy              what it calls popular, of each item row
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FEATURES = ("entropy", "margin", "log_history", "popularity")
AT_ONCE = 1 << 22  # places of the lists that are searched for together

Rows = NDArray[np.int64]
Search = Callable[[NDArray[np.float32], int], tuple[NDArray[Any], NDArray[Any]]]
"""(queries [n,D], k) -> scores [n,k], best first, and item rows [n,k], -1 for none."""


class Gate(NamedTuple):
    """A line from the features of a user's list to the advantage of asking."""

    mean: NDArray[np.float64]  # [F]
    spread: NDArray[np.float64]  # [F]
    weights: NDArray[np.float64]  # [F] of features less their mean, over their spread
    shift: float

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the predicted advantage of rows [n,F]: [n]."""
        return (features - self.mean) / self.spread @ self.weights + self.shift


class Deferral(NamedTuple):
    """A gate and what it needs where it serves."""

    gate: Gate
    threshold: float  # of the predicted advantage, above which the teacher is asked
    depth: int  # of the lists it reads
    scale: float  # of the scores that are served, which makes them the student's logits
    popularity: NDArray[Any]  # [I]

    def predicted(self, search: Search, queries: NDArray[np.float32], at: Rows, taken: Rows) -> NDArray[np.float64]:
        """Return the predicted advantage, [n], of users with `queries` [n,D], of whom `at` [m] took `taken` [m]."""
        scores, items = unseen_lists(search, queries, at, taken, self.depth, len(self.popularity))
        history = np.bincount(at, minlength=len(queries))
        return self.gate(list_features(scores, items, history, self.popularity, scale=self.scale))


def read_deferral(path: Path) -> Deferral | None:
    """Return the gate of the bundle at `path`, None where it has none; KeyError or ValueError if it is malformed."""
    if not (path / "gate.json").is_file():
        return None
    said = json.loads((path / "gate.json").read_text(encoding="utf-8"))
    if tuple(said["features"]) != FEATURES:
        raise ValueError(f"gate.json reads {said['features']}, where this code gives {list(FEATURES)}")
    mean, spread, weights = (np.asarray(said[name], np.float64) for name in ("mean", "spread", "weights"))
    threshold, scale = (float(said[name]) for name in ("threshold", "scale"))
    popularity = np.load(path / "gate.npy", allow_pickle=False)
    return Deferral(Gate(mean, spread, weights, float(said["shift"])), threshold, int(said["depth"]), scale, popularity)


def list_features(
    scores: NDArray[np.float32], items: Rows, history: Rows, popularity: NDArray[Any], *, scale: float = 1.0
) -> NDArray[np.float64]:
    """Return what a student's list tells of how sure it is, [n,4], in the order of FEATURES.

    scores and items [n,K], best first, -1 for none; history [n], items the user took; popularity [I], times an item was
    taken, or any function of it; scale makes the scores logits. Entropy is in nats, of the softmax over the list; the
    margin is of the first over the second logit, 0 without a second.
    """
    there = items >= 0
    known = np.where(there, np.asarray(scores, np.float64) * scale, -np.inf)
    top = known.max(1, keepdims=True, initial=-np.inf)
    mass = np.where(there, np.exp(known - np.where(np.isfinite(top), top, 0.0)), 0.0)
    p = mass / np.maximum(mass.sum(1, keepdims=True), 1e-300)
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(1)
    two = there[:, :2].all(1) if items.shape[1] > 1 else np.zeros(len(items), np.bool_)
    margin = np.zeros(len(items))
    margin[two] = known[two, 0] - known[two, 1] if items.shape[1] > 1 else 0.0
    liked = np.where(there, np.asarray(popularity, np.float64)[np.maximum(items, 0)], 0.0)
    liked = liked.sum(1) / np.maximum(there.sum(1), 1)
    return np.stack([entropy, margin, np.log1p(np.asarray(history, np.float64)), liked], axis=1)


def unseen_lists(
    search: Search, queries: NDArray[np.float32], at: Rows, taken: Rows, depth: int, num_items: int
) -> tuple[NDArray[np.float32], Rows]:
    """Return scores and item rows, [n,depth], of the best that each user did not take; -inf and -1 where fewer.

    queries [n,D]; the user of query at[m] took item taken[m]. How many are searched for, a power of two, is a matter
    of the user alone, so that no answer depends on who else is asked about.
    """
    scores = np.full((len(queries), depth), -np.inf, np.float32)
    items = np.full((len(queries), depth), -1, np.int64)
    keys = np.sort(at * num_items + taken)
    need = depth + np.bincount(at, minlength=len(queries))
    widths = np.minimum(2 ** np.ceil(np.log2(need)).astype(np.int64), num_items)
    for width in np.unique(widths).tolist():
        alike = np.flatnonzero(widths == width)
        for rows in np.array_split(alike, math.ceil(len(alike) * width / AT_ONCE)):
            found, listed = search(queries[rows], width)
            wanted = rows[:, None] * num_items + listed
            place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
            gone = (listed < 0) | (keys[place] == wanted if len(keys) else False)
            order = np.argsort(gone, axis=1, kind="stable")[:, :depth]
            scores[rows, : order.shape[1]] = np.take_along_axis(np.where(gone, -np.inf, found), order, axis=1)
            items[rows, : order.shape[1]] = np.take_along_axis(np.where(gone, -1, listed), order, axis=1)
    return scores, items


def joined(histories: Sequence[NDArray[Any]]) -> tuple[Rows, Rows]:
    """Return whose each item of `histories` is, [m], and the items [m]."""
    at = np.repeat(np.arange(len(histories)), [len(items) for items in histories])
    return at, np.concatenate([np.empty(0, np.int64), *histories]).astype(np.int64)
