"""What a model may read of a user's history at an interaction, and of a user to serve."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.data.sequences import Sequences
from recdistill.types import Interactions

ITEMS = [[10, 11, 12, 13], [], [20], [30, 31, 32]]
INDPTR = np.array([0, 4, 4, 5, 8])


def log(*, timed):
    items = np.concatenate([np.array(row, dtype=np.int64) for row in ITEMS])
    times = np.concatenate([np.arange(len(row), dtype=np.int64) for row in ITEMS]) if timed else None
    return Interactions(indptr=INDPTR, items=items, times=times)


def before(length, *, timed):
    sequences = Sequences.of(log(timed=timed))
    return sequences.before(torch.arange(8), length).items.tolist()


def owners():
    return [(u, at) for u, row in enumerate(ITEMS) for at in range(len(row))]


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_with_times_it_is_what_came_before_the_latest_last(length):
    for (user, at), found in zip(owners(), before(length, timed=True), strict=True):
        past = ITEMS[user][:at][-length:]
        assert found == [-1] * (length - len(past)) + past


def test_without_times_it_is_the_users_other_items():
    for (user, at), found in zip(owners(), before(6, timed=False), strict=True):
        others = [item for item in ITEMS[user] if item != ITEMS[user][at]]
        assert sorted(found) == sorted([-1] * (6 - len(others)) + others)
        assert found[: 6 - len(others)] == [-1] * (6 - len(others))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_without_times_a_short_history_is_of_distinct_other_items(length):
    for (user, at), found in zip(owners(), before(length, timed=False), strict=True):
        known = [item for item in found if item >= 0]
        assert len(known) == min(length, len(ITEMS[user]) - 1)
        assert len(set(known)) == len(known)
        assert set(known) <= set(ITEMS[user]) - {ITEMS[user][at]}


def test_without_times_the_stored_order_does_not_show():
    items = np.arange(200, dtype=np.int64)
    sequences = Sequences.of(Interactions(indptr=np.array([0, 200]), items=items))
    latest = sequences.latest(torch.tensor([0]), 50).items[0].double()
    assert len(latest.unique()) == 50
    assert 60 < latest.mean() < 140  # the last fifty rows would average 174.5


def test_the_shuffle_is_the_same_each_time():
    first, second = (Sequences.of(log(timed=False)).items for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("length", [1, 3, 6])
def test_latest_is_the_end_of_each_history(length):
    found = Sequences.of(log(timed=True)).latest(torch.tensor([3, 1, 0, 2, 0]), length).items.tolist()
    for user, row in zip([3, 1, 0, 2, 0], found, strict=True):
        past = ITEMS[user][-length:]
        assert row == [-1] * (length - len(past)) + past


def test_latest_without_times_holds_the_users_items():
    found = Sequences.of(log(timed=False)).latest(torch.arange(4), 4).items.tolist()
    assert [sorted(i for i in row if i >= 0) for row in found] == ITEMS


def test_a_history_of_no_length_is_empty():
    sequences = Sequences.of(log(timed=True))
    assert sequences.before(torch.arange(8), 0).items.shape == (8, 0)
    assert sequences.latest(torch.arange(4), 0).items.shape == (4, 0)
    assert sequences.before(torch.arange(8), 0).items.dtype == torch.int64


def test_an_empty_log_has_empty_histories():
    empty = Interactions(indptr=np.zeros(4, np.int64), items=np.zeros(0, np.int64))
    assert Sequences.of(empty).latest(torch.tensor([0, 2]), 2).items.tolist() == [[-1, -1]] * 2
