"""How popular what is shown is: the mean number of training interactions of the first items of a list."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recdistill.evaluate import evaluate, popularity
from recdistill.types import Dataset, Interactions

COUNTS = np.array([9, 5, 1, 0])


def test_it_is_the_mean_over_the_first_items() -> None:
    lists = np.array([[0, 1, 2], [2, 3, 0]])
    assert popularity(lists, COUNTS, 1).tolist() == [9, 1]
    assert popularity(lists, COUNTS, 2).tolist() == [7, 0.5]
    assert popularity(lists, COUNTS, 9).tolist() == [5, pytest.approx(10 / 3)]


def test_places_without_an_item_do_not_count() -> None:
    assert popularity(np.array([[1, -1, -1], [-1, -1, -1]]), COUNTS, 3).tolist() == [5, 0]


def test_no_list_is_more_popular_than_the_most_popular_items() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 50, 30)
    best = popularity(np.argsort(-counts)[None, :5], counts, 5)[0]
    lists = np.stack([rng.permutation(30)[:5] for _ in range(200)])
    assert (popularity(lists, counts, 5) <= best).all()


def test_a_report_has_it_for_every_model_with_an_interval_and_calls_it_no_gain() -> None:
    def parts(*rows: list[int]) -> Interactions:
        flat = np.array([item for row in rows for item in row], dtype=np.int64)
        return Interactions(indptr=np.concatenate([[0], np.cumsum([len(row) for row in rows])]), items=flat)

    dataset = Dataset(
        user_ids=pl.Series(["a", "b"]),
        item_ids=pl.Series(range(4)),
        train=parts([0, 1], [0]),
        valid=parts([], []),
        test=parts([2], [3]),
    )
    lists = {"scratch": [np.array([[0, 1], [2, 3]])], "student": [np.array([[0, 1], [0, 1]]), np.array([[2], [3]])]}
    how = {"k": [2], "metrics": ["popularity"], "slices": [], "times": 50, "seed": 0}
    found = evaluate(lists, dataset, np.array([0, 1]), **how)
    rows = {row["model"]: row for row in found["quality"]}
    assert rows["scratch"]["value"] == 0.75
    assert (rows["scratch"]["low"], rows["scratch"]["high"], rows["scratch"]["seed_spread"]) == (0.0, 1.5, None)
    assert rows["student"]["value"] == 0.75
    assert rows["student"]["seed_spread"] == pytest.approx(1.5 / np.sqrt(2))
    assert found["student_minus_scratch"] == []
