"""Two threads add up in one order: a fit is the same bytes each time, at sizes where torch does use them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.fit import fit
from recdistill.models.spec import LightGCNSpec, MFSpec, RankerSpec, SequenceSpec, TrainSpec, TwoTowerSpec
from recdistill.types import Dataset, Interactions, quiet
from recdistill.world import World

USERS, ITEMS, EACH = 1000, 500, 20
TRAIN = {"epochs": 2, "batch": 2000, "patience": 0, "evaluate_every": 2}
CASES = {
    "bpr": (MFSpec(dim=16, space="dot", temperature=1.0), TrainSpec(**TRAIN, loss="bpr", negatives=8)),
    "softmax": (TwoTowerSpec(dim=16, history=10, hidden=(32,)), TrainSpec(**TRAIN, negatives=100)),
    "lightgcn": (LightGCNSpec(dim=16), TrainSpec(**TRAIN, negatives=100)),
    "sequence": (SequenceSpec(dim=16, history=10), TrainSpec(**TRAIN | {"batch": 200}, negatives=500)),
    "ranker": (RankerSpec(dim=16, history=10, hidden=(32,)), TrainSpec(**TRAIN, negatives=8)),
}


def part(rng, each):
    items = np.stack([rng.choice(ITEMS, each, replace=False) for _ in range(USERS)])
    return Interactions(indptr=np.arange(USERS + 1) * each, items=items.ravel(), times=np.tile(np.arange(each), USERS))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("case", CASES)
def test_a_fit_on_two_threads_is_the_same_bytes_each_time(tmp_path, case):
    rng = np.random.default_rng(0)
    dataset = Dataset(
        user_ids=pl.Series(range(USERS)),
        item_ids=pl.Series(range(ITEMS)),
        train=part(rng, EACH),
        valid=part(rng, 1),
        test=part(rng, 1),
    )
    found = set()
    for attempt in range(3):
        out = tmp_path / str(attempt)
        out.mkdir()
        fit(dataset, *CASES[case], out, name=case, world=World(), log=quiet)
        found.add((out / "weights.safetensors").read_bytes())
    assert len(found) == 1
