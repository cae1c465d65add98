"""The coverage report, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recdistill.coverage import coverage, share, thin, told
from recdistill.errors import ArtifactError
from recdistill.labels import Layout, Lists, shard_path, write_shard
from recdistill.types import Interactions

LISTS = np.array([[8, 0, 3], [2, -1, -1], [1, 0, 5], [7, 3, -1], [-1, -1, -1], [4, 2, 0], [3, 8, 1]])
LAYOUT = Layout(num_users=7, num_items=10, depth=3, shard_users=3)
# Users 1, 4 and 6 have nothing in training.
TRAIN = Interactions(indptr=np.array([0, 2, 2, 3, 5, 5, 6, 6]), items=np.zeros(6, np.int64))


def write(out: Path, layout: Layout, items: np.ndarray) -> None:
    for shard in range(layout.shards):
        rows = items[layout.users(shard)]
        nothing = np.zeros(rows.shape, np.float32)
        write_shard(out, layout, shard, Lists(rows, nothing, nothing[:, 0]))


def test_what_is_covered(tmp_path: Path) -> None:
    """Lists of 3, 1, 3, 2, 0, 3, 3 items; of ten items 6 and 9 are in none."""
    write(tmp_path, LAYOUT, LISTS)
    assert coverage(tmp_path, LAYOUT, TRAIN) == {
        "users": 7,
        "users_with_labels": 6,
        "users_without_labels": 1,
        "mean_length": round(15 / 7, 3),
        "shortest": 0,
        "p10_length": 0,
        "p50_length": 3,
        "p90_length": 3,
        "items_listed": 8,
        "items_listed_share": 0.8,
        "train_users": 4,
        "train_users_with_labels": 4,
        "train_users_with_labels_share": 1.0,
    }
    nobody = replace(LAYOUT, num_users=0)
    assert coverage(tmp_path, nobody, Interactions(indptr=np.zeros(1, np.int64), items=TRAIN.items[:0]))["users"] == 0


def test_lengths_by_their_place(tmp_path: Path) -> None:
    """Ten users with lists of 1 to 10 items: the first of them is the tenth, the fifth is the half."""
    layout = Layout(num_users=10, num_items=10, depth=10)
    there = np.arange(10) <= np.arange(10)[:, None]
    write(tmp_path, layout, np.where(there, np.arange(10), -1)[::-1])
    found = coverage(tmp_path, layout, Interactions(indptr=np.arange(11), items=np.zeros(10, np.int64)))
    assert [found[f"p{p}_length"] for p in (10, 50, 90)] == [1, 5, 9]
    assert (found["mean_length"], found["shortest"], found["train_users_with_labels"]) == (5.5, 1, 10)


def test_a_missing_shard_is_no_coverage(tmp_path: Path) -> None:
    write(tmp_path, LAYOUT, LISTS)
    shard_path(tmp_path, 2).unlink()
    with pytest.raises(ArtifactError, match=r"labels-00002\.arrow"):
        coverage(tmp_path, LAYOUT, TRAIN)


def test_a_share_of_nothing_is_nothing() -> None:
    assert (share(1, 3), share(0, 0), share(2, 2)) == (0.333333, 0.0, 1.0)


def test_a_report_warns_of_a_join_that_half_failed() -> None:
    counts = {"train_users": 10, "train_users_with_labels": 4, "train_users_with_labels_share": 0.4}
    joined = {"rows": 100, "rows_joined": 49, "rows_joined_share": 0.49}
    both = told({"scored_at": "2026-01-01", "coverage": counts, "joined": joined, "depth": 3})
    assert both == {"scored_at": "2026-01-01", **counts, "joined": joined}
    assert thin(both) == [
        "only 4 of 10 users with training data have a list of the teacher",
        "only 49 of 100 rows of the teacher's file have both a user and an item of the log",
    ]
    whole = told({"scored_at": "2026-01-01", "coverage": counts | {"train_users_with_labels_share": 0.5}})
    assert (thin(whole), thin({})) == ([], [])
