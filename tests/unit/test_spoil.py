"""Spoilt logs: as much is spoilt as was asked for, and nothing of the test part gets into training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from recdistill.diagnose.buckets import in_tail
from recdistill.spoil import Spoil, imbalanced, noisy, spoilt
from recdistill.types import Dataset, Interactions

USERS, ITEMS = 80, 50


def interactions(taken: np.ndarray, *, timed: bool = True) -> Interactions:
    items = np.nonzero(taken)[1]
    indptr = np.concatenate([[0], taken.sum(1).cumsum()])
    if not timed:
        return Interactions(indptr=indptr, items=items)
    rng = np.random.default_rng(8)
    times = np.concatenate([np.sort(rng.integers(0, 5, n)) for n in np.diff(indptr)]) * 10**6
    weights = rng.random(len(items)).astype(np.float32)
    return Interactions(indptr=indptr, items=items, times=times, weights=weights)


def dataset(*, timed: bool = True) -> Dataset:
    """Return a log of 4 to 20 interactions each, in which early items are taken more often than late ones."""
    rng = np.random.default_rng(2)
    place = np.argsort(np.argsort(rng.random((USERS, ITEMS)) * np.linspace(0.2, 1, ITEMS), axis=1), axis=1)
    sizes = rng.integers(4, 21, size=(USERS, 1))
    parts = [place < sizes, (place >= sizes) & (place < sizes + 2), (place >= sizes + 2) & (place < sizes + 6)]
    ids = {"user_ids": pl.Series(range(USERS)), "item_ids": pl.Series(range(ITEMS))}
    train, valid, test = (interactions(part, timed=timed) for part in parts)
    return Dataset(**ids, train=train, valid=valid, test=test)


def pairs(log: Interactions) -> set[tuple[int, int]]:
    return set(zip(log.users().tolist(), np.asarray(log.items).tolist(), strict=True))


@pytest.mark.parametrize("fraction", [0.2, 0.4, 1.0])
def test_noise_replaces_its_share_of_everybodys_interactions(fraction: float) -> None:
    data = dataset()
    train = noisy(data, fraction, 1)
    np.testing.assert_array_equal(train.indptr, data.train.indptr)
    kept = [len(pairs(train) & {(u, i) for _, i in mine}) for u, mine in grouped(data.train)]
    sizes = np.diff(data.train.indptr)
    np.testing.assert_array_equal(kept, sizes - np.rint(fraction * sizes))
    assert len(pairs(train)) == len(train)  # nothing twice
    assert not pairs(train) & (pairs(data.valid) | pairs(data.test))


def grouped(log: Interactions) -> list[tuple[int, list[tuple[int, int]]]]:
    return [(u, [p for p in pairs(log) if p[0] == u]) for u in range(USERS)]


def test_more_noise_is_the_same_noise_and_some_more() -> None:
    data = dataset()
    some, more = pairs(noisy(data, 0.2, 1)), pairs(noisy(data, 0.4, 1))
    clean = pairs(data.train)
    assert more & clean < some & clean
    assert len((some - clean) - more) < 0.1 * len(some - clean)  # unless two drew the same item
    assert pairs(noisy(data, 0.4, 1)) == more
    assert pairs(noisy(data, 0.4, 2)) != more


def test_noise_keeps_the_moments_and_weights_and_the_order_of_a_log() -> None:
    data = dataset()
    train = noisy(data, 0.5, 3)
    for user in range(USERS):
        mine = slice(*train.indptr[user : user + 2])
        np.testing.assert_array_equal(train.times[mine], data.train.times[mine])
        assert sorted(train.weights[mine]) == sorted(data.train.weights[mine])
        order = np.lexsort((train.items[mine], train.times[mine]))
        np.testing.assert_array_equal(order, np.arange(len(order)))


def test_noise_falls_on_all_of_the_catalogue_alike() -> None:
    data = dataset(timed=False)
    train = noisy(data, 1.0, 1)
    assert train.times is None
    count = np.bincount(train.items, minlength=ITEMS)
    free = USERS - sum(np.bincount(part.items, minlength=ITEMS) for part in (data.train, data.valid, data.test))
    assert np.corrcoef(count, free)[0, 1] > 0.8  # as often as somebody could be given it


def test_who_took_everything_has_no_noise() -> None:
    data = dataset(timed=False)
    everything = Interactions(indptr=np.arange(USERS + 1) * ITEMS, items=np.tile(np.arange(ITEMS), USERS))
    full = replace(data, train=everything)
    assert pairs(noisy(full, 0.4, 1)) == pairs(everything)


@pytest.mark.parametrize("fraction", [0.5, 0.8])
def test_imbalance_takes_its_share_of_the_tail_alone(fraction: float) -> None:
    data = dataset()
    train, tail = imbalanced(data, fraction, 1), in_tail(data.train, ITEMS)
    was, now = tail[data.train.items].sum(), tail[train.items].sum()
    assert now / was == pytest.approx(1 - fraction, abs=0.08)
    assert (~tail)[train.items].sum() == (~tail)[data.train.items].sum()
    assert pairs(train) < pairs(data.train)
    assert pairs(imbalanced(data, 0.8, 1)) <= pairs(imbalanced(data, 0.5, 1))
    assert (np.diff(train.indptr) > 0).all()


def test_of_a_user_of_the_tail_alone_one_interaction_stays() -> None:
    train = Interactions(indptr=np.array([0, 3, 9, 15]), items=np.array([7, 8, 9, *range(6), *range(6)]))
    ids = {"user_ids": pl.Series(range(3)), "item_ids": pl.Series(range(10))}
    nothing = Interactions(indptr=np.zeros(4, np.int64), items=np.zeros(0, np.int64))
    data = Dataset(**ids, train=train, valid=nothing, test=nothing)
    assert in_tail(train, 10)[7:].all()
    found = imbalanced(data, 1.0, 1)
    assert found.indptr[1] == 1


def test_only_training_is_spoilt() -> None:
    data = dataset()
    found = spoilt(data, Spoil("noise", 0.2))
    assert (found.valid, found.test) == (data.valid, data.test)
    assert Spoil("noise", 0.2).name == "noise-0.2-1"
    assert pairs(found.train) == pairs(noisy(data, 0.2, 1))
    assert pairs(spoilt(data, Spoil("imbalance", 0.5)).train) == pairs(imbalanced(data, 0.5, 1))
