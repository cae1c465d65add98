"""The label store: what is written is read, without a copy; what is damaged is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recdistill import labels as store
from recdistill.errors import ArtifactError
from recdistill.labels import coverage, missing_shards, open_labels, shard_path, write_shard

USERS, ITEMS, DEPTH = 7, 9, 3
FACTS = {"num_users": USERS, "num_items": ITEMS, "depth": DEPTH, "per_shard": 3}
# Rows of a made-up teacher: user 1 has one item, user 4 none.
LISTS = np.array([[8, 0, 3], [2, -1, -1], [1, 0, 5], [7, 6, 5], [-1, -1, -1], [4, 2, 0], [3, 8, 1]])
SCORES = np.where(LISTS < 0, -np.inf, np.arange(21.0).reshape(7, 3) * -0.5).astype(np.float32)
RESIDUAL = np.linspace(-2, 4, 7).astype(np.float32)


def write(out: Path, shard: int) -> None:
    rows = np.arange(shard * 3, min(shard * 3 + 3, USERS))
    write_shard(out, shard, rows, LISTS[rows], SCORES[rows], RESIDUAL[rows])


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    for shard in range(3):
        write(tmp_path, shard)
    (tmp_path / "labels.json").write_text(json.dumps(FACTS))
    return tmp_path


def test_what_is_written_is_read(whole: Path) -> None:
    found = open_labels(whole, num_users=USERS, num_items=ITEMS)
    assert (found.num_users, found.depth, found.per_shard) == (USERS, DEPTH, 3)
    assert [len(shard) for shard in found.items] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(found.items), LISTS)
    np.testing.assert_array_equal(np.concatenate(found.scores), SCORES)
    np.testing.assert_array_equal(np.concatenate(found.residual), RESIDUAL)


def test_take_crosses_shards_in_the_order_asked(whole: Path) -> None:
    users = np.array([6, 0, 3, 2, 2, 4])
    items, scores = open_labels(whole).take(users)
    assert (items.dtype, scores.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(items, LISTS[users])
    np.testing.assert_array_equal(scores, SCORES[users])
    nobody, _ = open_labels(whole).take(np.zeros(0, np.int64))
    assert nobody.shape == (0, DEPTH)


def test_the_lists_are_views_of_the_file(whole: Path) -> None:
    found = open_labels(whole)
    for array in (found.items[0], found.scores[1], found.residual[2]):
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_the_files_are_open_to_others(whole: Path) -> None:
    table = pl.read_ipc(f"{whole}/*.arrow")
    assert table.columns == ["user", "items", "scores", "residual"]
    assert table.schema["items"] == pl.Array(pl.Int32, DEPTH)
    assert table["user"].to_list() == list(range(USERS))
    assert table["items"].to_list() == LISTS.tolist()


def test_only_missing_shards_are_asked_for(tmp_path: Path) -> None:
    asked = [(shard, users.tolist()) for shard, users in missing_shards(tmp_path, USERS, 3)]
    assert asked == [(0, [0, 1, 2]), (1, [3, 4, 5]), (2, [6])]
    write(tmp_path, 1)
    (tmp_path / ".labels-00000.arrow.77.tmp").write_bytes(b"half")
    assert [shard for shard, _ in missing_shards(tmp_path, USERS, 3)] == [0, 2]
    assert list(missing_shards(tmp_path, 0, 3)) == []


def test_coverage_counts_lists(whole: Path) -> None:
    # 3 + 1 + 3 + 3 + 0 + 3 + 3 items in 7 lists, of which one is empty.
    assert coverage(open_labels(whole)) == {
        "users": 7,
        "users_with_labels": 6,
        "mean_length": round(16 / 7, 3),
        "shortest": 0,
    }


def cut(home: Path) -> None:
    file = shard_path(home, 1)
    file.write_bytes(file.read_bytes()[:-40])


def empty(home: Path) -> None:
    shard_path(home, 1).write_bytes(b"")


def gone(home: Path) -> None:
    shard_path(home, 1).unlink()


def swapped(home: Path) -> None:
    shard_path(home, 0).replace(home / "x")
    shard_path(home, 1).replace(shard_path(home, 0))
    (home / "x").replace(shard_path(home, 1))


def shorter(home: Path) -> None:
    rows = np.arange(3, 5)
    write_shard(home, 1, rows, LISTS[rows], SCORES[rows], RESIDUAL[rows])


def deeper(home: Path) -> None:
    write_shard(home, 1, np.arange(3, 6), np.zeros((3, 4), int), np.zeros((3, 4), np.float32), RESIDUAL[:3])


def foreign(home: Path) -> None:
    pl.DataFrame({"user": [3, 4, 5], "items": [1, 2, 3]}).write_ipc(shard_path(home, 1))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, r"labels-00001\.arrow: cannot be read as a shard of labels"),
        (empty, r"labels-00001\.arrow: cannot be read as a shard of labels"),
        (gone, r"labels-00001\.arrow: cannot be read as a shard of labels"),
        (foreign, r"labels-00001\.arrow: cannot be read as a shard of labels"),
        (swapped, r"labels-00000\.arrow: does not start at user 0"),
        (shorter, "6 users in the shards where labels.json says 7"),
        (deeper, "where labels.json says a depth of 3"),
    ],
)
def test_a_damaged_shard_is_refused(whole: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(whole)
    with pytest.raises(ArtifactError, match=says) as refused:
        open_labels(whole)
    assert refused.value.exit_code == 5
    assert refused.value.fix == "delete the directory and run the same command again"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"num_users": 7}', json.dumps(FACTS | {"depth": "3"}), json.dumps([FACTS])]
)
def test_malformed_facts_are_refused(whole: Path, text: str) -> None:
    (whole / "labels.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"labels\.json: cannot be read"):
        open_labels(whole)


@pytest.mark.parametrize("changed", [{"per_shard": 0}, {"depth": 0}, {"num_users": -1}])
def test_facts_that_make_no_sense_are_refused(whole: Path, changed: dict[str, int]) -> None:
    (whole / "labels.json").write_text(json.dumps(FACTS | changed))
    with pytest.raises(ArtifactError):
        open_labels(whole)


def test_facts_must_be_there(whole: Path) -> None:
    (whole / "labels.json").unlink()
    with pytest.raises(ArtifactError, match=r"not a label store: there is no labels\.json"):
        open_labels(whole)


def test_labels_of_other_data_are_refused(whole: Path) -> None:
    with pytest.raises(ArtifactError, match="labels over 7 users, data of 8"):
        open_labels(whole, num_users=8)
    with pytest.raises(ArtifactError, match="labels over 9 items, data of 10"):
        open_labels(whole, num_items=10)


def test_a_shard_is_in_place_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(store.pa.RecordBatchFileWriter, "write_batch", fail, raising=False)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []
