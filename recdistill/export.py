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
from recdistill.bundle import encode, open_bundle, write_bundle
from recdistill.data.sequences import Sequences
from recdistill.evaluate import merge
from recdistill.fit import load
from recdistill.models.build import Model, history_length
from recdistill.models.encoders import MF, TwoTower
from recdistill.models.spec import Fitted
from recdistill.scoring import vectors
from recdistill.types import Dataset, Float, Int, Interactions, Space


def index_student(dataset: Dataset, student: Fitted, spec: IndexSpec, out: Path, fingerprint: str) -> dict[str, Any]:
    """Write flat.faiss and the bundle of `student` to `out`; returns the index's facts.

    What serves knows everything up to the test part: default histories hold train and validation items.
    """
    model, length = load(student.spec, dataset, student.artifact.path), history_length(student.spec)
    known = merge(dataset.train, dataset.valid)
    found = vectors(model, dataset, Sequences.of(known), length)
    items, users = (first(side, spec.width, found.space) for side in (found.items, found.users))
    facts = build_index(items, users, spec, out)
    how = {"width": spec.width, "tables": spec.tables, "whole": spec.histories == "whole"}
    serving(dataset, student, model, out, out / "bundle", fingerprint=fingerprint, **how)
    return facts


def serving(
    dataset: Dataset,
    student: Fitted,
    model: Model,
    index_dir: Path,
    out: Path,
    *,
    fingerprint: str,
    width: int | None = None,
    tables: str = "fp32",
    whole: bool = False,
) -> None:
    """Write the bundle of `student`, which is `model`, to the directory `out` with the index in `index_dir`.

    `width` is how many of the first numbers of a vector serve, None for all. `whole` keeps all that each user took,
    to be left out of answers; otherwise a history holds what the encoder reads.
    """
    assert isinstance(model, MF | TwoTower), "a student is an encoder"
    length, known = history_length(student.spec), merge(dataset.train, dataset.valid)
    weights = load_file(student.artifact.path / "weights.safetensors")
    trained = np.bincount(dataset.train.items, minlength=dataset.num_items) > 0
    query = {"user": weights["user.weight"] * (np.diff(dataset.train.indptr) > 0)[:, None]}
    if isinstance(model, TwoTower):
        query["history"] = weights["item.weight"] * trained[:, None]
        query |= {name: value for name, value in weights.items() if name.startswith("layers.")}
    width = int(weights["item.weight"].shape[1]) if width is None else width
    meta = {
        "kind": student.spec.kind,
        "space": model.space,
        "dim": width,
        "num_users": dataset.num_users,
        "num_items": dataset.num_items,
    } | ({"history": length} if length else {})
    times = [int(part.times.max()) for part in (dataset.train, dataset.valid) if part.times is not None and len(part)]
    write_bundle(
        out,
        query=cut(query, width),
        query_meta=meta,
        user_ids=dataset.user_ids,
        item_ids=dataset.item_ids,
        histories=_histories(known, length, whole=whole),
        popular=np.argsort(-np.bincount(known.items, minlength=dataset.num_items), kind="stable").astype(np.int64),
        index_dir=index_dir,
        facts={"fingerprint": fingerprint, "data_end": _iso(max(times)) if times else None},
        tables=tables,
    )


def first(found: Float, width: int | None, space: Space) -> Float:
    """Return the first `width` numbers of vectors [n,D], of length 1 in cosine space; all of them if it is None."""
    if width is None or width == found.shape[1]:
        return found
    short = np.array(found[:, :width], np.float32)
    return short if space == "dot" else short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)


def cut(query: Mapping[str, Float], width: int) -> dict[str, Float]:
    """Return the arrays of query.safetensors with which the first `width` numbers of a user's vector are worked out.

    Hidden layers read whole rows, so behind them only the last layer is cut.
    """
    depth = sum(name.startswith("layers.") and name.endswith(".weight") for name in query)
    ends = {f"layers.{depth - 1}.weight", f"layers.{depth - 1}.bias"}
    if depth:
        return {name: array[:width] if name in ends else array for name, array in query.items()}
    return {name: array[:, :width] for name, array in query.items()}


def as_served(bundle: Path, sequences: Sequences, users: Int) -> Float:
    """Return the vectors [n,D] with which `bundle` asks for `users` [n] who took what is in `sequences`."""
    opened = open_bundle(bundle)
    offsets, items = sequences.indptr.numpy(), sequences.items.numpy()
    histories = [items[offsets[user] : offsets[user + 1]] for user in users] if opened.kind == "two_tower" else []
    return encode(opened, users.tolist(), histories)


def _histories(known: Interactions, length: int, *, whole: bool) -> list[Int] | None:
    """Return the item rows of each user's history, the latest last; None where the encoder reads none."""
    if whole:
        sequences = Sequences.of(known)
        return np.split(sequences.items.numpy(), sequences.indptr.numpy()[1:-1])
    if not length:
        return None
    last = Sequences.of(known).latest(torch.arange(known.num_users), length).items.numpy()
    return [row[row >= 0] for row in last]


def _iso(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")
