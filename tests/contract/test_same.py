"""The same config, data and seed give the same bytes: every file of every artifact, and what its manifest says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.same import apart, by_kind, contents, metrics
from pipelines.distill import path
from recdistill.config import load_config
from recdistill.stages import Run

TRAIN = {"epochs": 2, "batch": 64, "negatives": 16}
CONFIG = {
    "name": "same",
    "log": {"user": "u", "item": "i", "time": "t"},
    "split": {"kind": "user_chronological"},
    "teacher": {"model": {"kind": "mf", "dim": 8}, "train": TRAIN},
    "labels": {"depth": 10, "vectors": True},
    "student": {"model": {"kind": "two_tower", "dim": 4, "history": 4}, "train": TRAIN | {"list_users": 16}},
    "distill": [
        {"kind": "list", "weight": 1.0, "draw": [{"kind": "ranked", "k": 5}], "loss": {"kind": "softmax_kl"}},
        {"kind": "align", "weight": 0.5, "loss": {"kind": "distance", "adapter": {"kind": "linear"}}},
    ],
    "index": {"factory": "HNSW8,SQfp16", "k": [10]},
    "report": {"k": [10], "metrics": ["ndcg", "recall"], "slices": ["popularity"], "bootstrap": 50},
}


def run(home: Path, store: str) -> Path:
    for made in path(load_config(home / "same.yaml", []), Run(store=home / store)):
        if getattr(made, "name", "") == "evaluate":
            break
    return home / store


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    home, rng = tmp_path_factory.mktemp("same"), np.random.default_rng(5)
    rows = [(u, int(i)) for u in range(40) for i in rng.permutation(30)[:8]]
    frame = pl.DataFrame({"u": [u for u, _ in rows], "i": [i for _, i in rows], "t": list(range(1, len(rows) + 1))})
    frame.write_parquet(home / "log.parquet")
    config = CONFIG | {"log": CONFIG["log"] | {"path": str(home / "log.parquet")}}
    (home / "same.yaml").write_text(json.dumps(config))
    return run(home, "one"), run(home, "two")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_every_file_and_fact_of_every_artifact_is_the_same_again(stores):
    one, two = map(contents, stores)
    assert {name.split("/")[0] for name in one} == {"ingest", "split", "fit", "labels", "index", "evaluate"}
    assert apart(one, two) == []
    assert set(by_kind([one, two]).values()) == {"same"}
    assert metrics(stores[0]) == metrics(stores[1]) != {}


def test_one_byte_of_one_file_and_one_fact_are_told_apart(stores):
    one, two = map(contents, stores)
    name = next(name for name in one if name.startswith("labels/"))
    two[name]["files"]["labels-00000.arrow"] = "another"
    two[name]["facts"]["depth"] = 11
    assert apart(one, two) == [f"{name}: labels-00000.arrow", f"{name}: depth"]
    assert by_kind([one, two])["labels"] == "labels-00000.arrow"
    assert apart(one, {}) == sorted(one)
