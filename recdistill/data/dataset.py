"""What ingest and split wrote, as one value; the interactions stay on disk, mapped into memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from recdistill.data.features import read_features
from recdistill.data.mapped import columns
from recdistill.types import Dataset, Interactions


def read_dataset(ingested: Path, divided: Path) -> Dataset:
    """Return the Dataset that `ingest` wrote to `ingested` and `split` to `divided`.

    Items, times, weights and events are read-only views of the mapped files, without a copy. Raises OSError if a
    file is missing.
    """
    users, items = pl.read_parquet(ingested / "users.parquet"), pl.read_parquet(ingested / "items.parquet")
    user_features, item_features = read_features(ingested)
    return Dataset(
        user_ids=users["user_id"],
        item_ids=items["item_id"],
        train=read_part(divided / "train.arrow", users.height),
        valid=read_part(divided / "valid.arrow", users.height),
        test=read_part(divided / "test.arrow", users.height),
        user_features=user_features,
        item_features=item_features,
        events=tuple(json.loads((divided / "events.json").read_text(encoding="utf-8"))),
    )


def read_part(path: Path, num_users: int) -> Interactions:
    """Return one part as CSR over `num_users` rows."""
    found = columns(path)
    counts = np.bincount(found["user"], minlength=num_users)
    return Interactions(
        indptr=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)]),
        items=found["item"],
        times=found.get("time"),
        weights=found.get("weight"),
        events=found.get("event"),
        owners=found["user"],
    )
