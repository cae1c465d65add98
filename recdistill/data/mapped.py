"""Columns of Arrow files as views of mapped memory: they cost no memory of their own, whatever their size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def columns(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """Return the columns `names` of an uncompressed Arrow file, or all of them, as read-only views of the file.

    A file of one batch is not copied; the batches of any other are put together in memory. Raises OSError if the file
    is missing.
    """
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    return {name: _column(table, name) for name in names or table.column_names}


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    empty = np.zeros(0, table.schema.field(name).type.to_pandas_dtype())
    chunks = [chunk.to_numpy(zero_copy_only=True) for chunk in table.column(name).chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate([empty, *chunks])
