"""Feature tables become codes by frequency and standardised numbers, aligned to the rows of the log."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from recdistill.data.encode import encode_categorical, encode_multi, encode_numeric
from recdistill.data.features import FeaturesSpec, FeatureTableSpec, digest_features, read_features
from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ingested(tmp_path: Path, features: FeaturesSpec | None) -> tuple[dict, Path]:
    log = pl.DataFrame({"user_id": ["a", "a", "a", "b", "b", "c"], "item_id": [7, 8, 9, 7, 8, 7]})
    log.write_parquet(tmp_path / "log.parquet")
    spec = LogSpec(path=str(tmp_path / "log.parquet"), user="user_id", item="item_id")
    return ingest(spec, features, tmp_path / "out", now=NOW), tmp_path / "out"


def test_features_by_hand(tmp_path):
    users = pl.DataFrame(
        {
            "user_id": ["c", "z", "a"],
            "job": ["cook", "spy", "baker"],
            "age": [20.0, 99.0, 40.0],
            "likes": ["x y", "", "y"],
        }
    )
    users.write_csv(tmp_path / "users.csv")
    items = pl.DataFrame({"key": ["9", "8", "7"], "tags": [["s", "t"], None, ["t"]], "kind": [1, 2, 2]})
    items.write_parquet(tmp_path / "items.parquet")
    spec = FeaturesSpec(
        users=FeatureTableSpec(path=str(tmp_path / "users.csv"), categorical=["job"], numeric=["age"], multi=["likes"]),
        items=FeatureTableSpec(path=str(tmp_path / "items.parquet"), key="key", multi=["tags"], categorical=["kind"]),
    )
    facts, out = ingested(tmp_path, spec)
    user, item = read_features(out)
    # rows are a, b, c; b has no features; "baker" and "cook" are as frequent, so they go by name
    assert user.categorical["job"].tolist() == [1, 0, 2]
    assert user.sizes == {"job": 3, "likes": 3}
    np.testing.assert_allclose(user.numeric["age"], [1.0, 0.0, -1.0])
    offsets, codes = user.multi["likes"]
    assert offsets.tolist() == [0, 1, 1, 3]
    assert codes.tolist() == [1, 1, 2]  # y is in two rows, x in one
    # items are 7, 8, 9; the table has them as text
    assert item.categorical["kind"].tolist() == [1, 1, 2]
    offsets, codes = item.multi["tags"]
    assert offsets.tolist() == [0, 1, 1, 3]
    assert codes.tolist() == [1, 1, 2]
    assert facts["features"]["user"]["ids_without_row"] == 1
    assert facts["features"]["user"]["rows_without_id"] == 1
    assert facts["features"]["user"]["moments"]["age"] == {"mean": 30.0, "std": 10.0}
    words = pl.read_parquet(out / "features_vocab.parquet")
    assert words.filter(column="kind").rows() == [("item", "kind", "2", 1), ("item", "kind", "1", 2)]
    assert user.numeric["age"].dtype == np.float32
    assert user.categorical["job"].dtype == codes.dtype == offsets.dtype == np.int64


def test_without_tables_there_are_no_features(tmp_path):
    _, out = ingested(tmp_path, None)
    user, item = read_features(out)
    assert (dict(user.sizes), dict(user.categorical), dict(item.multi), dict(item.numeric)) == ({}, {}, {}, {})


def test_missing_values_are_code_zero_and_the_mean():
    codes, words = encode_categorical(pl.Series("c", ["x", None, " ", "y", "y"]), "here")
    assert codes.to_list() == [2, 0, 0, 1, 1]
    assert words.to_list() == ["y", "x"]
    values, moments = encode_numeric(pl.Series("n", [1.0, None, float("nan"), 3.0]), "here")
    assert values.to_list() == [-1.0, 0.0, 0.0, 1.0]
    assert moments == {"mean": 2.0, "std": 1.0}
    same, _ = encode_numeric(pl.Series("n", [0.1] * 7), "here")
    assert same.to_list() == [0.0] * 7


def test_a_value_repeated_in_a_row_counts_once():
    codes, words = encode_multi(pl.Series("m", ["b b b a", "a", ""]), " ", "here")
    assert words.to_list() == ["a", "b"]
    assert codes.to_list() == [[1, 2], [1], []]


def test_the_digest_follows_the_contents(tmp_path):
    paths = [tmp_path / "u.csv", tmp_path / "v.csv"]
    for path in paths:
        pl.DataFrame({"user_id": [1], "job": ["x"]}).write_csv(path)
    specs = [FeaturesSpec(users=FeatureTableSpec(path=str(p), categorical=["job"])) for p in paths]
    assert digest_features(specs[0]) == digest_features(specs[1])
    assert digest_features(specs[0]) != digest_features(None)
    pl.DataFrame({"user_id": [1], "job": ["z"]}).write_csv(paths[1])
    assert digest_features(specs[0]) != digest_features(specs[1])


@pytest.mark.parametrize("wrong", [{}, {"categorical": ["a"], "numeric": ["a"]}, {"multi": ["a"], "separator": ""}])
def test_a_table_that_says_nothing_or_twice_is_an_error(wrong):
    with pytest.raises(ValidationError):
        FeatureTableSpec(path="users.csv", **wrong)
