"""Each split holds out what it says; what is written reads back mapped; the same inputs give the same bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from recdistill.data.dataset import read_dataset
from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec
from recdistill.data.split import (
    Given,
    GlobalTime,
    LeaveLast,
    SplitSpec,
    UserChronological,
    UserRandom,
    id_order,
    split,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """Return 40 users with 1 to 30 interactions each, at times of which many are equal."""
    home = tmp_path_factory.mktemp("log")
    rng = np.random.default_rng(3)
    rows = [
        (u, int(i), int(t), "test" if n % 4 == 3 else "train")
        for u in range(40)
        for n, (i, t) in enumerate(zip(rng.permutation(60)[: 1 + u % 30], rng.integers(50, size=60), strict=False))
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "t", "part"], orient="row")
    frame.write_parquet(home / "log.parquet")
    spec = LogSpec(path=str(home / "log.parquet"), user="user_id", item="item_id", time="t", split="part")
    ingest(spec, None, home / "in", now=NOW)
    return home / "in"


ALL = ["cold_users", "cold_items", "id_order", "overlap", "time_leakage"]
KINDS = [
    GlobalTime(),
    UserChronological(kind="user_chronological", valid_fraction=0.2, test_fraction=0.3),
    LeaveLast(kind="leave_last"),
    UserRandom(kind="user_random", seed=5),
    Given(kind="given"),
]


def parts(out: Path) -> dict[str, pl.DataFrame]:
    return {name: pl.read_ipc(out / f"{name}.arrow") for name in ("train", "valid", "test")}


@pytest.mark.parametrize("spec", KINDS, ids=lambda s: s.kind)
def test_every_row_is_in_one_part_and_in_order(log, tmp_path, spec):
    spec = spec.model_copy(update={"allow": ALL})
    facts = split(log, spec, tmp_path / "out")
    found = parts(tmp_path / "out")
    whole = pl.read_parquet(log / "log.parquet").select("user", "item", "time")
    assert sorted(pl.concat(found.values()).rows()) == sorted(whole.rows())
    for name, part in found.items():
        assert part.rows() == sorted(part.rows(), key=lambda r: (r[0], r[2], r[1]))
        assert facts["rows"][name] == part.height > 0
        assert facts["users"][name] == len({r[0] for r in part.rows()})
    split(log, spec, tmp_path / "again")
    for file in (tmp_path / "out").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    assert json.loads((tmp_path / "out/lint.json").read_text())["findings"] == facts["lint"]


def test_global_time_lets_nothing_of_train_be_as_late_as_test(log, tmp_path):
    split(log, GlobalTime(valid_fraction=0.1, test_fraction=0.2, allow=ALL), tmp_path / "out")
    p = parts(tmp_path / "out")
    assert p["train"]["time"].max() < p["valid"]["time"].min()
    assert p["valid"]["time"].max() < p["test"]["time"].min()
    total = sum(x.height for x in p.values())
    assert p["test"].height >= 0.2 * total  # ties of the cut's moment fall after it


@pytest.mark.parametrize("spec", KINDS[1:4], ids=lambda s: s.kind)
def test_per_user_counts_are_the_documented_ones(log, tmp_path, spec):
    split(log, spec.model_copy(update={"allow": ALL}), tmp_path / "out")
    p = parts(tmp_path / "out")
    sizes = {name: dict(part.group_by("user").len().rows()) for name, part in p.items()}
    v, t = (0.2, 0.3) if spec.kind == "user_chronological" else (0.1, 0.1)
    for user, n in pl.read_parquet(log / "log.parquet").group_by("user").len().rows():
        valid, test = (max(1, int(n * v + 1e-9)), max(1, int(n * t + 1e-9))) if n >= 3 else (0, 0)
        if spec.kind == "leave_last" and n >= 3:
            valid = test = 1
        found = tuple(sizes[name].get(user, 0) for name in ("train", "valid", "test"))
        assert found == (n - valid - test, valid, test), (user, n)


@pytest.mark.parametrize("spec", KINDS[1:3], ids=lambda s: s.kind)
def test_no_user_is_tested_on_their_past(log, tmp_path, spec):
    split(log, spec.model_copy(update={"allow": ALL}), tmp_path / "out")
    p = parts(tmp_path / "out")
    for earlier, later in (("train", "valid"), ("valid", "test")):
        last = p[earlier].group_by("user").agg(pl.col("time").max().alias("last"))
        first = p[later].group_by("user").agg(pl.col("time").min().alias("first"))
        both = last.join(first, on="user")
        assert both.height > 20
        assert (both["last"] <= both["first"]).all()


def test_ties_in_time_are_not_broken_by_id(tmp_path):
    frame = pl.DataFrame([(u, i, 0) for u in range(200) for i in range(10)], schema=["u", "i", "t"], orient="row")
    frame.write_parquet(tmp_path / "log.parquet")
    ingest(LogSpec(path=str(tmp_path / "log.parquet"), user="u", item="i", time="t"), None, tmp_path / "in", now=NOW)
    facts = split(tmp_path / "in", LeaveLast(kind="leave_last"), tmp_path / "out")
    held = parts(tmp_path / "out")["test"]["item"].value_counts()
    assert held.height == 10  # every item is held out for some user, none for most
    assert held["count"].max() < 50
    (order,) = [f for f in facts["lint"] if f["name"] == "id_order"]
    assert abs(order["value"]) < 0.2


def test_given_parts_are_kept_and_valid_comes_from_train(log, tmp_path):
    split(log, Given(kind="given", valid_fraction=0.5, allow=ALL), tmp_path / "out")
    p, whole = parts(tmp_path / "out"), pl.read_parquet(log / "log.parquet")
    given = set(whole.filter(split="test").select("user", "item").rows())
    assert set(p["test"].select("user", "item").rows()) == given
    train = dict(whole.filter(split="train").group_by("user").len().rows())
    valid = dict(p["valid"].group_by("user").len().rows())
    assert all(valid.get(u, 0) == (max(1, n // 2) if n >= 3 else 0) for u, n in train.items())


def test_random_draws_follow_the_seed(log, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        split(log, UserRandom(kind="user_random", seed=seed, allow=ALL), tmp_path / name)
    assert parts(tmp_path / "a")["test"].rows() != parts(tmp_path / "b")["test"].rows()


def test_the_dataset_is_mapped_and_agrees_with_the_files(log, tmp_path):
    split(log, UserRandom(kind="user_random", allow=ALL), tmp_path / "out")
    data = read_dataset(log, tmp_path / "out")
    assert (data.num_users, data.num_items) == (40, len(data.item_ids))
    for name, part in parts(tmp_path / "out").items():
        csr = getattr(data, name)
        assert csr.num_users == 40
        assert csr.users().tolist() == part["user"].to_list()
        assert csr.items.tolist() == part["item"].to_list()
        assert csr.times.tolist() == part["time"].to_list()
        assert csr.items.dtype == csr.indptr.dtype == np.int64
        assert not csr.items.flags.owndata  # a view of the file, not a copy


def test_ids_go_in_order_of_numbers_where_they_are_numbers():
    assert id_order(pl.Series([10, 9, 100])).tolist() == [1, 0, 2]
    assert id_order(pl.Series(["10", "9", "100"])).tolist() == [1, 0, 2]
    assert id_order(pl.Series(["b10", "b9", "b100"])).tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "random"},
        {"kind": "leave_last", "test_fraction": 0.1},
        {"kind": "global_time", "valid_fraction": 0.6, "test_fraction": 0.4},
        {"kind": "user_random", "test_fraction": 0.0},
        {"kind": "user_random", "allow": ["cold_user"]},
    ],
)
def test_a_wrong_split_is_refused_by_its_schema(wrong):
    with pytest.raises(ValidationError):
        TypeAdapter(SplitSpec).validate_python(wrong)
