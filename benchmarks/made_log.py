"""A log of any size that is made up, for ingest: Zipf's users and items, times in order, weights, pairs that repeat."""

from __future__ import annotations

from pathlib import Path

import numpy as np

PIECE = 1 << 20  # rows that are made at a time
PER_USER, PER_ITEM = 40, 50  # rows a user and an item on average, before the core
HEAD_USERS, HEAD_ITEMS = 50, 200  # one in so many is in the flat head of Zipf's law
START, SPAN = 1_700_000_000, 180 * 86_400  # seconds


def make(path: Path, rows: int, ids: str) -> None:
    """Write a log of `rows` rows to Parquet, piece by piece; the same arguments give the same rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    users, items = max(64, rows // PER_USER), max(64, rows // PER_ITEM)
    writer = None
    for first in range(0, rows, PIECE):
        rng = np.random.default_rng([rows, first])
        n = min(PIECE, rows - first)
        user, item = _zipf(rng, users, HEAD_USERS, n), _zipf(rng, items, HEAD_ITEMS, n)
        again = rng.random(n) < 0.02
        back = rng.integers(1, 5_000, n)
        source = np.maximum(np.arange(n) - back, 0)
        user[again], item[again] = user[source[again]], item[source[again]]
        # An odd factor scatters the ids, so that neither order nor density of ids says anything.
        user, item = (x * 2_654_435_761 % (1 << 40) for x in (user, item))
        when = START + ((first + np.arange(n)) * SPAN // rows) - rng.integers(0, 600, n)
        weight = rng.integers(1, 11, n).astype(np.float32) / 2
        columns = {"user": pa.array(user), "item": pa.array(item), "time": pa.array(when), "weight": pa.array(weight)}
        if ids == "text":
            for name, letter in (("user", "u"), ("item", "i")):
                columns[name] = pa.array([f"{letter}{x:013d}" for x in columns[name].to_pylist()])
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()


def _zipf(rng: np.random.Generator, size: int, head: int, n: int) -> np.ndarray:
    """Return `n` ranks below `size`; rank r is drawn in proportion to 1 / (r + size / head)."""
    return np.minimum(size / head * ((1 + head) ** rng.random(n) - 1), size - 1).astype(np.int64)


def write_inter(log: Path, out: Path) -> Path:
    """Write the rows of a Parquet log as RecBole reads them: a folder with one table of text."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    kinds = {"user": "user_id:token", "item": "item_id:token", "time": "timestamp:float", "weight": "weight:float"}
    with (out / f"{out.name}.inter").open("wb") as file:
        file.write(("\t".join(kinds.values()) + "\n").encode())
        options = pa.csv.WriteOptions(include_header=False, delimiter="\t")
        pa.csv.write_csv(pq.read_table(log, columns=list(kinds)), file, options)
    return out
