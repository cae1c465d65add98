"""Out-of-fold data: every training interaction belongs to one of K folds, and a model may be fitted without one.

What a model learned by heart it ranks high, whatever it is worth. Of an interaction that it never saw it can only say
what it would say of any other, so the fold an interaction is in decides who may speak of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recdistill.candidates import splitmix
from recdistill.labels import Lister, Lists
from recdistill.types import Dataset, Int, Interactions


@dataclass(frozen=True, slots=True)
class Fold:
    """Fold `number` of `of`, counted from 0: what a model is fitted without."""

    number: int
    of: int


def fold_of(users: Int, items: Int, num_items: int, of: int) -> Int:
    """Return the fold of each pair of `users` [n] and `items` [n]: a hash of the two, so it never depends on others."""
    return (splitmix(users * np.int64(num_items) + items) % np.uint64(of)).astype(np.int64)


def lacking(dataset: Dataset, fold: Fold) -> Dataset:
    """Return `dataset` without the training interactions of `fold`; its other parts stay."""
    return replace(dataset, train=_part(dataset, fold, own=False))


def only(dataset: Dataset, fold: Fold) -> Interactions:
    """Return the training interactions of `fold`."""
    return _part(dataset, fold, own=True)


def _part(dataset: Dataset, fold: Fold, *, own: bool) -> Interactions:
    train = dataset.train
    users = train.users()
    return pick(train, (fold_of(users, np.array(train.items), dataset.num_items, fold.of) == fold.number) == own)


def pick(log: Interactions, kept: NDArray[np.bool_]) -> Interactions:
    """Return the interactions of `log` where `kept` [n] is true, in their order."""
    counts = np.bincount(log.users()[kept], minlength=log.num_users)
    return Interactions(
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=np.array(log.items)[kept],
        times=None if log.times is None else np.array(log.times)[kept],
        weights=None if log.weights is None else np.array(log.weights)[kept],
        events=None if log.events is None else np.array(log.events)[kept],
    )


def labelled_folds(lister: Lister, dataset: Dataset, of: int) -> Lister:
    """Return `lister` with the fold of each training interaction in its lists, -1 for whatever else is in them."""
    train, size = dataset.train, np.int64(dataset.num_items)
    keys = np.sort(train.users() * size + np.array(train.items))

    def labelled(users: Int) -> Lists:
        lists = lister(users)
        wanted = users[:, None] * size + lists.items
        at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        own = (lists.items >= 0) & (keys[at] == wanted) if len(keys) else np.zeros(wanted.shape, bool)
        fold = fold_of(np.broadcast_to(users[:, None], wanted.shape), lists.items, dataset.num_items, of)
        return lists._replace(fold=np.where(own, fold, -1).astype(np.int8))

    return labelled
