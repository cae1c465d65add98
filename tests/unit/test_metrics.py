"""Ranking metrics computed by hand, and what the bootstrap promises."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest

from recdistill.metrics import (
    METRICS,
    bootstrap,
    coverage,
    hit_rate,
    hits,
    interval,
    mrr,
    ndcg,
    precision,
    recall,
    relevant,
)
from recdistill.types import Interactions

#               first and third   fourth only    nothing        all
HITS = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)
COUNT = np.array([2, 1, 3, 6])
TRUTH = Interactions(indptr=np.array([0, 2, 2, 5, 6]), items=np.array([4, 1, 0, 7, 2, 9]))


def test_hits_are_the_entries_in_the_users_truth():
    users = np.array([2, 0, 1, 3, 0])
    lists = np.array([[7, 1, 0, -1], [1, 2, 4, -1], [4, 1, 0, 7], [-1, -1, 9, 0], [50, 4, 99, -1]])
    mine = [set(TRUTH.items[TRUTH.indptr[u] : TRUTH.indptr[u + 1]].tolist()) for u in users]
    expected = [[item in truth for item in row] for row, truth in zip(lists.tolist(), mine, strict=True)]
    assert hits(lists, TRUTH, users).tolist() == expected
    assert sum(map(sum, expected)) == 6


def test_padding_never_hits_the_last_item_of_the_user_before():
    truth = Interactions(indptr=np.array([0, 1, 2]), items=np.array([3, 0]))
    assert not hits(np.array([[-1, -1]]), truth, np.array([1])).any()


def test_hits_by_brute_force():
    rng = np.random.default_rng(0)
    taken = rng.random((30, 25)) < 0.2
    truth = Interactions(indptr=np.concatenate([[0], taken.sum(1).cumsum()]), items=np.nonzero(taken)[1])
    users = rng.integers(0, 30, 50)
    lists = rng.integers(-1, 25, (50, 8))
    expected = [[item >= 0 and bool(taken[u, item]) for item in row] for u, row in zip(users, lists, strict=True)]
    assert hits(lists, truth, users).tolist() == expected


def test_no_truth_no_hits():
    empty = Interactions(indptr=np.zeros(3, np.int64), items=np.zeros(0, np.int64))
    assert hits(np.array([[0, 1], [-1, 2]]), empty, np.array([0, 1])).tolist() == [[False, False]] * 2


def test_relevant_counts_each_users_truth():
    assert relevant(TRUTH, np.array([2, 1, 0, 2])).tolist() == [3, 0, 2, 3]


def test_recall_is_over_all_that_is_relevant():
    assert recall(HITS, COUNT, 4).tolist() == pytest.approx([1, 1, 0, 4 / 6])
    assert recall(HITS, COUNT, 2).tolist() == pytest.approx([0.5, 0, 0, 2 / 6])


def test_precision_is_over_the_places():
    assert precision(HITS, COUNT, 4).tolist() == [0.5, 0.25, 0, 1]
    assert precision(HITS, COUNT, 1).tolist() == [1, 0, 0, 1]


def test_precision_of_a_list_shorter_than_k_counts_the_missing_places():
    assert precision(HITS, COUNT, 8).tolist() == [0.25, 0.125, 0, 0.5]


def test_ndcg_over_the_best_that_k_places_can_hold():
    first, second, third, fourth = 1, 1 / log2(3), 1 / 2, 1 / log2(5)
    expected = [(first + third) / (first + second), fourth / first, 0, 1]
    assert ndcg(HITS, COUNT, 4).tolist() == pytest.approx(expected)
    assert ndcg(HITS, COUNT, 2).tolist() == pytest.approx([first / (first + second), 0, 0, 1])


def test_ndcg_of_a_list_shorter_than_k_is_against_the_ideal_of_k():
    ideal = sum(1 / log2(place + 2) for place in range(6))
    found = sum(1 / log2(place + 2) for place in range(4))
    assert ndcg(HITS, COUNT, 10)[3] == pytest.approx(found / ideal)


def test_mrr_is_one_over_the_first_place_within_k():
    assert mrr(HITS, COUNT, 4).tolist() == [1, 0.25, 0, 1]
    assert mrr(HITS, COUNT, 3).tolist() == [1, 0, 0, 1]


def test_hit_is_whether_there_is_any():
    assert hit_rate(HITS, COUNT, 4).tolist() == [1, 1, 0, 1]
    assert hit_rate(HITS, COUNT, 2).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_list_is_worth_one_and_an_empty_one_nothing(name):
    perfect = np.ones((2, 5), dtype=bool)
    assert METRICS[name](perfect, np.array([5, 5]), 5).tolist() == [1, 1]
    assert METRICS[name](~perfect, np.array([5, 1]), 5).tolist() == [0, 0]


@pytest.mark.parametrize("name", METRICS)
def test_what_stands_below_k_is_not_read(name):
    tail = HITS.copy()
    tail[:, 2:] = ~tail[:, 2:]
    assert METRICS[name](HITS, COUNT, 2).tolist() == METRICS[name](tail, COUNT, 2).tolist()


def test_coverage_counts_distinct_items_of_the_first_k():
    lists = np.array([[0, 1, 5], [1, 2, 6], [-1, -1, -1]])
    assert coverage(lists, 10, 2) == pytest.approx(0.3)
    assert coverage(lists, 10, 3) == pytest.approx(0.5)


def test_a_constant_difference_has_no_spread():
    values = np.random.default_rng(1).random((200, 1))
    means = bootstrap(np.concatenate([values, values + 0.25], axis=1), 300, 0)
    low, high = interval(means[:, 1] - means[:, 0])
    assert low == pytest.approx(0.25, abs=1e-12)
    assert high == pytest.approx(0.25, abs=1e-12)
    assert np.ptp(means[:, 0]) > 0.01


def test_bootstrap_means_spread_as_the_standard_error():
    values = np.random.default_rng(2).normal(3, 2, (400, 1))
    means = bootstrap(values, 4000, 0)
    assert means.shape == (4000, 1)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)
    assert means.std() == pytest.approx(values.std() / 20, rel=0.05)


def test_a_bootstrap_is_a_function_of_its_seed():
    values = np.random.default_rng(3).random((50, 2))
    first, second, other = (bootstrap(values, 20, seed) for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(4)
    covered = 0
    for trial in range(300):
        low, high = interval(bootstrap(rng.normal(1.0, 1.0, (80, 1)), 400, trial)[:, 0])
        covered += low <= 1.0 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_an_interval_is_the_central_share_of_the_means():
    assert interval(np.arange(101.0), level=0.9) == pytest.approx((5, 95))
