"""The evaluation on planted lists whose every number is known."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from recdistill import evaluate as module
from recdistill.evaluate import evaluate, merge, popularity_lists
from recdistill.types import Dataset, Interactions


def interactions(rows, times=None):
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    flat = np.array([item for row in rows for item in row], dtype=np.int64)
    when = None if times is None else np.array([t for row in times for t in row], dtype=np.int64)
    return Interactions(indptr=indptr, items=flat, times=when)


DATASET = Dataset(
    user_ids=pl.Series(["a", "b", "c", "d"]),
    item_ids=pl.Series(range(6)),
    train=interactions([[0, 1], [0, 2], [0, 1], [0]]),
    valid=interactions([[], [], [], []]),
    test=interactions([[3, 4], [3, 5], [], [1, 4]]),
)
USERS = np.array([0, 1, 3])
PERFECT = np.array([[3, 4], [5, 3], [4, 1]])
HALF = np.array([[3, 2], [1, 3], [1, 2]])  # one of the two relevant items of each
NOTHING = np.array([[2, 5], [1, 4], [2, -1]])


def measure(lists, *, metrics=("recall",), k=(2,), slices=(), times=200):
    found = {model: [value] if isinstance(value, np.ndarray) else value for model, value in lists.items()}
    return evaluate(found, DATASET, USERS, k=k, metrics=metrics, slices=slices, times=times, seed=0)


def value(result, **wanted):
    rows = [row for row in result["quality"] if all(row[name] == given for name, given in wanted.items())]
    assert len(rows) == 1
    return rows[0]


# merge, popularity


def test_merge_puts_each_users_items_in_times_order():
    first = interactions([[1, 2], [], [3]], [[10, 30], [], [5]])
    second = interactions([[4], [5], [6, 7]], [[20], [1], [2, 9]])
    both = merge(first, second)
    assert both.indptr.tolist() == [0, 3, 4, 7]
    assert both.items.tolist() == [1, 4, 2, 5, 6, 3, 7]
    assert both.times.tolist() == [10, 20, 30, 1, 2, 5, 9]


def test_merge_keeps_the_first_part_first_where_times_are_equal_or_there_are_none():
    timed = merge(interactions([[9, 2]], [[1, 5]]), interactions([[1, 0]], [[5, 5]]))
    assert timed.items.tolist() == [9, 2, 1, 0]
    plain = merge(interactions([[9, 2], [4]]), interactions([[1], [0]]))
    assert plain.items.tolist() == [9, 2, 1, 4, 0]
    assert plain.times is None


def test_popularity_is_by_training_count_then_row_without_what_was_seen():
    found = popularity_lists(DATASET, np.array([3, 0]), 3, DATASET.train)
    assert found.tolist() == [[1, 2, 3], [2, 3, 4]]
    nobody = interactions([[], [], [], []])
    assert popularity_lists(DATASET, np.array([1]), 7, nobody).tolist() == [[0, 1, 2, 3, 4, 5, -1]]


# quality


@pytest.mark.parametrize("metric", ["recall", "ndcg", "mrr", "hit", "precision"])
def test_a_perfect_model_gets_one_and_its_opposite_nothing(metric):
    result = measure({"teacher": PERFECT, "scratch": NOTHING}, metrics=(metric,))
    best, worst = value(result, model="teacher"), value(result, model="scratch")
    assert (best["value"], best["low"], best["high"]) == pytest.approx((1, 1, 1))
    assert (worst["value"], worst["low"], worst["high"]) == (0, 0, 0)


def test_every_model_metric_and_depth_has_its_row():
    result = measure({"a": PERFECT, "b": HALF}, metrics=("recall", "ndcg"), k=(1, 2))
    keys = [(row["model"], row["metric"], row["k"], row["slice"]) for row in result["quality"]]
    assert sorted(keys) == [(m, q, k, "all") for m in "ab" for q in ("ndcg", "recall") for k in (1, 2)]
    assert value(result, model="b", metric="recall", k=1)["value"] == pytest.approx((0.5 + 0 + 0.5) / 3)


def test_the_interval_is_over_users():
    mixed = np.array([PERFECT[0], NOTHING[1], NOTHING[2]])
    row = value(measure({"teacher": mixed}, times=4000), model="teacher")
    assert row["value"] == pytest.approx(1 / 3)
    # Among three resampled users, none hits in 8/27 of the samples and all hit in 1/27.
    assert (row["low"], row["high"]) == pytest.approx((0, 1))


def test_a_models_value_is_the_mean_of_its_seeds():
    row = value(measure({"student": [PERFECT, HALF]}), model="student")
    assert row["value"] == pytest.approx(0.75)
    assert row["seed_spread"] == pytest.approx(math.sqrt(0.125))
    assert value(measure({"student": HALF}), model="student")["seed_spread"] is None


def test_coverage_is_of_the_catalogue():
    row = value(measure({"teacher": PERFECT}, metrics=("coverage",)), model="teacher")
    assert row["value"] == pytest.approx(4 / 6)
    assert value(measure({"t": [PERFECT, NOTHING]}, metrics=("coverage",), k=(1,)), model="t")[
        "value"
    ] == pytest.approx((3 / 6 + 2 / 6) / 2)


def test_users_with_and_without_test_are_counted():
    result = measure({"teacher": PERFECT})
    assert (result["users"], result["users_without_test"]) == (3, 1)


# the gap


def test_half_way_closes_half_of_the_gap_on_every_resample():
    result = measure({"teacher": PERFECT, "scratch": NOTHING, "student": HALF})
    (gap,) = result["gap_closed"]
    assert (gap["share"], gap["low"], gap["high"]) == pytest.approx((0.5, 0.5, 0.5))
    (gain,) = result["student_minus_scratch"]
    assert (gain["difference"], gain["low"], gain["high"]) == pytest.approx((0.5, 0.5, 0.5))


def test_the_gap_is_paired_by_user():
    some = np.array([PERFECT[0], NOTHING[1], HALF[2]])
    result = measure({"teacher": PERFECT, "scratch": some, "student": some})
    (gain,) = result["student_minus_scratch"]
    assert (gain["difference"], gain["low"], gain["high"]) == (0, 0, 0)


@pytest.mark.parametrize(("teacher", "scratch"), [(HALF, HALF), (NOTHING, HALF)])
def test_a_teacher_not_above_scratch_leaves_no_gap_to_close(teacher, scratch):
    (gap,) = measure({"teacher": teacher, "scratch": scratch, "student": PERFECT})["gap_closed"]
    assert all(math.isnan(gap[name]) for name in ("share", "low", "high"))


def test_without_a_teacher_there_is_a_difference_but_no_gap():
    result = measure({"scratch": NOTHING, "student": HALF})
    assert result["gap_closed"] == []
    assert len(result["student_minus_scratch"]) == 1


def test_what_is_kept_of_the_teacher_is_paired_by_user():
    # Whoever is resampled, half of every user's value is half of the sum; of a teacher without any there is no share.
    result = measure({"teacher": PERFECT, "student": HALF, "student@index": PERFECT})
    rows = {row["model"]: (row["share"], row["low"], row["high"]) for row in result["kept_of_teacher"]}
    assert rows == {"student": pytest.approx((0.5, 0.5, 0.5)), "student@index": pytest.approx((1.0, 1.0, 1.0))}
    (row,) = measure({"teacher": NOTHING, "student": HALF})["kept_of_teacher"]
    assert math.isnan(row["share"])


# slices


def test_popularity_slices_judge_each_group_of_items_by_itself():
    # Training counts 4, 2, 1, 0, 0, 0: the head is item 0, the middle item 1, the tail the rest.
    result = measure({"student": HALF}, slices=("popularity",))
    names = {row["slice"] for row in result["quality"]}
    assert names == {"all", "popularity:middle", "popularity:tail"}  # nobody has a head item to find
    assert value(result, slice="popularity:middle")["value"] == 1  # d's item 1
    assert value(result, slice="popularity:tail")["value"] == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_activity_slices_judge_each_group_of_users_by_itself():
    # d has one training item, the others two: low is d and a, medium b, high c, who has nothing to find.
    lists = np.array([PERFECT[0], NOTHING[1], HALF[2]])
    result = measure({"student": lists}, slices=("activity",))
    assert value(result, slice="activity:low")["value"] == pytest.approx(0.75)
    assert value(result, slice="activity:medium")["value"] == 0
    assert {row["slice"] for row in result["quality"]} == {"all", "activity:low", "activity:medium"}


@pytest.mark.parametrize("kind", ["popularity", "activity"])
def test_slices_partition_the_truth(kind):
    rng = np.random.default_rng(0)
    train, test = (interactions([np.flatnonzero(row) for row in rng.random((40, 30)) < s]) for s in (0.3, 0.1))
    dataset = Dataset(user_ids=pl.Series(range(40)), item_ids=pl.Series(range(30)), train=train, valid=test, test=test)
    (_, whole), *parts = module._slices(dataset, [kind])
    assert len(parts) == 3
    pairs = [set(zip(p.users().tolist(), p.items.tolist(), strict=True)) for _, p in parts]
    assert all(pairs)
    assert sum(map(len, pairs)) == len(whole)
    assert set.union(*pairs) == set(zip(whole.users().tolist(), whole.items.tolist(), strict=True))
