"""Spoilt data: a training log with noise in it, or with less of its tail; validation and test stay as they are.

Distillation may help more where labels are worse (Sarfraz, Arani and Zonooz, Knowledge Distillation Beyond Model
Compression, 2020). What is spoilt is a hash of who took what, so that more noise is the same noise and some more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from recdistill.types import Dataset, Int, Interactions

ATTEMPTS = 50  # draws of an unseen item, after which an interaction stays what it is
ORDER, DRAW = 0, 1  # streams of a seed: which interactions are spoilt, and what they become


@dataclass(frozen=True, slots=True)
class Spoil:
    """What is done to the training part: which share of what is spoilt, and by which seed."""

    kind: Literal["noise", "imbalance"]
    fraction: float
    seed: int = 1

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.fraction:g}-{self.seed}"


def spoilt(dataset: Dataset, spoil: Spoil) -> Dataset:
    """Return `dataset` with a training part that is spoilt as `spoil` says."""
    make = noisy if spoil.kind == "noise" else imbalanced
    return replace(dataset, train=make(dataset, spoil.fraction, spoil.seed))


def noisy(dataset: Dataset, fraction: float, seed: int) -> Interactions:
    """Return the training part with `fraction` of each user's interactions, rounded, of a random item instead.

    One that is nowhere among what the user took, in test either, each once; all else of an interaction stays. Where no
    such item is found in ATTEMPTS draws it stays as it is.
    """
    train, size = dataset.train, dataset.num_items
    users, items = train.users(), np.array(train.items)
    keys = users * size + items
    order = np.lexsort((_hash(keys, seed, ORDER), users))
    place = np.empty(len(keys), np.int64)
    place[order] = np.arange(len(keys)) - np.asarray(train.indptr)[users]
    left = np.flatnonzero(place < np.rint(fraction * np.diff(train.indptr))[users])
    # What a user took is never given to it as noise, and what is in the test part must not become part of training.
    taken = np.concatenate([part.users() * size + part.items for part in (train, dataset.valid, dataset.test)])
    for attempt in range(ATTEMPTS):
        drawn = (_hash(keys[left], seed, DRAW + attempt) % np.uint64(size)).astype(np.int64)
        wanted = users[left] * size + drawn
        first = np.zeros(len(left), bool)
        first[np.unique(wanted, return_index=True)[1]] = True
        free = first & ~np.isin(wanted, taken)
        items[left[free]] = drawn[free]
        taken, left = np.concatenate([taken, wanted[free]]), left[~free]
        if not len(left):
            break
    return _sorted(train, items)


def imbalanced(dataset: Dataset, fraction: float, seed: int) -> Interactions:
    """Return the training part without `fraction` of the interactions with items of the tail, drawn each for itself.

    The tail is the items of the two least popular fifths of training interactions. Of a user's interactions one stays.
    """
    from recdistill.diagnose.buckets import in_tail
    from recdistill.folds import pick

    train = dataset.train
    users, items = train.users(), np.array(train.items)
    chance = _hash(users * dataset.num_items + items, seed, ORDER) / np.float64(2**64)
    kept = (chance >= fraction) | ~in_tail(train, dataset.num_items)[items]
    emptied = np.bincount(users[kept], minlength=train.num_users)[users] == 0
    highest = np.zeros(train.num_users)
    np.maximum.at(highest, users, chance)
    return pick(train, kept | (emptied & (chance == highest[users])))


def _hash(keys: Int, *salt: int) -> NDArray[np.uint64]:
    from recdistill.candidates import splitmix

    found = splitmix(keys)
    for one in salt:
        found = splitmix((found ^ np.uint64(one + 1)).view(np.int64))
    return found


def _sorted(train: Interactions, items: Int) -> Interactions:
    """Return `train` with other `items` [n], in order of time, then item, within each user."""
    users = train.users()
    when = np.zeros_like(users) if train.times is None else np.array(train.times)
    order = np.lexsort((items, when, users))
    return replace(
        train,
        items=items[order],
        times=None if train.times is None else np.array(train.times)[order],
        weights=None if train.weights is None else np.array(train.weights)[order],
        events=None if train.events is None else np.array(train.events)[order],
    )
