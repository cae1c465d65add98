"""The weights of every validation stay where they are asked for, through a stop as without one."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file

from recdistill.fit import fit, load
from recdistill.models.spec import MFSpec, TrainSpec
from recdistill.types import Dataset, Interactions, quiet
from recdistill.world import World

SPEC = MFSpec(dim=4)


class Stopped(Exception):
    """What ends a fit in the middle."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(3)
    rows = [[(user + 2 * int(n)) % 30 for n in rng.permutation(7)] for user in range(40)]

    def csr(lists):
        items = np.array([i for one in lists for i in one], np.int64)
        indptr = np.cumsum([0, *map(len, lists)]).astype(np.int64)
        return Interactions(indptr=indptr, items=items, times=np.arange(len(items), dtype=np.int64))

    parts = {"train": [r[:-2] for r in rows], "valid": [r[-2:-1] for r in rows], "test": [r[-1:] for r in rows]}
    made = {name: csr(lists) for name, lists in parts.items()}
    return Dataset(user_ids=pl.Series(range(40)), item_ids=pl.Series(range(30)), **made)


def train(out: Path, dataset: Dataset, *, keep: bool, stop: int = 0) -> dict[str, str]:
    settings = TrainSpec(epochs=4, batch=100, negatives=8, patience=0)

    def log(what, step, total, values):
        if stop and step == stop:
            raise Stopped

    out.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        watch = log if stop else quiet
        fit(dataset, SPEC, settings, out, name="m", world=World(), log=watch, checkpoint_every=1, keep=keep)
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in out.iterdir()}


def test_every_validation_leaves_its_weights(tmp_path, dataset) -> None:
    plain, kept = train(tmp_path / "plain", dataset, keep=False), train(tmp_path / "kept", dataset, keep=True)
    steps = [f"weights-{2 * epoch}.safetensors" for epoch in (1, 2, 3, 4)]  # 200 interactions in batches of 100
    assert sorted(set(kept) - set(plain)) == steps
    assert {name: kept[name] for name in plain} == plain
    assert kept["weights.safetensors"] in {kept[name] for name in steps}
    assert len({kept[name] for name in steps}) == 4
    model, wanted = load(SPEC, dataset, tmp_path / "kept", steps[0]), load_file(tmp_path / "kept" / steps[0])
    assert all((model.state_dict()[name] == value).all() for name, value in wanted.items())


def test_a_stop_loses_none_of_them(tmp_path, dataset) -> None:
    alone = train(tmp_path / "alone", dataset, keep=True)
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", dataset, keep=True, stop=5)
    assert train(tmp_path / "stopped", dataset, keep=True) == alone
