"""What is said of where tables shall lie; free of torch, so that checking a file is quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Layout = Literal["auto", "table_wise", "row_wise", "column_wise", "table_row_wise", "grid", "data_parallel"]


@dataclass(frozen=True, slots=True)
class Placement:
    """How tables may be laid over the ranks, and what the planner may dispose of."""

    tables: Layout | Mapping[Any, Layout] = "auto"  # of all tables, or by a table's name
    hbm: int | None = None  # bytes of one GPU; measured if None
    ddr: int | None = None  # bytes of one host; measured if None
    cache: float | None = None  # share of the rows that a GPU holds, of tables that lie in the host's memory
    batch: int = 4096  # rows that the ranks look up in a step, together

    def of(self, table: str) -> Layout:
        """Return what is said of `table`."""
        return self.tables if isinstance(self.tables, str) else self.tables.get(table, "auto")
