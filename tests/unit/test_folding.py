"""More ids than rows: who keeps a row, what a training within a bound leaves, and that a bound is one."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recdistill.errors import ConfigError
from recdistill.fit import fit
from recdistill.models.folding import fold_rows, representatives
from recdistill.models.spec import MFSpec, RowsSpec, TrainSpec, TwoTowerSpec
from recdistill.types import Dataset, Interactions, quiet
from recdistill.world import World

USERS, POPULAR, RARE = 120, 24, 60


def test_the_most_frequent_keep_a_row_each_and_the_others_share_a_tenth() -> None:
    counts = np.array([5, 1, 9, 0, 7, 7, 2, 3, 0, 1, 4, 6, 8, 1, 0, 1, 1, 0, 2, 1, 0, 0, 0, 0, 1])
    found = fold_rows(counts, 10)
    own = [2, 12, 4, 5, 11, 0, 10, 7, 6]  # by how often they were seen, the first of equals first
    assert found[own].tolist() == list(range(9))
    others = sorted(set(range(25)) - set(own))
    assert set(found[others].tolist()) == {9}
    assert fold_rows(counts, 10).tolist() == found.tolist()


def test_those_who_share_are_spread_evenly() -> None:
    found = fold_rows(np.zeros(100_000, np.int64), 1000).numpy()
    assert found.min() == 0
    assert found.max() == 999
    each = np.bincount(found)[900:]
    assert abs(each - each.mean()).max() < 0.35 * each.mean()
    assert len(set(found[50_000:50_020].tolist())) > 10  # neighbours part


def test_a_row_is_begun_by_the_first_id_in_it() -> None:
    assert representatives(torch.tensor([2, 0, 2, 4, 0], dtype=torch.int32), 5).tolist() == [1, -1, 0, -1, 3]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Two tastes among items that many took, and as a rest items that hardly anybody did."""
    rng = np.random.default_rng(3)
    lists = []
    for user in range(USERS):
        own = rng.permutation(POPULAR // 2)[:8] + (user % 2) * POPULAR // 2
        lists.append([*own[:6], POPULAR + int(rng.integers(RARE)), own[6], own[7]])
    parts = {"train": [r[:7] for r in lists], "valid": [r[7:8] for r in lists], "test": [r[8:] for r in lists]}

    def csr(rows):
        items = np.array([i for one in rows for i in one], np.int64)
        return Interactions(indptr=np.cumsum([0, *map(len, rows)]).astype(np.int64), items=items)

    made = {name: csr(rows) for name, rows in parts.items()}
    return Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(POPULAR + RARE)), **made)


def train(out: Path, dataset: Dataset, spec, **more):
    settings = TrainSpec(epochs=30, batch=120, negatives=20, lr=0.2, evaluate_every=10, patience=0)
    out.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        return fit(dataset, spec, settings, out, name="student", world=World(), log=quiet, **more)


def test_a_table_of_half_the_rows_learns_what_is_there_to_learn(tmp_path: Path, dataset: Dataset) -> None:
    whole = train(tmp_path / "whole", dataset, MFSpec(dim=8))
    bound = train(tmp_path / "bound", dataset, MFSpec(dim=8, rows=RowsSpec(items=40)))
    plan = json.loads((tmp_path / "bound" / "plan.json").read_text())
    assert [row["rows"] for row in plan["tables"]] == [40, USERS]
    assert bound["valid_ndcg_at_10"] > 0.9 * whole["valid_ndcg_at_10"] > 0.3
    items = load_file(tmp_path / "bound" / "weights.safetensors")["item.weight"]
    assert len(items) == POPULAR + RARE
    assert len(items.unique(dim=0)) <= 40
    assert len(items[:POPULAR].unique(dim=0)) == POPULAR
    rows = fold_rows(np.bincount(dataset.train.items, minlength=POPULAR + RARE), 40)
    first = representatives(rows, 40)
    assert (items == items[first[rows.long()]]).all()


def test_a_training_that_begins_where_another_ended_begins_with_its_rows(tmp_path: Path, dataset: Dataset) -> None:
    spec = TwoTowerSpec(dim=8, history=4, rows=RowsSpec(items=40, users=50))
    done = train(tmp_path / "one", dataset, spec)
    again = train(tmp_path / "two", dataset, spec, after=tmp_path / "one")
    first, second = (json.loads((tmp_path / n / "curve.json").read_text())[0]["task"] for n in ("one", "two"))
    assert second < first  # what was learned is there at the first validation
    assert again["valid_ndcg_at_10"] > 0.9 * done["valid_ndcg_at_10"]


def test_a_bound_above_what_is_there_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="items may have 84 rows, and there are 84") as caught:
        train(tmp_path / "none", dataset, MFSpec(dim=8, rows=RowsSpec(items=84)))
    assert "lower it, or leave it out" in str(caught.value)


def test_a_model_without_a_bound_has_the_fingerprint_it_had() -> None:
    assert "rows" not in MFSpec(dim=8).model_dump()
    assert MFSpec(dim=8, rows=RowsSpec(items=5)).model_dump()["rows"] == {"users": None, "items": 5}
