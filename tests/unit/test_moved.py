"""An encoder that moves on keeps the row of whoever was there, whatever its place, and all that is dense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from untrained import dataset, fitted

from recdistill.models.build import build
from recdistill.models.spec import LightGCNSpec, MFSpec, ModelSpec, SequenceSpec, TwoTowerSpec
from recdistill.models.tables import Table, init_rows
from recdistill.moved import moved, write_moved

MODELS: dict[str, ModelSpec] = {
    "mf": MFSpec(dim=12),
    "lightgcn": LightGCNSpec(kind="lightgcn", dim=12),
    "two_tower": TwoTowerSpec(kind="two_tower", dim=12, hidden=(8,), history=4),
    "sequence": SequenceSpec(kind="sequence", dim=12, history=4),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_begins_where_yesterdays_ended_by_whose_row_is_whose(tmp_path: Path, kind: str) -> None:
    data, spec = dataset(), MODELS[kind]
    old = fitted(data, spec, tmp_path / "old").artifact.path
    weights = load_file(old / "weights.safetensors")
    rng = np.random.default_rng(1)
    known = {"users": rng.permutation(data.num_users), "items": rng.permutation(data.num_items)}
    known["users"][[0, 7]] = -1
    known["items"][[3, 100]] = -1
    for side, rows in known.items():
        np.save(tmp_path / f"{side}.npy", rows)
    write_moved(old, known, tmp_path, "teacher")
    model = build(spec, data, Table, seed=5)
    tables = moved(model, tmp_path, "teacher", std=0.1, seed=9)
    assert tables.keys() == {"model.user", "model.item"}
    for name, rows in (("user", known["users"]), ("item", known["items"])):
        begun = tables[f"model.{name}"](2, len(rows))
        fresh = init_rows(name, 2, len(rows), 12, std=0.1, seed=9)
        there = rows[2:] >= 0
        torch.testing.assert_close(begun[there], weights[f"{name}.weight"][rows[2:][there]])
        torch.testing.assert_close(begun[~there], fresh[~there])
    dense = {n: w for n, w in model.state_dict().items() if n in weights and not n.startswith(("user.", "item."))}
    assert bool(dense) == (kind in {"two_tower", "sequence"})
    for name, value in dense.items():
        torch.testing.assert_close(value, weights[name])
