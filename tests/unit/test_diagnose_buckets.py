"""The table of activity and popularity, on a log whose harmed cell is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recdistill.diagnose.buckets import activity_groups, buckets, profile, tail_recall
from recdistill.types import Interactions

ITEMS, USERS = 30, 90


def interactions(pairs, users=USERS):
    pairs = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    count = np.bincount(pairs[:, 0], minlength=users)
    return Interactions(indptr=np.concatenate([[0], np.cumsum(count)]), items=pairs[:, 1].copy())


def log(seed=0):
    rng = np.random.default_rng(seed)
    chance = 0.8 * np.arange(ITEMS, 0, -1) / ITEMS  # item 0 the most popular
    active = rng.permutation(np.linspace(0.2, 1, USERS))
    return interactions(np.argwhere(rng.random((USERS, ITEMS)) < active[:, None] * chance).tolist())


@pytest.fixture
def planted():
    """Each user has an item of either end held out; the student loses the tail's for the least active, else gains."""
    train = log()
    truth = interactions([(u, i) for u in range(USERS) for i in (0, 1, ITEMS - 2, ITEMS - 1)])
    active = activity_groups(np.diff(train.indptr), 3)
    every = np.tile([0, 1, ITEMS - 2, ITEMS - 1], (USERS, 1))
    head, tail = every.copy(), every.copy()
    head[:, 2:], tail[:, :2] = [3, 4], [3, 4]
    student = np.where((active == 0)[:, None], head, every)
    scratch = np.where((active == 0)[:, None], tail, head)
    return train, truth, {"student": [student], "teacher": [every], "scratch": [scratch]}


def table(train, truth, lists, users=None, **more):
    users = np.arange(USERS) if users is None else users
    settings = {"num_items": ITEMS, "groups": (3, 3), "k": 4, "times": 50, "seed": 0} | more
    return buckets(lists, train, truth, users, **settings)


def test_the_cell_that_is_harmed_is_named(planted):
    found = table(*planted)
    assert found.worst is not None
    assert (found.worst.activity, found.worst.popularity) == (0, 0)
    assert (found.worst.difference, found.worst.low, found.worst.high) == (-1, -1, -1)
    cells = {(c.activity, c.popularity): c for c in found.cells}
    assert [c.difference for (a, g), c in cells.items() if a == 0 and g == 2] == [1]
    assert all(cells[a, 0].difference == 1 and cells[a, 2].difference == 0 for a in (1, 2))
    assert all(c.teacher == 1 and c.users == 30 for c in found.cells if c.popularity != 1)
    assert list(cells) == [(a, g) for a in range(3) for g in range(3)]


def test_an_empty_cell_says_so_and_is_not_the_worst(planted):
    found = table(*planted)
    empty = [c for c in found.cells if c.popularity == 1]  # nothing of the middle is held out
    assert all(c.users == 0 and math.isnan(c.difference) and math.isnan(c.teacher) for c in empty)
    train, _, lists = planted
    assert table(train, interactions([]), lists).worst is None


def test_cells_by_brute_force():
    rng = np.random.default_rng(1)
    train = log(2)
    truth = interactions(np.argwhere(rng.random((USERS, ITEMS)) < 0.15).tolist())
    users = rng.permutation(USERS)[:60]
    lists = {
        m: [np.stack([rng.permutation(ITEMS)[:8] for _ in users]) for _ in range(2)]
        for m in ("student", "teacher", "scratch")
    }
    found = table(train, truth, lists, users, groups=(2, 1), k=5)
    order = np.argsort(np.diff(train.indptr)[users], kind="stable")
    for cell, half in zip(found.cells, (order[:30], order[30:]), strict=True):
        expected = {m: [] for m in lists}
        for at in half:
            mine = set(truth.items[truth.indptr[users[at]] : truth.indptr[users[at] + 1]].tolist())
            for m, seeds in lists.items() if mine else ():
                expected[m].append(np.mean([len(mine & set(x[at, :5].tolist())) / len(mine) for x in seeds]))
        assert cell.users == len(expected["student"])
        means = {m: float(np.mean(v)) for m, v in expected.items()}
        assert (cell.student, cell.teacher, cell.scratch) == pytest.approx(
            tuple(means[m] for m in ("student", "teacher", "scratch"))
        )
        assert cell.difference == pytest.approx(means["student"] - means["scratch"])
        assert cell.low < cell.difference < cell.high


def test_a_model_that_is_missing_is_asked_for(planted):
    train, truth, lists = planted
    with pytest.raises(KeyError, match="scratch"):
        table(train, truth, {m: lists[m] for m in ("student", "teacher")})


def test_groups_of_users_are_equal_and_in_order():
    activity = np.random.default_rng(3).integers(0, 9, 31)
    group = activity_groups(activity, 4)
    assert sorted(np.bincount(group)) == [7, 8, 8, 8]
    assert all(activity[group == g].max() <= activity[group == g + 1].min() for g in range(3))


def test_a_profile_is_what_the_lists_show(planted):
    train, truth, _ = planted
    counts = np.bincount(train.items, minlength=ITEMS)
    popular, various = np.tile([0, 1], (USERS, 1)), np.arange(2 * USERS).reshape(USERS, 2) % ITEMS
    settings = {"train": train, "truth": truth, "users": np.arange(USERS), "num_items": ITEMS, "k": 2}
    one, two = profile(popular, **settings), profile(various, **settings)
    assert (one.popularity, one.coverage, one.tail_recall) == (counts[:2].mean(), 2 / ITEMS, 0)
    assert two.coverage == 1
    assert two.popularity < one.popularity
    assert two.tail_recall > 0
    deep = np.tile([ITEMS - 1, ITEMS - 2], (USERS, 1))
    assert profile(deep, **settings).tail_recall == 1


def test_the_recall_of_the_tail_is_of_those_who_have_something_there():
    train = log()
    truth = interactions([(0, 0), (1, ITEMS - 1), (2, 0), (2, ITEMS - 1), (2, ITEMS - 2)])
    lists = np.tile([0, ITEMS - 1], (4, 1))
    found = tail_recall(lists, train, truth, np.array([3, 2, 1, 0]), num_items=ITEMS, k=2)
    assert found.tolist() == [0.5, 1]
    none = profile(lists, train, interactions([(0, 0)]), np.arange(4), num_items=ITEMS, k=2)
    assert math.isnan(none.tail_recall)
