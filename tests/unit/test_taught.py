"""The teacher's vectors as they are compared: centred, of one scale, and as free of conventions as that can be."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.distill.graph import co_taken, smooth_all
from recdistill.taught import comparable, neighbours
from recdistill.types import Dataset, Interactions, Vectors

USERS, ITEMS, DIM = 40, 30, 6


def given(seed=0, **more):
    rng = np.random.default_rng(seed)
    users = 2 + 3 * rng.standard_normal((USERS, DIM))
    items = rng.standard_normal((ITEMS, DIM)) - 5
    return Vectors(users=users.astype(np.float32), items=items.astype(np.float32), **more)


def test_sides_are_centred_and_their_mean_squared_length_is_one():
    for side in comparable(given()):
        assert side.dtype == torch.float32
        assert side.double().mean(0).abs().max() < 1e-6
        assert side.double().square().sum(1).mean().item() == pytest.approx(1, rel=1e-5)


def test_the_result_is_the_naive_formula():
    for raw, found in zip((given().users, given().items), comparable(given()), strict=True):
        centred = raw.astype(np.float64) - raw.astype(np.float64).mean(0)
        expected = centred / np.sqrt((centred**2).sum(1).mean())
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_scale_and_origin_of_a_side_do_not_matter():
    one = given()
    other = Vectors(users=one.users * np.float32(40) + np.float32(3), items=one.items / np.float32(8))
    for a, b in zip(comparable(one), comparable(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_rotation_of_the_teacher_rotates_the_result():
    one = given()
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((DIM, DIM)))[0].astype(np.float32)
    turned = comparable(Vectors(users=one.users @ turn, items=one.items @ turn))
    for a, b in zip(comparable(one), turned, strict=True):
        torch.testing.assert_close(a @ torch.from_numpy(turn), b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("value", [1.0, -0.37, 1e3, 0.0])
def test_a_column_that_is_constant_on_one_side_is_gone_from_both(value):
    one = given()
    noise = np.random.default_rng(2).standard_normal((ITEMS, 1)).astype(np.float32)
    users = np.column_stack([one.users[:, :2], np.full(USERS, value, np.float32), one.users[:, 2:]])
    items = np.column_stack([one.items[:, :2], noise, one.items[:, 2:]])
    for swapped in (False, True):
        sides = (users, items) if not swapped else (items, users)
        found = comparable(Vectors(users=sides[0], items=sides[1]))
        expected = comparable(one)[::-1] if swapped else comparable(one)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_who_has_no_vector_stays_zeros_and_does_not_move_the_others():
    one = given()
    users = np.concatenate([np.zeros((1, DIM), np.float32), one.users, np.zeros((2, DIM), np.float32)])
    found = comparable(Vectors(users=users, items=one.items))
    assert not found[0][[0, -1, -2]].any()
    torch.testing.assert_close(found[0][1:-2], comparable(one)[0], rtol=1e-4, atol=1e-6)


def test_a_teacher_that_says_nothing_gives_no_nan():
    found = comparable(Vectors(users=np.zeros((3, 2), np.float32), items=np.ones((4, 2), np.float32)))
    assert [tuple(side.shape) for side in found] == [(3, 0), (4, 0)]


def test_the_smoothed_table_is_that_of_the_graph_of_what_is_taken_together():
    taken = np.random.default_rng(3).random((USERS, ITEMS)) < 0.2
    train = Interactions(indptr=np.concatenate([[0], taken.sum(1).cumsum()]), items=np.nonzero(taken)[1])
    dataset = Dataset(
        user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=train, valid=train, test=train
    )
    table = comparable(given())
    near, smooth = neighbours(dataset, table, neighbours=3, alpha=0.4, keep=0.5)
    for side, name in enumerate(("users", "items")):
        rows, weights = co_taken(train, num_items=ITEMS, neighbours=3, side=name)
        assert near[side][0].tolist() == rows.tolist()
        torch.testing.assert_close(near[side][1], torch.from_numpy(weights))
        expected = smooth_all(table[side].numpy(), rows, weights, alpha=0.4)
        torch.testing.assert_close(smooth[side], torch.from_numpy(expected))
        assert len(rows) == (USERS, ITEMS)[side]
