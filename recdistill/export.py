"""A trained student -> what serves: the bundle with its index, and the exact index to hold it against."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from recdistill.ann import IndexSpec, build_index
from recdistill.bundle import write_bundle
from recdistill.data.sequences import Sequences
from recdistill.evaluate import merge
from recdistill.fit import load
from recdistill.models.build import Model, history_length
from recdistill.models.encoders import MF, TwoTower
from recdistill.models.spec import Fitted
from recdistill.scoring import vectors
from recdistill.serve_tables import rounded
from recdistill.types import Dataset


def index_student(dataset: Dataset, student: Fitted, spec: IndexSpec, out: Path, fingerprint: str) -> dict[str, Any]:
    """Write flat.faiss and the bundle of `student` to `out`; returns the index's facts.

    What serves knows everything up to the test part: default histories hold train and validation items.
    """
    model, length = load(student.spec, dataset, student.artifact.path), history_length(student.spec)
    known = merge(dataset.train, dataset.valid)
    assert isinstance(model, MF | TwoTower), "a student is an encoder"
    found = vectors(model, dataset, Sequences.of(known), length)
    facts = build_index(found.items, found.users, spec, out)
    weights = load_file(student.artifact.path / "weights.safetensors")
    trained = np.bincount(dataset.train.items, minlength=dataset.num_items) > 0
    query = {"user": weights["user.weight"] * (np.diff(dataset.train.indptr) > 0)[:, None]}
    histories = None
    if isinstance(model, TwoTower):
        query["history"] = weights["item.weight"] * trained[:, None]
        query |= {name: value for name, value in weights.items() if name.startswith("layers.")}
        last = Sequences.of(known).latest(torch.arange(dataset.num_users), length).items.numpy()
        histories = [row[row >= 0] for row in last]
    meta = {
        "kind": student.spec.kind,
        "space": model.space,
        "dim": int(found.items.shape[1]),
        "num_users": dataset.num_users,
        "num_items": dataset.num_items,
    } | ({"history": length} if length else {})
    popular = np.argsort(-np.bincount(known.items, minlength=dataset.num_items), kind="stable").astype(np.int64)
    times = [int(part.times.max()) for part in (dataset.train, dataset.valid) if part.times is not None and len(part)]
    write_bundle(
        out / "bundle",
        query=query,
        query_meta=meta,
        user_ids=dataset.user_ids,
        item_ids=dataset.item_ids,
        histories=histories,
        popular=popular,
        index_dir=out,
        facts={"fingerprint": fingerprint, "data_end": _iso(max(times)) if times else None},
        tables=spec.tables,
    )
    return facts


def as_served(model: Model, config: Mapping[str, Any]) -> Model:
    """Return `model` with the tables of its queries rounded as an index stage of `config` keeps them."""
    kind, weights = config.get("tables", "fp32"), model.state_dict()
    for name in ("user.weight", "item.weight") if kind != "fp32" else ():
        weights[name] = torch.from_numpy(rounded(weights[name].numpy(), kind))
    model.load_state_dict(weights)
    return model


def _iso(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")
