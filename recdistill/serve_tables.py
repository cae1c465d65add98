"""Tables of fewer bits, as a bundle keeps them and `recdistill.serve` reads them.

A part of the file that MLflow runs (recdistill.bundle.model_code), so it imports nothing of recdistill.

    fp32    name [n,d] float32
    fp16    name [n,d] float16
    int8    name [n,d] uint8, name.scale [n,2] float32: the row's step and its least number
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 255  # between the least and the greatest number of a row
KEPT = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "U8": np.dtype("u1")}  # as safetensors calls them


class Packed:
    """A table of fewer bits, whose rows are float32 when they are taken."""

    # Not a dataclass: those look their module up, and MLflow runs this file without listing it as one.
    def __init__(self, values: NDArray[Any], scale: NDArray[Any] | None) -> None:
        self.values = values  # [n,d] float16 or uint8
        self.scale = scale  # [n,2] float32, of uint8

    @property
    def shape(self) -> tuple[int, ...]:
        """Return rows and columns."""
        return self.values.shape

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Return those rows, [n,d]."""
        found = self.values[rows].astype(np.float32)
        if self.scale is None:
            return found
        scale = self.scale[rows]
        return found * scale[..., :1] + scale[..., 1:]


def pack(name: str, table: NDArray[Any], kind: str) -> dict[str, NDArray[Any]]:
    """Return the arrays that keep `table` [n,d] as `kind`: fp32, fp16 or int8.

    int8 is by row, as FBGEMM keeps it: no number is further from what it was than half a 255th of its row's range.
    """
    wanted = np.ascontiguousarray(table, dtype=np.float32)
    if kind == "fp32":
        return {name: wanted}
    if kind == "fp16":
        return {name: wanted.astype(np.float16)}
    low, high = wanted.min(1, keepdims=True), wanted.max(1, keepdims=True)
    step = (high - low) / STEPS
    values = np.rint(np.divide(wanted - low, step, out=np.zeros_like(wanted), where=step > 0))
    return {name: values.clip(0, STEPS).astype(np.uint8), f"{name}.scale": np.concatenate([step, low], axis=1)}


def unpack(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any] | Packed:
    """Return the table `name` of `arrays`, whose rows can be taken; raises KeyError if it is not there."""
    found = arrays[name]
    return found if found.dtype == np.float32 else Packed(found, arrays.get(f"{name}.scale"))


def read_tables(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a safetensors file, read-only views of the mapped file.

    The library's own reader copies them, so that each process that serves would hold its own. Raises ValueError if the
    file is no such file, is cut, or holds other types than a bundle's.
    """
    whole = np.memmap(path, np.uint8, "r").view(np.ndarray)
    try:
        start = 8 + int(whole[:8].view("<u8")[0])
        header = json.loads(whole[8:start].tobytes())
        header.pop("__metadata__", None)
        return {name: _mapped(whole[start:], said) for name, said in header.items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as cause:
        raise ValueError(f"{path.name} is not the file of tables that its header says: {cause}") from cause


def _mapped(data: NDArray[np.uint8], said: Mapping[str, Any]) -> NDArray[Any]:
    (first, end), kind = said["data_offsets"], KEPT[said["dtype"]]
    if not 0 <= first <= end <= len(data):
        raise ValueError(f"bytes {first} to {end} of {len(data)}")
    return data[first:end].view(kind).reshape(said["shape"])


def rounded(table: NDArray[Any], kind: str) -> NDArray[np.float32]:
    """Return `table` [n,d] as it is read again where it is kept as `kind`."""
    return unpack(pack("table", table, kind), "table")[:]
