"""Bad feature tables, splits and public downloads: refused by name and count, with nothing half-written."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recdistill.data.features import FeaturesSpec, FeatureTableSpec
from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec
from recdistill.data.public import import_public
from recdistill.data.split import Given, GlobalTime, LeaveLast, UserChronological, UserRandom, split
from recdistill.data.synth import synthesize
from recdistill.errors import DataError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def log(home: Path, frame: pl.DataFrame, features: FeaturesSpec | None = None, **spec: Any) -> Path:
    frame.write_parquet(home / "log.parquet")
    ingest(LogSpec(path=str(home / "log.parquet"), user="u", item="i", **spec), features, home / "in", now=NOW)
    return home / "in"


FEATURES: dict[str, tuple[pl.DataFrame, dict[str, Any], list[str]]] = {
    "repeated ids": (pl.DataFrame({"user_id": [1, 1, 2], "a": "xyz"}), {"categorical": ["a"]}, ["'user_id'", "1 ids"]),
    "null id": (pl.DataFrame({"user_id": [1, None], "a": "xy"}), {"categorical": ["a"]}, ["1 ids are missing"]),
    "ids of another type": (pl.DataFrame({"user_id": ["x"], "a": "x"}), {"categorical": ["a"]}, ["not Int64", "'x'"]),
    "float ids": (pl.DataFrame({"user_id": [1.0], "a": "x"}), {"categorical": ["a"]}, ["'user_id'", "floats"]),
    "no such key": (pl.DataFrame({"uid": [1], "a": "x"}), {"categorical": ["a"]}, ["no column 'user_id'"]),
    "no such column": (pl.DataFrame({"user_id": [1], "job": "x"}), {"categorical": ["jobs"]}, ["mean 'job'?"]),
    "ids of another log": (pl.DataFrame({"user_id": [77], "a": "x"}), {"categorical": ["a"]}, ["none of its 1 ids"]),
    "text as number": (
        pl.DataFrame({"user_id": [1, 2, 3], "a": ["4", "old", "new"]}),
        {"numeric": ["a"]},
        ["column 'a'", "2 values are not numbers", "'old'"],
    ),
    "infinite": (pl.DataFrame({"user_id": [1], "a": [float("inf")]}), {"numeric": ["a"]}, ["'a'", "1 values are inf"]),
    "float as category": (pl.DataFrame({"user_id": [1], "a": [1.5]}), {"categorical": ["a"]}, ["'a'", "Float64"]),
    "number as text": (pl.DataFrame({"user_id": [1], "a": [1]}), {"hashed": {"a": {}}}, ["'a'", "Int64"]),
    "no such text": (pl.DataFrame({"user_id": [1], "title": "x"}), {"hashed": {"titel": {}}}, ["mean 'title'?"]),
    "number as several": (pl.DataFrame({"user_id": [1], "a": [1]}), {"multi": ["a"]}, ["'a'", "Int64"]),
}


@pytest.mark.parametrize("name", FEATURES)
def test_a_bad_feature_table_is_refused(tmp_path, name):
    frame, columns, says = FEATURES[name]
    frame.write_parquet(tmp_path / "users.parquet")
    spec = FeaturesSpec(users=FeatureTableSpec(path=str(tmp_path / "users.parquet"), **columns))
    with pytest.raises(DataError) as caught:
        log(tmp_path, pl.DataFrame({"u": [1, 2, 3], "i": [1, 1, 1]}), spec)
    assert caught.value.exit_code == 3
    assert caught.value.fix
    for words in ("users.parquet", *says):
        assert words in str(caught.value)
    assert list((tmp_path / "in").iterdir()) == []


def test_a_missing_feature_table_is_refused(tmp_path):
    spec = FeaturesSpec(items=FeatureTableSpec(path=str(tmp_path / "items.csv"), multi=["a"]))
    with pytest.raises(DataError, match=r"items\.csv: no such file"):
        log(tmp_path, pl.DataFrame({"u": [1], "i": [1]}), spec)


def newcomers() -> pl.DataFrame:
    """Give 100 users that each come on a day of their own, as in MovieLens 100k."""
    return pl.DataFrame(
        [(u, (u + n) % 30, u * 100 + n) for u in range(100) for n in range(10)], ["u", "i", "t"], orient="row"
    )


def sorted_by_id() -> pl.DataFrame:
    """Give each user's items by id, and cut by position: the last two are valid and test."""
    name = ["train"] * 8 + ["valid", "test"]
    rows = [(u, (u * 7 + n * 41) % 97 + n * 100, name[n]) for u in range(50) for n in range(10)]
    return pl.DataFrame(rows, schema=["u", "i", "part"], orient="row")


def leaking() -> pl.DataFrame:
    rows = [(u, n, "test" if n > 7 else "train") for u in range(20) for n in range(10)]
    return pl.DataFrame([*rows, (0, 9, "train"), (1, 9, "train")], schema=["u", "i", "part"], orient="row")


def untimed() -> pl.DataFrame:
    return pl.DataFrame([(u, n) for u in range(20) for n in range(10)], schema=["u", "i"], orient="row")


def count_tokens() -> pl.DataFrame:
    """Give each list of items its length as one more item, as users.dat of CiteULike has it."""
    rows = [(u, i) for u in range(50) for i in [5 + u % 9, *(100 + (u * 31 + n * 17) % 400 for n in range(5 + u % 9))]]
    return pl.DataFrame(rows, schema=["u", "i"], orient="row")


