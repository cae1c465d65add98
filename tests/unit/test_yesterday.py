"""The day before in today's rows: who is new, who is gone, what the tables begin with, and what a log lacked."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import save_file

from recdistill.data.dataset import read_part
from recdistill.data.earlier import before, write_earlier
from recdistill.errors import ArtifactError, DataError
from recdistill.models.spec import MFSpec
from recdistill.models.tables import init_rows
from recdistill.types import Dataset, Interactions
from recdistill.yesterday import carried, kept, open_yesterday, same, write_yesterday
from recdistill.yesterday_run import finished

DIM = 4
SPEC = MFSpec(dim=DIM, temperature=0.5)


def csr(pairs: list[tuple[int, int]], users: int) -> Interactions:
    rows = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[:, 0], minlength=users))])
    return Interactions(indptr=indptr.astype(np.int64), items=rows[:, 1])


def dataset(users: list[str], items: list[int], pairs: list[tuple[str, int]]) -> Dataset:
    rows = [(users.index(u), items.index(i)) for u, i in pairs]
    parts = dict.fromkeys(("train", "valid", "test"), csr(rows, len(users)))
    return Dataset(user_ids=pl.Series(users), item_ids=pl.Series(items), **parts)


THEN = dataset(["c", "a", "d", "b"], [30, 10, 20], [("c", 30), ("a", 10), ("b", 10), ("d", 20)])
NOW = dataset(["a", "b", "c", "e", "f"], [10, 20, 30, 40], [("a", 10), ("c", 30), ("e", 40), ("f", 30), ("b", 40)])
# d is gone, e and f are new; item 40 is new, and 20 is in the log of today without being taught.
USERS, ITEMS = np.array([1, 3, 0, -1, -1]), np.array([1, -1, 0, -1])


def test_ids_are_found_wherever_they_stood() -> None:
    assert same(NOW.user_ids, THEN.user_ids, "user id").tolist() == [1, 3, 0, -1, -1]
    assert same(NOW.item_ids, THEN.item_ids, "item id").tolist() == [1, 2, 0, -1]


def test_who_was_not_taught_on_both_days_is_new() -> None:
    users, items = kept(NOW, THEN)
    np.testing.assert_array_equal(users, USERS)
    np.testing.assert_array_equal(items, ITEMS)


def test_ids_of_two_types_never_meet() -> None:
    with pytest.raises(DataError, match="nobody is in both"):
        same(pl.Series(["1", "2"]), pl.Series([1, 2]), "user id")


@pytest.fixture
def left(tmp_path):
    """What a day left: models whose vectors tell their rows."""
    rng = np.random.default_rng(0)
    models = {}
    for name in ("student", "scratch"):
        path = tmp_path / name
        path.mkdir()
        sides = {side: rng.standard_normal((n, DIM)).astype(np.float32) for side, n in (("users", 4), ("items", 3))}
        for side, values in sides.items():
            np.save(path / f"{side}.npy", values)
        save_file({f"{side[:-1]}.weight": 7 * values for side, values in sides.items()}, path / "weights.safetensors")
        models[name] = SimpleNamespace(spec=SPEC, artifact=SimpleNamespace(path=path), **sides)
    teacher = rng.standard_normal((4, 6)).astype(np.float32), rng.standard_normal((3, 6)).astype(np.float32)
    given = {name: SimpleNamespace(spec=one.spec, artifact=one.artifact) for name, one in models.items()}
    facts = write_yesterday(NOW, THEN, teacher=teacher, out=tmp_path, **given)
    return SimpleNamespace(yesterday=open_yesterday(tmp_path), facts=facts, teacher=teacher, **models)


def test_vectors_are_in_todays_rows_and_zeros_of_who_is_new(left) -> None:
    day = left.yesterday
    for found, given in ((day.student, left.student), (day.scratch, left.scratch)):
        np.testing.assert_array_equal(found.users, np.where(USERS[:, None] >= 0, given.users[USERS], 0))
        np.testing.assert_array_equal(found.items, np.where(ITEMS[:, None] >= 0, given.items[ITEMS], 0))
    np.testing.assert_array_equal(day.teacher.items, np.where(ITEMS[:, None] >= 0, left.teacher[1][ITEMS], 0))
    assert [rows.tolist() for rows in day.both] == [[0, 1, 2], [0, 2]]
    assert left.facts["both"] == {"users": 3, "items": 2}
    assert left.facts["new"] == {"users": 2, "items": 1}
    assert left.facts["gone"] == {"users": 1, "items": 1}


def test_cosines_get_their_temperature_where_scores_are_asked_for(left) -> None:
    scores = left.yesterday.scores()
    np.testing.assert_allclose(scores.users[0] @ scores.items[2], left.student.users[1] @ left.student.items[0] / 0.5)


def test_tables_begin_where_they_ended_and_who_is_new_at_random(left) -> None:
    starts = carried(left.yesterday, std=0.1, seed=3)
    rows, fresh = starts["model.user"](0, 5), init_rows("user", 0, 5, DIM, std=0.1, seed=3)
    torch.testing.assert_close(rows[:3], torch.from_numpy(7 * left.student.users[[1, 3, 0]]))
    assert torch.equal(rows[3:], fresh[3:])
    assert torch.equal(starts["model.user"](2, 4), rows[2:4])  # whichever rank asks for them
    assert torch.equal(starts["model.item"](1, 2), init_rows("item", 1, 2, DIM, std=0.1, seed=3))


def log(times: bool) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    columns = {"user": np.sort(rng.integers(9, size=50)), "item": rng.integers(20, size=50)}
    columns |= {"time": rng.permutation(50) // 3} if times else {}
    return pl.DataFrame(columns)


def test_what_came_since_is_the_newest_of_the_whole_log() -> None:
    table = log(times=True)
    for lacks, count in ((0.1, 5), (0.5, 25)):
        there = before(table, lacks=lacks, seed=0)
        assert (~there).sum() == count
        time = table["time"].to_numpy()
        assert time[there].max() <= time[~there].min()
        np.testing.assert_array_equal(there, before(table, lacks=lacks, seed=9))


def test_without_times_chance_says_what_came_since() -> None:
    table = log(times=False)
    first, second = (before(table, lacks=0.2, seed=seed) for seed in (0, 1))
    assert first.sum() == second.sum() == 40
    assert (first != second).any()
    np.testing.assert_array_equal(first, before(table, lacks=0.2, seed=0))
    assert before(table, lacks=1e-6, seed=0).all()


def test_an_earlier_split_is_read_as_every_split_is(tmp_path) -> None:
    table, divided, out = log(times=True), tmp_path / "divided", tmp_path / "out"
    for folder in (divided, out):
        folder.mkdir()
    for name in ("train", "valid", "test"):
        table.cast(pl.Int64).write_ipc(divided / f"{name}.arrow", compression="uncompressed")
    (divided / "events.json").write_text("[]")
    facts = write_earlier(divided, out, lacks=0.1, seed=0)
    assert (facts["rows"], facts["lacks"], facts["by"]) == (45, 5, "time")
    read, wanted = read_part(out / "train.arrow", 9), table.filter(before(table, lacks=0.1, seed=0))
    np.testing.assert_array_equal(read.users(), wanted["user"].to_numpy())
    np.testing.assert_array_equal(read.items, wanted["item"].to_numpy())
    assert (out / "test.arrow").read_bytes() == (divided / "test.arrow").read_bytes()
    with pytest.raises(DataError, match="nothing is left"):
        write_earlier(divided, out, lacks=0.999, seed=0)


@pytest.mark.parametrize("fingerprint", ["../../../elsewhere", "/etc", "", "ab" * 16 + "/..", "AB" * 16])
def test_a_report_cannot_name_a_directory_for_a_fingerprint(tmp_path, fingerprint):
    report = {"schema_version": 1, "name": "n", "config": {}}
    report["stages"] = [{"stage": "split", "fingerprint": fingerprint, "seconds": 1.0, "hit": True}]
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(ArtifactError, match="which is no fingerprint"):
        finished(tmp_path, tmp_path)
