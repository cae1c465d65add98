"""Fewer users to learn from: how many are left, who they are, and that a training climbs down with them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from recdistill import ladder
from recdistill.guide import Guide, Rungs
from recdistill.types import Interactions
from recdistill.world import World


def test_equal_cuts_and_then_the_floor():
    assert ladder.rungs(1000, keep=0.7, steps=6, most=8) == [1000, 950, 900, 850, 800, 750, 700, 700, 700]
    assert ladder.rungs(10, keep=0.5, steps=1, most=2) == [10, 5, 5]
    assert ladder.rungs(7, keep=0.5, steps=3, most=0) == [7]


def test_doubt_is_one_of_an_even_list_and_nothing_of_a_sure_one():
    scores = np.array([[2.0, 2.0, 2.0], [900.0, 0.0, 0.0], [1.0, 1.0, -np.inf], [-np.inf] * 3])
    assert ladder.doubts(scores) == pytest.approx([1.0, 0.0, 1.0, 0.0])


def test_the_unsure_stay_and_equals_in_order():
    record, times = np.array([0.2, 0.9, 0.5, 0.5, 0.8]), np.ones(5, dtype=np.int64)
    everybody = np.arange(5, dtype=np.int32)
    assert ladder.left(record, times, everybody, 3).tolist() == [1, 2, 4]
    assert ladder.left(record, times, np.array([0, 2, 3], np.int32), 2).tolist() == [2, 3]
    # Of the same mean, who was looked at more often counts a little more.
    assert ladder.left(np.array([1.0, 2.0]), np.array([1, 2]), np.array([0, 1], np.int32), 1).tolist() == [1]


def test_a_guide_keeps_whom_the_student_does_not_know(tmp_path):
    """The first half of the users are sure of one item, the others of none."""
    users = np.zeros((20, 4), np.float32)
    users[:10, 0] = 50.0
    items = np.eye(6, 4, dtype=np.float32)
    none = Interactions(indptr=np.zeros(21, np.int64), items=np.zeros(0, np.int64))

    def guide():
        return Guide(
            out=tmp_path,
            world=World(),
            ask=lambda: {"student": (users, items)},
            train=none,
            depth=6,
            every=10,
            rungs=Rungs(keep=0.5, steps=2, temperature=1.0),
            follows=False,
        )

    one = guide()
    sizes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(0, 41, 10):
            one.prepare(step)
            sizes.append(len(one.kept()))
    assert sizes == [20, 15, 10, 10, 10]
    assert one.kept().tolist() == list(range(10, 20))
    assert one.student(np.arange(2)) is None
    again = guide()  # a run that goes on reads what the last refresh wrote
    again.prepare(45)
    assert again.kept().tolist() == one.kept().tolist()
