"""Synthetic histories: what is left out, what is mixed with what chance, in which order, and what is read of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recdistill.data.sequences import Sequences
from recdistill.transfer.histories import (
    dropout,
    joined,
    longest,
    mates,
    mixed_labels,
    padded,
    places,
    shares,
    splice,
)
from recdistill.types import Interactions

ROWS = [[3, 5, 7, 9], [], [1], [5, 6, 7], [0, 2, 4, 8, 10, 11]]


def philox(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def log(rows, *, start=None, ties=False):
    """Return a log of `rows`; the items of user u come at times from start[u] on, each later than the one before."""
    items = np.array([item for row in rows for item in row], np.int64)
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    times = None
    if start is not None:
        times = np.array([s + (0 if ties else n) for s, row in zip(start, rows, strict=True) for n in range(len(row))])
    weights = items.astype(np.float32) / 2
    return Interactions(indptr=indptr, items=items, times=times, weights=weights, events=(items % 3).astype(np.int16))


def lists(found):
    return [found.items[a:b].tolist() for a, b in zip(found.indptr[:-1], found.indptr[1:], strict=True)]


TIMED = log(ROWS, start=[10, 20, 30, 40, 50])
MANY = log([list(range(40))] * 500, start=[0] * 500)


def test_nothing_left_out_is_every_history_as_it_was():
    found = dropout(TIMED, 0.0, 2, philox())
    kept = [row for row in ROWS if row]
    assert lists(found.interactions) == kept + kept
    assert found.parents.tolist() == [[u, -1] for u in (0, 2, 3, 4)] * 2
    assert found.mu.tolist() == [1.0] * 8
    assert found.interactions.times.tolist() == np.tile(TIMED.times, 2).tolist()
    assert found.interactions.weights.tolist() == [item / 2 for item in found.interactions.items]
    assert found.interactions.events.tolist() == [item % 3 for item in found.interactions.items]


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_items_are_left_out_at_the_rate_and_stay_in_order(rate):
    found = dropout(MANY, rate, 2, philox(1))
    assert len(found.interactions) / (2 * len(MANY)) == pytest.approx(1 - rate, abs=0.01)
    each = np.bincount(found.interactions.items, minlength=40) / 1000
    assert np.abs(each - (1 - rate)).max() < 0.07  # every place of the history alike
    assert all(row == sorted(row) for row in lists(found.interactions))


def test_what_two_copies_leave_out_has_nothing_in_common():
    first, second = np.split(np.array([set(row) for row in lists(dropout(MANY, 0.5, 2, philox(2)).interactions)]), 2)
    both = np.mean([len(a & b) for a, b in zip(first, second, strict=True)])
    assert both == pytest.approx(10, abs=0.5)


def test_a_history_is_never_emptied_and_one_uniform_item_of_it_is_left_at_most():
    found = dropout(log([[0, 1, 2, 3]] * 4000), 1.0, 1, philox(3))
    assert np.diff(found.interactions.indptr).tolist() == [1] * 4000
    assert np.abs(np.bincount(found.interactions.items) / 4000 - 0.25).max() < 0.03


def test_the_same_seed_gives_the_same_histories():
    one, same, other = (dropout(MANY, 0.5, 1, philox(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one.interactions.items, same.interactions.items)
    assert lists(one.interactions) != lists(other.interactions)


@pytest.mark.parametrize(("mu", "side"), [(1.0, 0), (0.0, 1)])
def test_a_mixture_of_one_side_alone_is_that_side(mu, side):
    partners = np.array([[0, 3], [3, 4], [4, 0], [2, 3]])
    found = splice(TIMED, partners, np.full(4, mu), philox())
    assert lists(found.interactions) == [ROWS[u] for u in partners[:, side]]
    np.testing.assert_array_equal(found.interactions.times, TIMED.times[places(TIMED, partners[:, side])[1]])


@pytest.mark.parametrize("mu", [0.1, 0.3, 0.8])
def test_items_of_each_side_are_kept_with_its_share(mu):
    data = log([list(range(40)), list(range(40, 70))] * 300)
    partners = np.stack([np.arange(0, 600, 2), np.arange(1, 600, 2)], axis=1)
    found = splice(data, partners, np.full(300, mu), philox(6)).interactions
    first = (found.items < 40).sum() / (300 * 40)
    second = (found.items >= 40).sum() / (300 * 30)
    assert (first, second) == (pytest.approx(mu, abs=0.02), pytest.approx(1 - mu, abs=0.02))


def test_what_both_have_stands_once_with_the_chance_that_either_keeps_it():
    data = log([[0, 1], [1, 2]], start=[0, 100])
    found = splice(data, np.tile([0, 1], (4000, 1)), np.full(4000, 0.3), philox(7)).interactions
    keys = found.users() * 3 + found.items
    assert len(np.unique(keys)) == len(keys)
    held = (found.items == 1).sum() / 4000
    # Chance either keeps it, and that of a row in which nothing was kept: then the item nearest to it, half the time 1.
    assert 1 - 0.7 * 0.3 <= held <= 1 - 0.7 * 0.3 + 0.7 * 0.3 * 0.7 * 0.3 + 0.02
    own = found.times[found.items == 1]
    assert set(own.tolist()) == {1, 100}  # the first's moment wherever the first gave it
    assert (own == 1).mean() == pytest.approx(0.3 / held, abs=0.03)


def test_a_mixture_is_never_empty_and_takes_nothing_of_a_side_without_a_share():
    data = log([[0], [1], []])
    partners = np.tile([[0, 1], [0, 2], [2, 0]], (1000, 1))
    found = splice(data, partners, np.tile([0.5, 0.01, 1.0], 1000), philox(8)).interactions
    sizes = np.diff(found.indptr).reshape(-1, 3)
    assert sizes[:, :2].min() == 1
    assert sizes[:, 2].max() == 0


def test_a_mixture_is_in_order_of_time_and_aligned_parents_end_at_one_moment():
    data = log([[3, 5, 7], [1, 2]], start=[10, 1000])
    half = np.full(200, 0.5)
    partners = np.tile([0, 1], (200, 1))
    plain = splice(data, partners, half, philox(9)).interactions
    moved = splice(data, partners, half, philox(9), aligned=True).interactions
    for found in (plain, moved):
        inside = np.diff(found.users()) == 0
        assert (np.diff(found.times)[inside] >= 0).all()
    assert dict(zip(moved.items.tolist(), moved.times.tolist(), strict=True)) == {3: 10, 5: 11, 7: 12, 1: 11, 2: 12}
    assert dict(zip(plain.items.tolist(), plain.times.tolist(), strict=True)) == {3: 10, 5: 11, 7: 12, 1: 1000, 2: 1001}
    np.testing.assert_array_equal(np.sort(plain.items), np.sort(moved.items))


def test_without_times_a_mixture_is_in_order_of_item():
    found = splice(log(ROWS), np.tile([4, 0], (50, 1)), np.full(50, 0.5), philox(1)).interactions
    assert found.times is None
    assert all(row == sorted(row) for row in lists(found))


def test_everyone_with_a_history_is_a_mate_once_on_each_side_and_never_its_own():
    found = mates(TIMED, philox(3))
    assert found[:, 0].tolist() == [0, 2, 3, 4]
    assert sorted(found[:, 1].tolist()) == [0, 2, 3, 4]
    assert (found[:, 0] != found[:, 1]).all()


def test_weights_are_those_of_a_beta():
    mu = shares(20_000, philox(4))
    assert (mu.mean(), mu.var()) == (pytest.approx(0.5, abs=0.01), pytest.approx(1 / 8, abs=0.005))
    assert shares(20_000, philox(4), 50.0).var() == pytest.approx(0.25 / 101, abs=0.001)


def test_mixed_labels_are_the_mixture_of_both_parents_and_sum_to_one():
    parents, mu = np.array([[0, 3], [3, 4], [2, 1], [1, 2], [4, -1], [1, -1]]), np.array([0.3, 1.0, 0.2, 0.6, 1, 1])
    found = mixed_labels(TIMED, parents, mu)
    table = np.zeros((6, 12))
    table[found.users(), found.items] = found.weights
    y = np.zeros((5, 12))
    for user, row in enumerate(ROWS):
        y[user, row] = 1 / max(len(row), 1)
    np.testing.assert_allclose(table[0], 0.3 * y[0] + 0.7 * y[3], atol=1e-7)
    np.testing.assert_allclose(table[1], y[3], atol=1e-7)  # with mu 1 it is the first's
    np.testing.assert_allclose(table[2:5], [y[2], y[2], y[4]], atol=1e-7)  # who has none leaves all to the other
    np.testing.assert_allclose(table.sum(1), [1, 1, 1, 1, 1, 0], atol=1e-6)
    assert len(np.unique(found.users() * 12 + found.items)) == len(found)


@pytest.mark.parametrize("length", [1, 2, 3, 8])
@pytest.mark.parametrize("start", [None, [10, 20, 30, 40, 50]])
@pytest.mark.parametrize("ties", [False, True])
def test_what_is_cut_is_what_a_model_of_that_length_does_not_read(length, start, ties):
    data = log(ROWS, start=start, ties=ties)
    found = longest(data, length)
    assert np.diff(found.indptr).tolist() == [min(len(row), length) for row in ROWS]
    everyone = torch.arange(len(ROWS))
    before, after = (Sequences.of(part).latest(everyone, length).items for part in (data, found))
    assert torch.equal(before, after)
    if start is not None and not ties:
        assert lists(found) == [row[-length:] for row in ROWS]


def test_what_is_joined_is_one_part_after_the_other():
    parts = [dropout(TIMED, 0.0, 1, philox()), splice(TIMED, np.array([[0, 3]]), np.array([1.0]), philox())]
    found = joined(parts)
    assert lists(found.interactions) == [row for part in parts for row in lists(part.interactions)]
    assert found.parents.tolist() == [[0, -1], [2, -1], [3, -1], [4, -1], [0, 3]]
    assert len(found) == len(found.mu) == 5
    bare = replace(parts[1], interactions=replace(parts[1].interactions, weights=None))
    assert joined([parts[0], bare]).interactions.weights is None
    assert joined([parts[0], bare]).interactions.times is not None


def test_histories_are_padded_after_their_last_item_and_minus_one_has_none():
    assert padded(TIMED, np.array([3, -1, 0, 1])).tolist() == [[5, 6, 7, -1], [-1] * 4, [3, 5, 7, 9], [-1] * 4]
