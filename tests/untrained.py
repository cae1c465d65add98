"""A small dataset whose every item is taken in training, and students of random weights over it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file

from recdistill.models.build import build
from recdistill.models.spec import Fitted, MFSpec, ModelSpec, TwoTowerSpec
from recdistill.models.tables import PlainTable
from recdistill.types import Dataset, Interactions

USERS, ITEMS, DIM = 60, 120, 12
MODELS: dict[str, ModelSpec] = {
    "mf": MFSpec(dim=DIM),
    "mf dot": MFSpec(dim=DIM, space="dot", temperature=1.0),
    "two_tower": TwoTowerSpec(dim=DIM, history=5),
    "two_tower hidden": TwoTowerSpec(dim=DIM, history=5, hidden=(10,)),
    "two_tower hidden dot": TwoTowerSpec(dim=DIM, history=5, hidden=(10,), space="dot", temperature=1.0),
}


def rows(each: list[np.ndarray]) -> Interactions:
    ends = np.concatenate([[0], np.cumsum([len(items) for items in each])])
    return Interactions(indptr=ends, items=np.concatenate(each).astype(np.int64))


def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    # Two of each user's are nobody else's first, so that every item is in somebody's training part.
    own = [np.array([2 * user, 2 * user + 1]) for user in range(USERS)]
    taken = [np.r_[two, rng.choice(np.setdiff1d(np.arange(ITEMS), two), 12, replace=False)] for two in own]
    parts = (rows([np.sort(items[a:b]) for items in taken]) for a, b in ((0, 8), (8, 10), (10, 14)))
    train, valid, test = parts
    user_ids, item_ids = pl.Series(range(1000, 1000 + USERS)), pl.Series([f"i{n}" for n in range(ITEMS)])
    return Dataset(user_ids=user_ids, item_ids=item_ids, train=train, valid=valid, test=test)


def fitted(dataset: Dataset, spec: ModelSpec, out: Path) -> Fitted:
    """A model of random weights whose first numbers say most, as if it was trained at every width."""
    torch.manual_seed(3)
    model = build(spec, dataset, PlainTable, seed=1)
    weights = {name: torch.randn_like(weight) for name, weight in model.state_dict().items()}
    weights["item.weight"] *= torch.linspace(1.5, 0.5, DIM)
    out.mkdir(parents=True)
    save_file(weights, out / "weights.safetensors")
    return Fitted(spec, SimpleNamespace(path=out, fingerprint="f"))  # type: ignore[arg-type]


def short(found: Any, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The first numbers of the vectors in float64, normalised where the space is cosine."""
    sides = [side[:, :width].astype(np.float64) for side in (found.users, found.items)]
    if found.space == "cosine":
        sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    return sides[0], sides[1]
