"""`fit` stopped at any step and called again writes the very bytes of a fit that was left alone."""

from __future__ import annotations

import hashlib
import shutil
import warnings

import numpy as np
import polars as pl
import pytest

from recdistill.checkpoint import _newest
from recdistill.errors import ArtifactError
from recdistill.fit import fit
from recdistill.models.spec import MFSpec, RankerSpec, TrainSpec, TwoTowerSpec
from recdistill.types import Dataset, Interactions, quiet
from recdistill.world import World

USERS, ITEMS, EACH = 60, 40, 8
EPOCH = 4  # steps: 60 users x 6 training items in batches of 90

MODELS = {
    "mf": MFSpec(dim=4),
    "two_tower": TwoTowerSpec(dim=4, history=4),
    "ranker": RankerSpec(dim=4, heads=1, cross_layers=1, hidden=(8,), history=4),
}


class Stopped(Exception):
    """What ends a fit in the middle of a step's report."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Users who take every other item after their own, in any order: enough to learn something from."""
    rng = np.random.default_rng(3)
    rows = [[(user + 2 * int(n)) % ITEMS for n in rng.permutation(EACH)] for user in range(USERS)]
    parts = {"train": [r[:-2] for r in rows], "valid": [r[-2:-1] for r in rows], "test": [r[-1:] for r in rows]}

    def csr(lists):
        indptr = np.cumsum([0, *map(len, lists)]).astype(np.int64)
        items = np.array([i for one in lists for i in one], np.int64)
        return Interactions(indptr=indptr, items=items, times=np.arange(len(items), dtype=np.int64))

    made = {name: csr(lists) for name, lists in parts.items()}
    return Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), **made)


def train(out, dataset, spec, *, stop=0, every=1, **settings):
    """Fit into `out`, raising from `log` at step `stop`; return what it wrote, or None if it was stopped."""
    chosen = {"epochs": 4, "batch": 90, "negatives": 8, "patience": 0} | settings

    def log(what, step, total, values):
        if stop and step == stop:
            raise Stopped

    out.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        try:
            facts = fit(
                dataset,
                spec,
                TrainSpec(**chosen),
                out,
                name="m",
                world=World(),
                log=log if stop else quiet,
                checkpoint_every=every,
            )
        except Stopped:
            return None
    files = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in out.iterdir()}
    del facts["seconds_per_epoch"]
    return facts, files


@pytest.mark.parametrize("model", list(MODELS))
def test_a_stopped_fit_goes_on_to_the_same_bytes(tmp_path, dataset, model):
    alone = train(tmp_path / "alone", dataset, MODELS[model])
    assert alone is not None
    assert {"weights.safetensors", "curve.json"} <= set(alone[1])
    assert not any(name.startswith(("checkpoint", "weights-")) for name in alone[1])
    # Step 4 ends an epoch: its validation is logged before its checkpoint is written, so it is done again.
    for stop in (3, EPOCH, 7, 12):
        assert train(tmp_path / "stopped", dataset, MODELS[model], stop=stop, every=2) is None
    assert [p.name for p in (tmp_path / "stopped").glob("checkpoint-*")] == ["checkpoint-10"]
    assert train(tmp_path / "stopped", dataset, MODELS[model], every=2) == alone


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "sgd", "adam"])
def test_a_rate_that_falls_goes_on_from_where_it_was(tmp_path, dataset, optimizer):
    falls = {"decay": "cosine", "optimizer": optimizer, "lr": 0.05}
    alone = train(tmp_path / "alone", dataset, MODELS["mf"], **falls)
    assert train(tmp_path / "stopped", dataset, MODELS["mf"], stop=7, **falls) is None
    assert train(tmp_path / "stopped", dataset, MODELS["mf"], **falls) == alone


def test_how_often_is_saved_changes_nothing(tmp_path, dataset):
    spec = MODELS["two_tower"]
    assert train(tmp_path / "a", dataset, spec, every=1) == train(tmp_path / "b", dataset, spec, every=500)


def test_the_wait_for_a_gain_survives_a_stop(tmp_path, dataset):
    """A rate so low that nothing changes: the first validation is the best, and two more without a gain end it."""
    still = {"epochs": 9, "lr": 1e-12, "dense_lr": 1e-12, "patience": 2}
    alone = train(tmp_path / "alone", dataset, MODELS["mf"], **still)
    assert alone is not None
    assert (alone[0]["steps"], alone[0]["best_step"]) == (3 * EPOCH, EPOCH)
    assert train(tmp_path / "stopped", dataset, MODELS["mf"], stop=2 * EPOCH + 2, **still) is None
    assert train(tmp_path / "stopped", dataset, MODELS["mf"], **still) == alone


def test_a_torn_checkpoint_is_not_read(tmp_path, dataset):
    spec = MODELS["mf"]
    alone = train(tmp_path / "alone", dataset, spec)
    out = tmp_path / "stopped"
    assert train(out, dataset, spec, stop=8, every=3) is None
    shutil.copytree(out / "checkpoint-6", out / "checkpoint-7.tmp")  # all there, but for its name
    (out / "checkpoint-7.tmp" / "state.json").write_text("{")
    (out / "checkpoint-7").mkdir()  # named, but without the state that is written last
    assert train(out, dataset, spec, every=3) == alone


@pytest.mark.parametrize("way", ["flip", "truncate", "gone"])
def test_a_damaged_checkpoint_is_passed_over_whatever_part_of_it_is(tmp_path, dataset, way):
    """Its weights, its state, its sums, or the best weights beside it: the training begins again, and ends the same."""
    spec = MODELS["mf"]
    alone, out = train(tmp_path / "alone", dataset, spec), tmp_path / "stopped"
    assert train(out, dataset, spec, stop=8, every=3) is None
    shutil.copytree(out, tmp_path / "kept")
    names = [*(f"checkpoint-6/{file.name}" for file in (out / "checkpoint-6").iterdir()), "weights-4.safetensors"]
    assert len(names) == 5  # weights, their layout, state, hashes; and the best of the validations
    for name in names:
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "kept", out)
        file = out / name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.unlink()
        if way != "gone":
            file.write_bytes(data if way == "flip" else data[: len(data) // 2])
        assert train(out, dataset, spec, every=3) == alone, name


def test_a_training_that_ended_is_refused_if_what_it_left_is_damaged(tmp_path, dataset):
    """Another one goes on from it: to begin again would be another training."""
    out = tmp_path / "stopped"
    assert train(out, dataset, MODELS["mf"], stop=8, every=3) is None
    assert _newest(out, quiet, ended=True) == str(out / "checkpoint-6")
    (out / "checkpoint-6" / "state.json").write_text("{}")
    said = []
    assert _newest(out, lambda *words: said.append(words[0]), ended=False) is None
    assert "state.json is not what was written: going on without this checkpoint" in said[0]
    with pytest.raises(ArtifactError, match=r"state\.json is not what was written"):
        _newest(out, quiet, ended=True)
