"""Tables of any size as columns on disk: written piece by piece, read as views of mapped memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # it takes a tenth of a second to import, and whoever checks a configuration reads no table
    import pyarrow as pa


def columns(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """Return the columns `names` of an uncompressed Arrow file, or all of them, as read-only views of the file.

    A file of one batch is not copied; the batches of any other are put together in memory. Raises OSError if the file
    is missing.
    """
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    return {name: _column(table, name) for name in names or table.column_names}


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    column = table.column(name)
    return column.chunk(0).to_numpy(zero_copy_only=True) if column.num_chunks == 1 else column.to_numpy()


def append(directory: Path, name: str, block: Mapping[str, NDArray[Any]]) -> None:
    """Add the columns of `block`, [n] each, to those of the table `name` that grows in `directory`."""
    for column, values in block.items():
        with (directory / f"{name}.{column}").open("ab") as stream:
            values.tofile(stream)


def grown(directory: Path, name: str, types: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the columns of the table `name` that grew in `directory`, of NumPy `types`, as views of their files."""
    files = {column: directory / f"{name}.{column}" for column in types}
    some = {column: file.is_file() and file.stat().st_size > 0 for column, file in files.items()}
    return {c: np.memmap(files[c], dtype, "r") if some[c] else np.zeros(0, dtype) for c, dtype in types.items()}


def write(path: Path, table: Mapping[str, NDArray[Any]]) -> None:
    """Write the columns of `table`, [n] each, as an uncompressed Arrow file of one batch, without holding them."""
    import pyarrow as pa

    arrays = {}
    for column, values in table.items():
        kind = pa.from_numpy_dtype(values.dtype)
        arrays[column] = pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
    batch = pa.RecordBatch.from_pydict(arrays)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
