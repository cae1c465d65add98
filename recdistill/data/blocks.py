"""An ingested log in blocks of whole users, each small enough to hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recdistill.types import Int

ROWS = 1 << 21  # of a block, but for its last user


@dataclass(frozen=True, slots=True)
class Blocks:
    """The log that `ingest` wrote, by user; iteration gives it block by block."""

    scan: pl.LazyFrame
    names: list[str]
    cuts: list[int]  # the first row of each block, and the number of rows

    @classmethod
    def of(cls, ingested: Path) -> Blocks:
        """Return the log of the directory that `ingest` wrote."""
        ends = np.cumsum(pl.read_parquet(ingested / "users.parquet")["count"].to_numpy())
        scan = pl.scan_parquet(ingested / "log.parquet")
        starts = np.append(0, ends[:-1])
        cuts = starts[np.flatnonzero(np.diff(starts // ROWS, prepend=-1))]
        return cls(scan, scan.collect_schema().names(), [*map(int, cuts), int(ends[-1])])

    @property
    def rows(self) -> int:
        return self.cuts[-1]

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for first, end in zip(self.cuts, self.cuts[1:], strict=False):
            yield self.scan.slice(first, end - first).collect()

    def column(self, name: str) -> Iterator[Int]:
        """Yield one column, block by block."""
        for block in self.scan.select(name).collect_batches():
            yield block[name].to_numpy()
