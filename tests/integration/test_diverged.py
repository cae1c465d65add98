"""A training that diverges ends with its loss's name and step, the same ones again, and nothing of it is kept."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.errors import StageError
from recdistill.fit import fit
from recdistill.models.spec import MFSpec, RankerSpec, TrainSpec, TwoTowerSpec
from recdistill.models.tables import Distributed
from recdistill.types import Dataset, Interactions, quiet
from recdistill.world import World

USERS, ITEMS, EACH, EPOCH = 60, 40, 8, 4
DOT = MFSpec(dim=4, space="dot", temperature=1.0)
FAR = 1e19  # a rate of Adagrad's, whose first step is about as long: products of such vectors are beyond float32


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(3)
    rows = [[(user + 2 * int(n)) % ITEMS for n in rng.permutation(EACH)] for user in range(USERS)]
    parts = {"train": [r[:-2] for r in rows], "valid": [r[-2:-1] for r in rows], "test": [r[-1:] for r in rows]}

    def csr(lists):
        indptr = np.cumsum([0, *map(len, lists)]).astype(np.int64)
        items = np.array([i for one in lists for i in one], np.int64)
        return Interactions(indptr=indptr, items=items, times=np.arange(len(items), dtype=np.int64))

    made = {name: csr(lists) for name, lists in parts.items()}
    return Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), **made)


def train(out, dataset, spec, *, every=1, **settings):
    """Fit into `out` in so small steps that a checkpoint follows `every` of them; return its facts, or what it said."""
    out.mkdir(exist_ok=True)
    chosen = TrainSpec(**{"epochs": 3, "batch": 90, "negatives": 8, "patience": 0} | settings)
    how = {"name": "student", "world": World(), "log": quiet, "checkpoint_every": every}
    try:
        return fit(dataset, spec, chosen, out, **how)
    except StageError as error:
        return str(error)


def left(out):
    return sorted(path.name for path in out.iterdir() if path.name != "plan.json")


def test_it_ends_with_the_same_words_again_from_the_last_sound_checkpoint(tmp_path, dataset):
    said = train(tmp_path / "run", dataset, DOT, lr=FAR, loss="bpr")
    assert "student: the loss task is no number from step 2 on" in said
    assert "lower train.lr" in said
    assert left(tmp_path / "run") == ["checkpoint-1"]
    assert json.loads((tmp_path / "run/checkpoint-1/state.json").read_text())["sums"]["task"] > 0
    assert train(tmp_path / "run", dataset, DOT, lr=FAR, loss="bpr") == said
    assert left(tmp_path / "run") == ["checkpoint-1"]
    assert train(tmp_path / "rare", dataset, DOT, lr=FAR, loss="bpr", every=500) == said  # read at the epoch's end
    assert left(tmp_path / "rare") == []


@pytest.mark.parametrize("kind", ["two_tower", "ranker"])
def test_other_models_end_so_too(tmp_path, dataset, kind):
    specs = {
        "two_tower": TwoTowerSpec(dim=4, history=4, space="dot", temperature=1.0, hidden=(8,)),
        "ranker": RankerSpec(dim=4, heads=1, cross_layers=1, hidden=(8,), history=4),
    }
    said = train(tmp_path / "run", dataset, specs[kind], lr=1e30, dense_lr=1e30, every=500)
    assert "student: " in said
    assert " no number" in said
    assert "weights.safetensors" not in left(tmp_path / "run")


def spoil(monkeypatch, step, row, number):
    """Have the table of users hold `number` in `row` after the step of that number, as a gradient may leave it."""
    steps = iter(range(1, 1000))

    def shrink(self, factor):
        if next(steps) == step:
            with torch.no_grad():
                next(w for name, w in self.module.named_parameters() if ".user.ebc." in name)[row, 1] = number

    monkeypatch.setattr(Distributed, "shrink", shrink)


@pytest.mark.parametrize(("step", "every"), [(2, 2), (EPOCH, 500), (3 * EPOCH, 500)], ids=["kept", "judged", "last"])
def test_weights_that_no_loss_has_met_yet_are_neither_kept_nor_judged(tmp_path, dataset, monkeypatch, step, every):
    spoil(monkeypatch, step, 17, torch.nan)
    said = train(tmp_path / "run", dataset, MFSpec(dim=4), every=every)
    assert f"after step {step} hold what is no number" in said
    assert f"in 1 of its {USERS} rows here, first row 17" in said
    assert "user" in said
    assert not [name for name in left(tmp_path / "run") if str(step) in name or name == "weights.safetensors"]


def test_a_training_that_only_leaps_is_left_alone(tmp_path, dataset):
    """Vectors at length 1 have small losses wherever they point, and large rates are somebody's choice."""
    facts = train(tmp_path / "run", dataset, MFSpec(dim=4), lr=1e3)
    assert facts["steps"] == 3 * EPOCH
    assert "weights.safetensors" in left(tmp_path / "run")
