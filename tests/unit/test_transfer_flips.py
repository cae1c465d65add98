"""Edits of histories that move two models apart: their gains by brute force, and what they do on planted towers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.models.gates import pool
from recdistill.transfer.flips import Side, disagreement, flipped, flips, gains, slopes
from recdistill.transfer.histories import padded, places
from recdistill.types import Interactions

USERS, ITEMS, K, DIMS = 60, 40, 12, (9, 4)
RNG = np.random.default_rng(5)
ROWS = [sorted(RNG.choice(ITEMS, RNG.integers(1, 12), replace=False).tolist()) for _ in range(USERS)]
EVERYONE = np.arange(USERS)


def normal(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log(rows, *, timed=False):
    items = np.array([item for row in rows for item in row], np.int64)
    times = np.arange(len(items), dtype=np.int64) if timed else None
    return Interactions(indptr=np.cumsum([0, *map(len, rows)]).astype(np.int64), items=items, times=times)


def tower(dim, *, deep, seed):
    table, identity, listed = (normal(*s, seed=seed + i) for i, s in enumerate([(ITEMS, dim), (USERS, dim), (K, dim)]))
    first = normal(dim, dim, seed=seed + 3)

    def scores(pooled):
        users = pooled + identity[: len(pooled)]
        return (torch.tanh(users @ first) if deep else users) @ listed.T

    return Side(table, scores)


def both(*, deep=False):
    return tower(DIMS[0], deep=deep, seed=10), tower(DIMS[1], deep=deep, seed=20)


TRAIN = log(ROWS)


def apart(data, sides, listed=None):
    """Return the disagreement on each row of `data`."""
    history = torch.from_numpy(padded(data, np.arange(data.num_users)))
    means = [pool(side.items[history.clamp(min=0)], history >= 0) for side in sides]
    return disagreement(*(side.scores(mean) for side, mean in zip(sides, means, strict=True)), listed)


def lists(found):
    return [found.items[a:b].tolist() for a, b in zip(found.indptr[:-1], found.indptr[1:], strict=True)]


def edits(made):
    """Return how many items each history has more or less than its parent."""
    found, (row, at) = made.interactions, places(TRAIN, made.parents[:, 0])
    apart = np.setxor1d(found.users() * ITEMS + found.items, row * ITEMS + TRAIN.items[at])
    return np.bincount(apart // ITEMS, minlength=len(made))


def test_disagreement_is_of_what_is_centred_on_the_list():
    teacher, student = normal(3, 5, seed=1), normal(3, 5, seed=2)
    listed = torch.tensor([[True] * 5, [True, False, True, True, False], [False] * 5])
    wanted = []
    for t, s, there in zip(teacher, student, listed, strict=True):
        d = (t - s)[there]
        wanted.append(float(((d - d.mean()) ** 2).mean()) if len(d) else 0.0)
    found = disagreement(teacher, student.where(listed, torch.inf), listed)
    np.testing.assert_allclose(found, wanted)
    torch.testing.assert_close(disagreement(teacher + 3, student - 7), disagreement(teacher, student))
    assert disagreement(teacher, teacher).max() == 0


@pytest.mark.parametrize("deep", [False, True])
def test_a_small_step_along_the_slopes_raises_the_disagreement(deep):
    sides = both(deep=deep)
    means = tuple(normal(USERS, dim, seed=dim) for dim in DIMS)
    moved = [mean + 1e-4 * slope for mean, slope in zip(means, slopes(*sides, means), strict=True)]
    before, after = (disagreement(*(s.scores(p) for s, p in zip(sides, at, strict=True))) for at in (means, moved))
    assert (after > before).all()


@pytest.mark.parametrize("deep", [False, True])
def test_gains_are_the_derivative_of_each_edit(deep):
    sides, history = both(deep=deep), torch.from_numpy(padded(TRAIN, EVERYONE))
    absent = torch.arange(0, ITEMS, 3)
    found, known = gains(history, absent, *sides), history >= 0
    means = [pool(side.items[history.clamp(min=0)], known) for side in sides]
    step = 1e-6

    def along(ends):
        """Return the slope of the disagreement from the histories towards those whose means are `ends`."""
        each = []
        for sign in (1, -1):
            at = [mean + sign * step * (end - mean) for mean, end in zip(means, ends, strict=True)]
            each.append(disagreement(*(side.scores(p) for side, p in zip(sides, at, strict=True))))
        return (each[0] - each[1]) / (2 * step)

    count = known.sum(1, keepdim=True)
    for place in range(history.shape[1]):
        rows = known[:, place] & (count[:, 0] > 1)
        totals = [mean * count for mean in means]
        ends = [
            (total - side.items[history[:, place].clamp(min=0)]) / (count - 1).clamp(min=1)
            for total, side in zip(totals, sides, strict=True)
        ]
        torch.testing.assert_close(found.drop[rows, place], along(ends)[rows], atol=1e-6, rtol=1e-5)
        assert torch.isneginf(found.drop[~rows, place]).all()
    for column, item in enumerate(absent.tolist()):
        rows = ~(history == item).any(1)
        ends = [(mean * count + side.items[item]) / (count + 1) for mean, side in zip(means, sides, strict=True)]
        torch.testing.assert_close(found.insert[rows, column], along(ends)[rows], atol=1e-6, rtol=1e-5)
        assert torch.isneginf(found.insert[~rows, column]).all()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("deep", [False, True])
def test_flips_move_the_models_apart_and_more_than_as_many_random_ones(count, deep):
    sides, absent = both(deep=deep), np.arange(ITEMS)
    made = flips(TRAIN, EVERYONE, absent, count, *sides)
    before, after = apart(TRAIN, sides), apart(made.interactions, sides)
    assert (after > before).double().mean() >= 0.9
    if not deep:  # there the disagreement is convex in the pooled history, and a rise to first order is a rise
        edited = torch.from_numpy(edits(made) > 0)
        assert (after > before).equal(edited)
    history = torch.from_numpy(padded(TRAIN, EVERYONE))
    possible = gains(history, torch.from_numpy(absent), *sides)
    rng = np.random.default_rng(7)
    chance = [np.where(np.isneginf(part.numpy()), -np.inf, rng.random(part.shape)) for part in possible]
    random = apart(flipped(TRAIN, EVERYONE, *chance, absent, count).interactions, sides)
    assert (after - before).mean() > 2 * (random - before).mean().clamp(min=0)
    assert (after > random).double().mean() >= 0.9


def test_the_best_edits_above_zero_are_made_and_one_item_stays():
    data = log([[1, 4, 6], [2], [0, 3]])
    drop = np.array([[3.0, 2.0, 1.0], [5.0, -np.inf, -np.inf], [-1.0, 0.0, -np.inf]])
    insert = np.array([[0.5, -1.0], [0.2, 0.1], [-2.0, -1.0]])
    absent = np.array([9, 5])
    made = [lists(flipped(data, np.arange(3), drop, insert, absent, n).interactions) for n in (0, 1, 2, 3, 9)]
    assert made == [
        [[1, 4, 6], [2], [0, 3]],
        [[4, 6], [2, 9], [0, 3]],
        [[6], [2, 5, 9], [0, 3]],
        [[6, 9], [2, 5, 9], [0, 3]],
        [[6, 9], [2, 5, 9], [0, 3]],
    ]


def test_flips_of_some_users_know_their_parents_and_moments():
    data = log([[1, 4, 6], [2], [0, 3]], timed=True)
    drop, insert = np.array([[1.0, -1.0], [-1.0, -1.0]]), np.array([[1.0], [2.0]])
    users = np.array([2, 1])
    made = flipped(data, users, drop, insert, np.array([9]), 2)
    assert made.parents.tolist() == [[2, -1], [1, -1]]
    assert made.mu.tolist() == [1.0, 1.0]
    assert lists(made.interactions) == [[3, 9], [2, 9]]
    assert made.interactions.times.tolist() == [5, 5, 3, 3]  # what is inserted has the moment of the latest


def test_what_is_made_is_a_valid_history():
    sides = both()
    made = flips(log(ROWS, timed=True), EVERYONE[::-1].copy(), np.arange(ITEMS), 4, *sides)
    found = made.interactions
    assert (np.diff(found.indptr) > 0).all()
    keys = found.users() * ITEMS + found.items
    assert len(np.unique(keys)) == len(keys)
    inside = np.diff(found.users()) == 0
    assert (np.diff(found.times)[inside] >= 0).all()
    assert edits(made).max() <= 4


def test_a_copy_of_the_teacher_leaves_nothing_to_flip():
    one = both()[0]
    made = flips(TRAIN, EVERYONE, np.arange(ITEMS), 3, one, one)
    assert lists(made.interactions) == ROWS
