"""The gain on spoilt logs, of planted lists: each is held against the log as it is, user by user."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recdistill.diagnosis.lists import Measure
from recdistill.diagnosis.robust import lost, tabled
from recdistill.spoil import Spoil
from recdistill.types import Dataset, Interactions

USERS, ITEMS = 60, 30
HOW = Measure("recall", 5, 300, 0)


def interactions(rows: np.ndarray) -> Interactions:
    n, width = rows.shape
    return Interactions(indptr=np.arange(n + 1) * width, items=np.sort(rows, axis=1).ravel())


@pytest.fixture(scope="module")
def planted():
    """Return data with four held-out items each, and the function that gives lists with so many of them."""
    rng = np.random.default_rng(0)
    order = np.argsort(rng.random((USERS, ITEMS)), axis=1)
    ids = {"user_ids": pl.Series(range(USERS)), "item_ids": pl.Series(range(ITEMS))}
    parts = [interactions(order[:, a:b]) for a, b in ((0, 5), (5, 6), (6, 10))]
    data = Dataset(**ids, train=parts[0], valid=parts[1], test=parts[2])

    def right(count: int, who: slice = slice(None)) -> np.ndarray:
        lists = order[:, 10:15].copy()
        lists[who, :count] = order[who, 6 : 6 + count]
        return lists

    return data, right


def test_gains_and_their_changes_are_those_that_were_planted(planted) -> None:
    data, right = planted
    clean = {"teacher": [right(4)], "scratch": [right(2), right(2)], "student": [right(3), right(3)]}
    noisy = {"teacher": [right(3)], "scratch": [right(0), right(0)], "student": [right(3), right(1)]}
    same = {"teacher": [right(4)], "scratch": [right(1), right(1)], "student": [right(2), right(2)]}
    shown = [(None, clean), (Spoil("noise", 0.4), noisy), (Spoil("imbalance", 0.5), same)]
    first, second, third = tabled(shown, data, np.arange(USERS), HOW)
    assert [(r.spoil, r.fraction) for r in (first, second, third)] == [("clean", 0), ("noise", 0.4), ("imbalance", 0.5)]
    assert (first.teacher, first.scratch, first.student) == (1.0, 0.5, 0.75)
    assert (first.gain, first.low, first.high, first.change) == (0.25, 0.25, 0.25, None)
    assert second.gain == 0.5
    assert (second.least, second.most) == (0.25, 0.75)
    assert (second.change, second.change_low, second.change_high) == (0.25, 0.25, 0.25)
    assert (third.change, third.least, third.most) == (0, 0.25, 0.25)
    assert first.tail_student > first.tail_scratch


def test_a_change_of_a_few_users_is_not_sure(planted) -> None:
    data, right = planted
    clean = {"teacher": [right(4)], "scratch": [right(1)], "student": [right(2)]}
    other = {"teacher": [right(4)], "scratch": [right(1)], "student": [right(3, slice(2))]}
    other["student"][0][2:] = right(2)[2:]
    _, row = tabled([(None, clean), (Spoil("noise", 0.2), other)], data, np.arange(USERS), HOW)
    assert row.change == pytest.approx(2 * 0.25 / USERS)
    assert row.change_low == 0
    assert row.least is None  # of one seed there is no spread


def test_what_is_lost_is_what_nobody_has_any_more() -> None:
    clean = Interactions(indptr=np.array([0, 2, 4]), items=np.array([1, 5, 1, 3]))
    other = Interactions(indptr=np.array([0, 2, 3]), items=np.array([1, 3, 3]))
    found = lost(clean, other, 6)
    assert found.indptr.tolist() == [0, 1, 2]
    assert found.items.tolist() == [5, 1]