SPLITS: dict[str, tuple[Callable[[], pl.DataFrame], dict[str, str], Any, list[str]]] = {
    "global cut of newcomers": (
        newcomers,
        {"time": "t"},
        GlobalTime(),
        ["cold_users", "100.0% of the test users (10 of 10) have no row in train", "user_chronological"],
    ),
    "global cut without times": (untimed, {}, GlobalTime(), ["global_time needs times", "log.time"]),
    "chronological without times": (untimed, {}, UserChronological(kind="user_chronological"), ["needs times"]),
    "last without times": (untimed, {}, LeaveLast(kind="leave_last"), ["needs times", "user_random"]),
    "given without parts": (untimed, {}, Given(kind="given"), ["no parts", "log.split"]),
    "given and leaking": (leaking, {"split": "part"}, Given(kind="given"), ["overlap", "2 of the 40 test pairs"]),
    "positional, sorted by id": (sorted_by_id, {"split": "part"}, Given(kind="given"), ["id_order", "sorted by id"]),
    "lengths read as items": (
        count_tokens,
        {},
        UserRandom(kind="user_random"),
        ["count_token", "100.0% of the users have an item whose id is the number of their other items"],
    ),
    "one moment only": (
        lambda: untimed().with_columns(t=pl.lit(5)),
        {"time": "t"},
        GlobalTime(),
        ["the train part is empty"],
    ),
    "users too short": (
        lambda: untimed().filter(pl.col("i") < 2),
        {},
        UserRandom(kind="user_random"),
        ["the valid part is empty"],
    ),
    "no test part": (
        lambda: untimed().with_columns(part=pl.lit("train")),
        {"split": "part"},
        Given(kind="given"),
        ["the test part is empty"],
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_bad_split_is_refused(tmp_path, name):
    make, columns, spec, says = SPLITS[name]
    ingested = log(tmp_path, make(), **columns)
    with pytest.raises(DataError) as caught:
        split(ingested, spec, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert caught.value.fix
    for words in says:
        assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_the_user_accepts_is_written_and_still_said(tmp_path):
    ingested = log(tmp_path, newcomers(), time="t")
    facts = split(ingested, GlobalTime(allow=["cold_users"]), tmp_path / "out")
    cold = [f for f in facts["lint"] if f["name"] == "cold_users"]
    assert [f["severity"] for f in cold] == ["refuse", "refuse"]
    assert (tmp_path / "out/test.arrow").is_file()


def folder(home: Path, **files: bytes) -> Path:
    home.mkdir()
    for name, data in files.items():
        (home / name.replace("_", ".")).write_bytes(data)
    return home


def zipped(home: Path, **files: str) -> Path:
    home.mkdir()
    with zipfile.ZipFile(home / "data.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr("ml/" + name.replace("_", "."), text)
    return home / "data.zip"


PUBLIC: dict[str, tuple[str, Callable[[Path], Path], list[str]]] = {
    "unknown kind": ("movielens100k", lambda h: folder(h), ["unknown kind", "did you mean 'movielens-100k'?"]),
    "no such source": ("lightgcn", lambda h: h / "nope", ["nope", "no such file"]),
    "wrong count": (
        "citeulike",
        lambda h: folder(h, users_dat=b"2 5 6\n3 7 8\n"),
        ["users.dat", "line 2 begins with 3"],
    ),
    "words for items": ("citeulike", lambda h: folder(h, users_dat=b"1 x\n"), ["users.dat", "line 1", "'1 x'"]),
    "no train file": ("lightgcn", lambda h: folder(h, test_txt=b"0 1\n"), ["train.txt"]),
    "a file for a folder": ("lightgcn", lambda h: folder(h, a_txt=b"0 1\n") / "a.txt", ["is not a directory"]),
    "empty test": ("lightgcn", lambda h: folder(h, train_txt=b"0 1\n", test_txt=b""), ["test.txt", "empty"]),
    "not a zip": ("movielens-1m", lambda h: folder(h, a_zip=b"PK not") / "a.zip", ["a.zip", "not a whole zip"]),
    "another zip": ("movielens-100k", lambda h: zipped(h, ratings_dat="1::2::3::4\n"), ["data.zip", "holds no u.data"]),
    "wrong fields": (
        "movielens-100k",
        lambda h: zipped(h, u_data="1\t2\t3\n"),
        ["u.data", "line 1 has 3 fields, not 4"],
    ),
    "wrong number": (
        "movielens-1m",
        lambda h: zipped(
            h, ratings_dat="1::2::3::4\n1::x::3::4\n", users_dat="1::F::1::2::3\n", movies_dat="1::A::B\n"
        ),
        ["'item_id'", "1 values are not numbers", "line 2 ('x')"],
    ),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_bad_download_is_refused(tmp_path, name):
    kind, make, says = PUBLIC[name]
    with pytest.raises(DataError) as caught:
        import_public(kind, make(tmp_path / "source"), tmp_path / "out")
    assert caught.value.exit_code == 3
    assert caught.value.fix
    for words in says:
        assert words in str(caught.value)
    assert [p.name for p in tmp_path.iterdir() if p.name != "source"] == []


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("x")
    source = folder(tmp_path / "source", users_dat=b"1 5\n")
    with pytest.raises(DataError, match="is not empty"):
        import_public("citeulike", source, tmp_path / "out")
    with pytest.raises(DataError, match="is not empty"):
        synthesize(tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_numbers_that_cannot_be_planted_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot plant 10 x 40 with 30"):
        synthesize(tmp_path / "out", users=10, items=40, events_per_user=30)
    assert not (tmp_path / "out").exists()
