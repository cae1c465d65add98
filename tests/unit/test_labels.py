"""The label store: what is written is read, without a copy; what is damaged is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recdistill import labels as store
from recdistill.errors import ArtifactError, DataError, StageError
from recdistill.labels import Layout, Lists, open_labels, shard_path, write_shard

USERS, ITEMS, DEPTH, REST = 7, 9, 3, 2
STAMP = {"step": "aa11", "teacher": "bb22"}
LAYOUT = Layout(num_users=USERS, num_items=ITEMS, depth=DEPTH, shard_users=3, stamp=STAMP)
FACTS = {
    "num_users": USERS,
    "num_items": ITEMS,
    "depth": DEPTH,
    "per_shard": 3,
    "rest": 0,
    "along": [0, 0, 0],
    "precision": "f32",
    "stamp": STAMP,
}
# Rows of a made-up teacher: user 1 has one item, user 4 none.
LISTS = np.array([[8, 0, 3], [2, -1, -1], [1, 0, 5], [7, 6, 5], [-1, -1, -1], [4, 2, 0], [3, 8, 1]])
SCORES = np.where(LISTS < 0, -np.inf, np.arange(21.0).reshape(7, 3) * -0.5).astype(np.float32)
RESIDUAL = np.linspace(-2, 4, 7).astype(np.float32)
EXTRA = {
    "logq": np.where(LISTS % 2, np.float32(-0.5), np.float32(0)),
    "rest_items": np.arange(14).reshape(7, 2) % 9,
    "rest_scores": np.linspace(-3, 3, 14, dtype=np.float32).reshape(7, 2),
    "rest_logq": np.full((7, 2), -1.25, np.float32),
    "fold": (LISTS % 3).astype(np.int8),
}


def lists(rows: np.ndarray, names: tuple[str, ...] = ()) -> Lists:
    return Lists(LISTS[rows], SCORES[rows], RESIDUAL[rows], **{name: EXTRA[name][rows] for name in names})


def write(out: Path, shard: int) -> None:
    write_shard(out, LAYOUT, shard, lists(LAYOUT.users(shard)))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    for shard in range(3):
        write(tmp_path, shard)
    (tmp_path / "labels.json").write_text(json.dumps(FACTS))
    return tmp_path


def test_what_is_written_is_read(whole: Path) -> None:
    found = open_labels(whole, num_users=USERS, num_items=ITEMS, teacher="bb22")
    assert (found.num_users, found.depth, found.per_shard) == (USERS, DEPTH, 3)
    assert [len(shard) for shard in found.items] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(found.items), LISTS)
    np.testing.assert_array_equal(np.concatenate(found.scores), SCORES)
    np.testing.assert_array_equal(np.concatenate(found.residual), RESIDUAL)
    assert found.extra == {}


def test_take_crosses_shards_in_the_order_asked(whole: Path) -> None:
    users = np.array([6, 0, 3, 2, 2, 4])
    items, scores = open_labels(whole).take(users)
    assert (items.dtype, scores.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(items, LISTS[users])
    np.testing.assert_array_equal(scores, SCORES[users])
    nobody, _ = open_labels(whole).take(np.zeros(0, np.int64))
    assert nobody.shape == (0, DEPTH)


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_every_column_comes_back(tmp_path: Path, precision) -> None:
    """Scores in f16 keep three digits, and what is asked for is f32 whatever is stored."""
    layout = replace(LAYOUT, rest=REST, precision=precision)
    for shard in range(3):
        write_shard(tmp_path, layout, shard, lists(layout.users(shard), tuple(EXTRA)))
    (tmp_path / "labels.json").write_text(json.dumps(FACTS | {"rest": REST, "precision": precision}))
    found, users = open_labels(tmp_path), np.array([6, 0, 3, 2, 2, 4])
    assert (found.scores[0].dtype == np.float16) == (precision == "f16")
    assert not found.scores[0].flags.owndata
    _, scores = found.take(users)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, SCORES[users], rtol=5e-4)
    for name, values in EXTRA.items():
        column = found.column(name, users)
        assert column.dtype == (np.float32 if values.dtype.kind == "f" else np.int64)
        np.testing.assert_allclose(column, values[users], rtol=5e-4 if name == "rest_scores" else 0)
    np.testing.assert_array_equal(found.column("residual", users), RESIDUAL[users])
    assert found.column("fold", users[:0]).shape == (0, DEPTH)


def test_a_column_that_is_not_there_is_named(whole: Path) -> None:
    with pytest.raises(ArtifactError, match="these labels have no column logq"):
        open_labels(whole).column("logq", np.array([0]))


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


def test_a_shard_has_fewer_users_where_their_rows_are_long() -> None:
    def shards(depth: int, **more) -> int:
        layout = Layout(num_users=1_000_000, num_items=1, depth=depth, **more)
        covered = np.concatenate([layout.users(shard) for shard in range(layout.shards)])
        assert covered.tolist() == list(range(1_000_000))
        return layout.per_shard

    assert shards(10) == 65_536
    # An item costs 4 + 4 bytes in the list, and 4 + 1 for the columns a teacher may add; a user 8 + 4 besides.
    assert shards(1000) == 100_000_000 // 13_012
    assert shards(1000, precision="f16") == 100_000_000 // 11_012
    assert shards(1000, rest=500) == 100_000_000 // 19_012
    assert shards(1000, shard_users=10) == 10


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
    write_shard(home, replace(LAYOUT, num_users=5), 1, lists(np.arange(3, 5)))


def deeper(home: Path) -> None:
    wide = Lists(np.zeros((3, 4), int), np.zeros((3, 4), np.float32), RESIDUAL[:3])
    write_shard(home, replace(LAYOUT, depth=4), 1, wide)


def half(home: Path) -> None:
    write_shard(home, replace(LAYOUT, precision="f16"), 1, lists(np.arange(3, 6)))


def more(home: Path) -> None:
    write_shard(home, LAYOUT, 1, lists(np.arange(3, 6), ("logq",)))


def another(home: Path) -> None:
    write_shard(home, replace(LAYOUT, stamp=STAMP | {"teacher": "cc33"}), 1, lists(np.arange(3, 6)))


def earlier(home: Path) -> None:
    write_shard(home, replace(LAYOUT, stamp={}), 1, lists(np.arange(3, 6)))


def foreign(home: Path) -> None:
    pl.DataFrame({"user": [3, 4, 5], "items": [1, 2, 3]}).write_ipc(shard_path(home, 1))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, r"labels-00001\.arrow: cannot be read as a shard of labels"),
        (empty, r"labels-00001\.arrow: cannot be read as a shard of labels"),
        (gone, r"labels-00001\.arrow: cannot be read as a shard of labels"),
        (foreign, r"labels-00001\.arrow: cannot be read as a shard of labels \(it has the columns user, items\)"),
        (swapped, r"labels-00000\.arrow: holds 3 users, 3 to 5, where users 0 to 2 belong"),
        (shorter, r"labels-00001\.arrow: holds 2 users, 3 to 4, where users 3 to 5 belong"),
        (deeper, r"its items are of type .*\[4\].*\[3\] belongs"),
        (half, r"its scores are of type .*halffloat.*float.* belongs"),
        (more, r"has the columns .*logq where the first shard has items, scores, residual"),
        (another, "a shard of other labels: it is of teacher cc33, where teacher bb22 is expected"),
        (earlier, "a shard of other labels: it is of step unknown, where step aa11 is expected"),
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


@pytest.mark.parametrize(
    "changed", [{"per_shard": 0}, {"depth": 0}, {"num_users": -1}, {"rest": -1}, {"precision": "f8"}, {"stamp": ["a"]}]
)
def test_facts_that_make_no_sense_are_refused(whole: Path, changed: dict[str, int]) -> None:
    (whole / "labels.json").write_text(json.dumps(FACTS | changed))
    with pytest.raises(ArtifactError, match=r"labels\.json: cannot be read"):
        open_labels(whole)


def test_facts_must_be_there(whole: Path) -> None:
    (whole / "labels.json").unlink()
    with pytest.raises(ArtifactError, match=r"not a label store: there is no labels\.json"):
        open_labels(whole)


def test_labels_of_other_data_or_another_teacher_are_refused(whole: Path) -> None:
    with pytest.raises(ArtifactError, match="labels over 7 users, data of 8"):
        open_labels(whole, num_users=8)
    with pytest.raises(ArtifactError, match="labels over 9 items, data of 10"):
        open_labels(whole, num_items=10)
    with pytest.raises(ArtifactError, match="labels of teacher bb22, where teacher dd44 is asked for"):
        open_labels(whole, teacher="dd44")


BAD = lists(np.arange(3))


@pytest.mark.parametrize(
    ("given", "layout", "kind", "says"),
    [
        (BAD._replace(items=BAD.items[:2]), LAYOUT, StageError, r"items of shape \(2, 3\)"),
        (BAD._replace(scores=BAD.scores[:, :2]), LAYOUT, StageError, r"scores of shape \(3, 2\)"),
        (
            BAD._replace(scores=np.full((3, 3), np.nan, np.float32)),
            LAYOUT,
            StageError,
            "a NaN or inf among the scores, first in row 0",
        ),
        (BAD._replace(rest_items=LISTS[:3]), LAYOUT, StageError, "gives rest_items, where labels.rest is 0"),
        (BAD, replace(LAYOUT, rest=2), StageError, "no rest_items, no rest_scores, no rest_logq"),
        (BAD._replace(scores=BAD.scores - 7e4), replace(LAYOUT, precision="f16"), DataError, r"scores reach 7e\+04"),
    ],
)
def test_what_a_teacher_gives_is_checked(tmp_path: Path, given: Lists, layout: Layout, kind, says: str) -> None:
    with pytest.raises(kind, match=says):
        write_shard(tmp_path, layout, 0, given)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_is_in_place_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(store.pa.RecordBatchFileWriter, "write_batch", fail, raising=False)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []
