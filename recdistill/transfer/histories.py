"""Histories that nobody had, made from those of the log, so that a teacher can be asked what it would make of them.

A user's lists tell a student what its teacher does at one point of the space of histories. Leaving items out shows it
the points around (Stanton et al., NeurIPS 2021), mixing two users the points between (Mishra et al., 2023). All of it
is a function of the log and the generator: numpy's `Generator(Philox(seed))` gives the same histories anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recdistill.data.order import mixed
from recdistill.folds import pick
from recdistill.types import Int, Interactions, Synthetic

Share = NDArray[np.float64]


def dropout(train: Interactions, rate: float, copies: int, generator: np.random.Generator) -> Synthetic:
    """Return `copies` histories of every user who has one, each of whose items is left out with chance `rate`.

    The first of them are one of each user in order, then come those of the second copy. If chance leaves out all of a
    history, the item that came nearest to staying stays: with `rate` 1 it is one uniform item. An item left out makes
    room for an older one where histories are longer than what a model reads (Stanton et al., NeurIPS 2021).
    """
    assert 0 <= rate <= 1
    users = np.tile(np.flatnonzero(np.diff(train.indptr)), copies)
    row, at = places(train, users)
    chance = generator.random(len(row))
    highest = np.zeros(len(users))
    np.maximum.at(highest, row, chance)
    kept = chance >= np.minimum(rate, highest)[row]
    return Synthetic(
        interactions=_gathered(train, row[kept], at[kept], len(users)),
        parents=np.stack([users, np.full(len(users), -1)], axis=1),
        mu=np.ones(len(users)),
    )


def splice(
    train: Interactions, partners: Int, mu: Share, generator: np.random.Generator, *, aligned: bool = False
) -> Synthetic:
    """Return one history of each pair of `partners` [S,2]: items of the first with chance mu [S], else of the second.

    Each item of the first is kept with chance mu, each of the second with 1 - mu; what both would give is there once,
    as the first took it. If nothing is kept, the item nearest to it is. Items stand in order of time where the log has
    times: `aligned` moves those of the second parent so that both end at one moment. Without it a pair from different
    years is one history after the other, of which a model that reads the latest few reads one parent. Mishra et al.
    (2023), after CutMix (Yun et al., ICCV 2019).
    """
    assert ((mu >= 0) & (mu <= 1)).all()
    (row, at), (other, theirs) = places(train, partners[:, 0]), places(train, partners[:, 1])
    second = np.repeat([0, 1], [len(row), len(other)])
    row, at = np.concatenate([row, other]), np.concatenate([at, theirs])
    share = np.where(second == 1, 1 - mu[row], mu[row])
    with np.errstate(divide="ignore", invalid="ignore"):
        strain = np.where(share > 0, generator.random(len(row)) / share, np.inf)  # below 1 with the chance of `share`
    least = np.full(len(partners), np.inf)
    np.minimum.at(least, row, strain)
    kept = (strain < 1) | ((strain == least[row]) & np.isfinite(strain))
    row, at, second = row[kept], at[kept], second[kept]

    items = np.asarray(train.items)[at]
    order = np.lexsort((second, items, row))
    again = (np.diff(row[order], prepend=-1) == 0) & (np.diff(items[order], prepend=-1) == 0)
    order = order[~again]
    row, at, second, items = row[order], at[order], second[order], items[order]
    times = None
    if train.times is not None:
        times = np.asarray(train.times)[at]
        if aligned:
            times = times + second * _behind(train, partners)[row]
        order = np.lexsort((items, times, row))
        row, at, times = row[order], at[order], times[order]
    return Synthetic(
        interactions=_gathered(train, row, at, len(partners), times), parents=partners.astype(np.int64), mu=mu
    )


def mates(train: Interactions, generator: np.random.Generator) -> Int:
    """Return a partner for every user who has a history: pairs [S,2] in order of the first.

    Everyone is first once and second once, and nobody its own partner where there are two or more.
    """
    ring = generator.permutation(np.flatnonzero(np.diff(train.indptr)))
    pairs = np.stack([ring, np.roll(ring, -1)], axis=1)
    return pairs[np.argsort(ring)].astype(np.int64)


def shares(rows: int, generator: np.random.Generator, concentration: float = 0.5) -> Share:
    """Return mixture weights [rows] from Beta(concentration, concentration): at 0.5 most are near 0 or 1."""
    return generator.beta(concentration, concentration, rows)


def mixed_labels(labels: Interactions, parents: Int, mu: Share) -> Interactions:
    """Return what is taught as taken by histories with `parents` [S,2]: mu y_a + (1 - mu) y_b, as weights.

    y_u is uniform over what user u has in `labels`; a parent without any, or of -1, leaves all to the other, so the
    weights of a row sum to 1 (0 where neither has any). Items of both stand once, by item. Mishra et al. (2023).
    """
    counts = np.append(np.diff(labels.indptr), 0)[parents]  # [S,2]; the last entry is that of parent -1
    given = np.stack([mu, 1 - mu], axis=1) * (counts > 0)
    given = np.where((counts > 0).sum(1, keepdims=True) == 1, counts > 0, given) / np.maximum(counts, 1)
    found = [places(labels, parents[:, side]) for side in (0, 1)]
    row = np.concatenate([row for row, _ in found])
    items = np.asarray(labels.items)[np.concatenate([at for _, at in found])]
    weight = np.concatenate([given[row, side] for side, (row, _) in enumerate(found)])
    order = np.lexsort((items, row))
    new = (np.diff(row[order], prepend=-1) != 0) | (np.diff(items[order], prepend=-1) != 0)
    total = np.bincount(np.cumsum(new) - 1, weight[order], minlength=int(new.sum()))
    first = order[new]
    return Interactions(indptr=_indptr(row[first], len(parents)), items=items[first], weights=total.astype(np.float32))


def longest(log: Interactions, length: int) -> Interactions:
    """Return the last `length` interactions of each row of `log`: those that a model which reads so many reads.

    What was taken at one moment, or without any times, is ordered as the models read it, by a hash: see `Sequences`.
    """
    users, items = log.users(), np.asarray(log.items)
    when = np.zeros_like(users) if log.times is None else np.asarray(log.times)
    order = np.lexsort((mixed(users, items), when, users))
    kept = np.empty(len(log), dtype=np.bool_)
    kept[order] = np.asarray(log.indptr)[users + 1] - np.arange(len(log)) <= length
    return pick(log, kept)


def joined(parts: Sequence[Synthetic]) -> Synthetic:
    """Return the histories of `parts`, those of the first part first; a column that one of them lacks is left out."""
    logs = [part.interactions for part in parts]
    ends = np.cumsum([0, *(len(log) for log in logs)])
    columns = {
        name: None if any(column is None for column in found) else np.concatenate([np.asarray(c) for c in found])
        for name in ("times", "weights", "events")
        if (found := [getattr(log, name) for log in logs])
    }
    indptr = [np.zeros(1, np.int64), *(log.indptr[1:] + end for log, end in zip(logs, ends[:-1], strict=True))]
    return Synthetic(
        interactions=Interactions(
            indptr=np.concatenate(indptr), items=np.concatenate([np.asarray(log.items) for log in logs]), **columns
        ),
        parents=np.concatenate([part.parents for part in parts]),
        mu=np.concatenate([part.mu for part in parts]),
    )


def places(log: Interactions, users: Int) -> tuple[Int, Int]:
    """Return (row in `users` [n], place in the log) of all they took; -1 is somebody who took nothing."""
    counts = np.append(np.diff(log.indptr), 0)[users]
    row = np.repeat(np.arange(len(users)), counts)
    first = np.asarray(log.indptr)[users] - (np.cumsum(counts) - counts)
    return row, np.arange(len(row)) + np.repeat(first, counts)


def padded(log: Interactions, users: Int) -> Int:
    """Return the items of `users` [B] in the order of the log, -1 after the last: [B, as many as one of them has]."""
    sizes = np.append(np.diff(log.indptr), 0)[users]
    row, at = places(log, users)
    found = np.full((len(users), int(sizes.max(initial=0))), -1, dtype=np.int64)
    found[row, np.arange(len(row)) - (np.cumsum(sizes) - sizes)[row]] = np.asarray(log.items)[at]
    return found


def _behind(train: Interactions, partners: Int) -> Int:
    """Return by how much the last moment of each second parent is before that of the first, [S]; 0 if one has none."""
    times, ends = np.asarray(train.times), np.asarray(train.indptr)[partners + 1]
    there = np.all(np.diff(train.indptr)[partners] > 0, axis=1)
    last = times[np.where(there[:, None], ends - 1, 0)] if len(times) else np.zeros_like(ends)
    return np.where(there, last[:, 0] - last[:, 1], 0)


def _gathered(log: Interactions, row: Int, at: Int, rows: int, times: Int | None = None) -> Interactions:
    """Return the interactions at places `at` [m] of `log` as `rows` rows; row [m] rises, `times` replace its own."""
    return Interactions(
        indptr=_indptr(row, rows),
        items=np.asarray(log.items)[at],
        times=times if times is not None or log.times is None else np.asarray(log.times)[at],
        weights=None if log.weights is None else np.asarray(log.weights)[at],
        events=None if log.events is None else np.asarray(log.events)[at],
    )


def _indptr(row: Int, rows: int) -> Int:
    return np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]).astype(np.int64)
