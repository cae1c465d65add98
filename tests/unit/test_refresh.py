"""What a refresh changed: nothing on a quiet day, and what is known where it is planted."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recdistill.refresh import Today, measured, old_lists
from recdistill.report_form import check
from recdistill.types import Dataset, Interactions, Vectors
from recdistill.yesterday import Yesterday

USERS, ITEMS, DIM = 40, 30, 4


def csr(rows: list[list[int]]) -> Interactions:
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Interactions(indptr=indptr, items=np.array([i for row in rows for i in sorted(row)], np.int64))


RNG = np.random.default_rng(0)
TAKEN = [RNG.permutation(ITEMS)[:6].tolist() for _ in range(USERS)]
TRAIN, VALID = csr([row[:4] for row in TAKEN]), csr([row[4:] for row in TAKEN])
DATA = Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=TRAIN, valid=VALID, test=VALID)
OLD_USERS = np.where(np.arange(USERS) % 4 > 0, np.arange(USERS), -1)
OLD_ITEMS = np.where(np.arange(ITEMS) % 5 > 0, np.arange(ITEMS), -1)
ALL = {"users": np.arange(USERS), "items": np.arange(ITEMS)}


def drawn(seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    sides = [rng.standard_normal((n, DIM)).astype(np.float32) for n in (USERS, ITEMS)]
    return Vectors(users=sides[0], items=sides[1])


def day(student: Vectors, *, users=OLD_USERS, items=OLD_ITEMS, **more) -> Yesterday:
    student = Vectors(
        users=np.where(users[:, None] >= 0, student.users, 0), items=np.where(items[:, None] >= 0, student.items, 0)
    )
    given = {"scratch": student, "teacher": student} | more
    return Yesterday(users=users, items=items, student=student, temperature=1.0, **given)


def everybody(vectors: Vectors) -> Today:
    return Today(student=[vectors], scratch=[vectors], teacher=(vectors.users, vectors.items))


def naive(vectors: Vectors, items: np.ndarray, k: int) -> np.ndarray:
    """Return each user's best `k` of `items` that they did not take, one user after another."""
    lists = []
    for u in range(USERS):
        free = [i for i in items if i not in TAKEN[u]]
        best = sorted(free, key=lambda i: -float(vectors.users[u] @ vectors.items[i]))[:k]
        lists.append(best + [-1] * (k - len(best)))
    return np.array(lists)


def test_on_a_quiet_day_nothing_changed() -> None:
    vectors = drawn(1)
    found = measured(DATA, everybody(vectors), day(vectors, **ALL), (3, 5))
    assert [row["mean"] for row in found["churn"]] == [0.0] * 6
    assert {(row["model"], row["k"]) for row in found["churn"]} >= {("teacher", 3), ("student", 5)}
    assert found["continuity"]["cosine"]["as_it_is"] == pytest.approx(1)
    assert found["continuity"]["overlap"] == {"as_it_is": 1.0, "turned": 1.0}
    assert (found["new_users"], found["new_items"]) == (0, 0)


def test_yesterdays_lists_hold_what_there_was_and_nothing_that_was_taken_by_now() -> None:
    vectors, yesterday = drawn(2), day(drawn(2))
    users, items = yesterday.both
    seen = csr(TAKEN)
    for k in (5, ITEMS):
        found = old_lists(yesterday.student, users, items, k, seen)
        np.testing.assert_array_equal(found, naive(vectors, items, k)[users])


def test_churn_is_of_users_of_both_days_by_hand() -> None:
    now, then = drawn(3), drawn(4)
    found = measured(DATA, everybody(now), day(then), (5,))
    users, items = np.flatnonzero(OLD_USERS >= 0), np.flatnonzero(OLD_ITEMS >= 0)
    lists = naive(now, np.arange(ITEMS), 5), naive(then, items, 5)
    each = [1 - len(set(lists[0][u]) & set(lists[1][u])) / 5 for u in users]
    for row in found["churn"]:
        assert row["mean"] == pytest.approx(np.mean(each))
        assert row["p95"] == pytest.approx(np.quantile(each, 0.95))
    assert (found["users"], found["new_users"]) == (30, 10)
    assert (found["items"], found["new_items"]) == (24, len(set(np.unique(TRAIN.items)) - set(items)))


def test_seeds_are_each_held_against_the_one_student_of_yesterday() -> None:
    now, then = [drawn(5), drawn(6)], drawn(7)
    alone = [measured(DATA, everybody(v), day(then), (5,))["churn"][-1]["mean"] for v in now]
    both = measured(DATA, Today(student=now, scratch=now), day(then), (5,))["churn"]
    assert [row["model"] for row in both] == ["scratch", "student"]  # whose teacher has no vectors is not measured
    assert both[-1]["mean"] == pytest.approx(np.mean(alone))
    assert both[-1]["seeds"] == 2


def test_a_student_that_turned_over_night_is_whole_again_once_it_is_turned_back() -> None:
    then, turn = drawn(8), np.linalg.qr(np.random.default_rng(9).standard_normal((DIM, DIM)))[0].astype(np.float32)
    now = Vectors(users=then.users @ turn, items=then.items @ turn)
    found = measured(DATA, everybody(now), day(then, **ALL), (5,))
    assert found["churn"][-1]["mean"] == 0
    kept = found["continuity"]
    assert kept["cosine"]["as_it_is"] < 0.5
    assert kept["overlap"]["as_it_is"] < 0.6
    assert kept["cosine"]["turned"] == pytest.approx(1)
    assert kept["overlap"]["turned"] == 1


def test_what_cannot_be_measured_is_left_out() -> None:
    wide = Vectors(users=np.ones((USERS, DIM + 1), np.float32), items=np.ones((ITEMS, DIM + 1), np.float32))
    assert measured(DATA, everybody(wide), day(drawn(1)), (5,))["continuity"] is None
    few = {"users": np.full(USERS, -1), "items": np.arange(ITEMS)}
    nobody = measured(DATA, everybody(drawn(1)), day(drawn(1), **few), (5,))
    assert (nobody["churn"], nobody["continuity"]) == ([], None)
    few["users"][:2] = [0, 1]
    few["items"] = np.where(np.arange(ITEMS) < 1, 0, -1)  # three rows, and four dimensions
    assert measured(DATA, everybody(drawn(1)), day(drawn(1), **few), (5,))["continuity"] is None


def test_what_is_measured_has_the_form_of_a_report() -> None:
    found = measured(DATA, everybody(drawn(3)), day(drawn(4)), (5, 10))
    assert check({"schema_version": 1, "name": "day", "refresh": found})["refresh"] == found
