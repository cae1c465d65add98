"""Shard by shard: what is there is not done again, shares add up to the whole, and only the whole is finished."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from recdistill.errors import ArtifactError, ConfigError
from recdistill.labels import Layout, Lists, open_labels, shard_path
from recdistill.shards import Share, check_fresh, finish, missing, spans, write_shards
from recdistill.store import Step, build
from recdistill.types import Interactions, quiet
from recdistill.whole import signature
from recdistill.world import World

USERS, ITEMS, DEPTH = 40, 30, 4
LAYOUT = Layout(num_users=USERS, num_items=ITEMS, depth=DEPTH, shard_users=16, stamp={"step": "s1", "teacher": "t1"})
TRAIN = Interactions(indptr=np.arange(USERS + 1), items=np.zeros(USERS, np.int64))
FACTS = {"teacher": "mf"}


def teacher(asked: list[list[int]] | None = None):
    """Return what makes a lister of a made-up teacher, which notes what it is asked."""

    def lister(users):
        if asked is not None:
            asked.append(users.tolist())
        items = (users[:, None] * 7 + np.arange(DEPTH)) % ITEMS
        scores = users[:, None] - np.arange(DEPTH, dtype=np.float32)
        return Lists(items, scores.astype(np.float32), np.zeros(len(users), np.float32))

    return lambda: lister


def never():
    raise AssertionError("the teacher was loaded")


def files(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


@pytest.mark.parametrize("at", [9, 200, -30])
def test_a_shard_of_which_a_bit_has_flipped_is_refused_and_made_again(tmp_path: Path, at: int):
    write_shards(tmp_path, LAYOUT, teacher(), quiet, Share(1, 2))
    before, path = files(tmp_path), shard_path(tmp_path, 2)
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    for work in (
        lambda: write_shards(tmp_path, LAYOUT, never, quiet, Share()),
        lambda: finish(tmp_path, LAYOUT, {}, TRAIN),
    ):
        with pytest.raises(ArtifactError, match="labels-00002"):
            work()
    path.unlink()
    write_shards(tmp_path, LAYOUT, teacher(), quiet, Share(1, 2))
    assert files(tmp_path) == before
    signature(path).unlink()  # as of a shard that was copied here without it
    write_shards(tmp_path, LAYOUT, teacher(), quiet, Share())
    finish(tmp_path, LAYOUT, FACTS, TRAIN)
    assert {"labels-00000.arrow", "labels-00001.arrow", "labels-00002.arrow", "labels.json"} <= set(files(tmp_path))


def test_a_shard_is_signed_before_it_has_its_name_and_until_its_manifest_has_its_hash(tmp_path: Path, monkeypatch):
    renamed: list[tuple[str, list[str]]] = []
    rename = os.replace

    def replace(source: Path, target: Path) -> None:
        there = sorted(file.name for file in Path(target).parent.iterdir() if file.suffix == ".sha256")
        renamed.append((Path(target).name, there))
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)

    def work(out: Path) -> None:
        write_shards(out, LAYOUT, teacher(), quiet, Share())
        finish(out, LAYOUT, FACTS, TRAIN)

    step = Step("labels", 1, {}, {}, resumes=True)
    made = build(tmp_path, World(), step, work)
    signed = [f".labels-{n:05d}.arrow.sha256" for n in range(3)]
    assert [there for name, there in renamed if name == "labels-00001.arrow"] == [signed[:2]]
    assert [there for name, there in renamed if name == "manifest.json"] == [signed]
    assert {file.suffix for file in made.path.iterdir()} == {".arrow", ".json"}
    assert set(made.manifest.files) == {*(f"labels-{n:05d}.arrow" for n in range(3)), "labels.json"}


def test_labels_are_written_by_shard_and_resumed(tmp_path: Path):
    asked: list[list[int]] = []
    said = write_shards(tmp_path, LAYOUT, teacher(asked), quiet, Share())
    assert said == {"written": [0, 1, 2], "shards": 3, "missing": []}
    assert asked == [list(range(16)), list(range(16, 32)), list(range(32, 40))]
    facts = finish(tmp_path, LAYOUT, FACTS, TRAIN)
    before = files(tmp_path)
    assert json.loads(before["labels.json"]) == {k: v for k, v in facts.items() if k != "scored_at"}
    assert (facts["per_shard"], facts["num_items"], facts["teacher"]) == (16, ITEMS, "mf")
    assert facts["coverage"]["users_with_labels"] == 40

    shard_path(tmp_path, 1).unlink()
    asked.clear()
    assert write_shards(tmp_path, LAYOUT, teacher(asked), quiet, Share())["written"] == [1]
    assert asked == [list(range(16, 32))]
    finish(tmp_path, LAYOUT, FACTS, TRAIN)
    assert files(tmp_path) == before
    items, _ = open_labels(tmp_path).take(np.arange(USERS))
    np.testing.assert_array_equal(items, (np.arange(USERS)[:, None] * 7 + np.arange(DEPTH)) % ITEMS)


def test_where_nothing_is_missing_the_teacher_is_not_even_loaded(tmp_path: Path):
    write_shards(tmp_path, LAYOUT, teacher(), quiet, Share())
    assert write_shards(tmp_path, LAYOUT, never, quiet, Share())["written"] == []
    assert write_shards(tmp_path, LAYOUT, never, quiet, Share(9, 9)) == {"written": [], "shards": 3, "missing": []}


def test_shares_make_the_whole(tmp_path: Path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "shared").mkdir()
    write_shards(tmp_path / "alone", LAYOUT, teacher(), quiet, Share())
    last = write_shards(tmp_path / "shared", LAYOUT, teacher(), quiet, Share(2, 2))
    assert last == {"written": [1], "shards": 3, "missing": [0, 2]}
    first = write_shards(tmp_path / "shared", LAYOUT, teacher(), quiet, Share(1, 2))
    assert first == {"written": [0, 2], "shards": 3, "missing": []}
    for out in ("alone", "shared"):
        finish(tmp_path / out, LAYOUT, FACTS, TRAIN)
    assert files(tmp_path / "alone") == files(tmp_path / "shared")


def test_progress_counts_the_users_of_the_share(tmp_path: Path):
    told: list[tuple[str, int, int]] = []
    write_shards(
        tmp_path, LAYOUT, teacher(), lambda what, done, total, _: told.append((what, done, total)), Share(1, 2)
    )
    assert told == [("label", 16, 24), ("label", 24, 24)]


def test_every_missing_shard_is_named_at_once(tmp_path: Path):
    layout = replace(LAYOUT, shard_users=4)
    write_shards(tmp_path, layout, teacher(), quiet, Share(2, 3))
    (tmp_path / ".labels-00002.arrow.77.tmp").write_bytes(b"half")
    assert missing(tmp_path, layout) == [0, 2, 3, 5, 6, 8, 9]
    with pytest.raises(ArtifactError, match="7 of 10 shards are missing: 0, 2-3, 5-6, 8-9\n") as refused:
        finish(tmp_path, layout, FACTS, TRAIN)
    assert "--shard i/n" in str(refused.value.fix)
    assert not (tmp_path / "labels.json").exists()
    assert list(spans([])) == []
    assert list(spans([4, 5, 6])) == ["4-6"]


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize(
    ("other", "says"),
    [
        (replace(LAYOUT, stamp={"step": "s1", "teacher": "t2"}), "is of teacher t2, where teacher t1 is expected"),
        (replace(LAYOUT, stamp={"step": "s2", "teacher": "t1"}), "is of step s2, where step s1 is expected"),
        (replace(LAYOUT, shard_users=8), "holds 8 users, 8 to 15, where users 16 to 31 belong"),
        (replace(LAYOUT, precision="f16"), "halffloat"),
    ],
)
def test_a_shard_of_other_labels_is_refused_before_and_after(tmp_path: Path, other: Layout, says: str, late: bool):
    """Before anything is spent, and again when all is said to be there; and nothing of it is touched."""
    write_shards(tmp_path, other, teacher(), quiet, Share(2, 99))
    before = files(tmp_path)
    with pytest.raises(ArtifactError, match=says) as refused:
        finish(tmp_path, LAYOUT, FACTS, TRAIN) if late else write_shards(tmp_path, LAYOUT, never, quiet, Share())
    assert "labels-00001.arrow" in str(refused.value)
    assert "delete this file" in str(refused.value.fix)
    assert files(tmp_path) == before


def test_labels_are_as_old_as_their_oldest_shard(tmp_path: Path):
    write_shards(tmp_path, LAYOUT, teacher(), quiet, Share())
    moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    os.utime(shard_path(tmp_path, 1), (moment.timestamp(),) * 2)
    assert finish(tmp_path, LAYOUT, FACTS, TRAIN)["scored_at"] == "2026-03-04T05:06:07+00:00"
    assert b"2026" not in files(tmp_path)["labels.json"]


def test_old_labels_and_those_of_another_teacher_are_refused(tmp_path: Path):
    scored = datetime(2026, 3, 1, tzinfo=UTC)
    facts = {"scored_at": scored.isoformat(), "stamp": {"teacher": "t1"}}
    check_fresh(tmp_path, facts, "t1", 7, scored + timedelta(days=6, hours=23))
    check_fresh(tmp_path, facts, "t1", None, scored + timedelta(days=4000))
    says = r"scored at 2026-03-01T00:00:00\+00:00, 7\.5 days ago; labels\.ttl_days is 7\n  fix: delete the directory"
    with pytest.raises(ArtifactError, match=says):
        check_fresh(tmp_path, facts, "t1", 7, scored + timedelta(days=7, hours=12))
    with pytest.raises(ArtifactError, match="labels of teacher t1, where teacher t2 is asked for"):
        check_fresh(tmp_path, facts, "t2", None, scored)


def test_shares_are_counted_from_one():
    assert Share.parse("2/3") == Share(2, 3)
    assert [shard for shard in range(7) if Share(2, 3).owns(shard)] == [1, 4]
    assert str(Share(2, 3)) == "2/3"
    for text in ("0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "-1/2", "", " 1/2", "1 / 2"):
        with pytest.raises(ConfigError, match="names no share") as refused:
            Share.parse(text)
        assert refused.value.exit_code == 2
