"""What ingest and split wrote, as one value; the interactions stay on disk, mapped into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from recdistill.data.features import read_features
from recdistill.types import Dataset, Int, Interactions


def read_dataset(ingested: Path, divided: Path) -> Dataset:
    """Return the Dataset that `ingest` wrote to `ingested` and `split` to `divided`.

    Items and times are read-only views of the mapped files, without a copy. Raises OSError if a file is missing.
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
    )


def read_part(path: Path, num_users: int) -> Interactions:
    """Return one part as CSR over `num_users` rows."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    counts = np.bincount(_column(table, "user"), minlength=num_users)
    return Interactions(
        indptr=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)]),
        items=_column(table, "item"),
        times=_column(table, "time") if "time" in table.column_names else None,
    )


def _column(table: pa.Table, name: str) -> Int:
    chunks = [chunk.to_numpy(zero_copy_only=True) for chunk in table.column(name).chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate([np.zeros(0, np.int64), *chunks])
