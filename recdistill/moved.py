"""Yesterday's weights of an encoder in today's rows: whoever was there keeps a row, and what is dense stays."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from recdistill.models.build import Model
from recdistill.models.tables import Rows, Table, init_rows
from recdistill.store import aside
from recdistill.types import Float, Int

WEIGHTS = "weights.safetensors"
TABLES = {"user": "users", "item": "items"}  # the module of a table in an encoder -> the side that its rows are


def write_moved(fit: Path, known: Mapping[str, Int], out: Path, name: str) -> None:
    """Write the weights of the encoder at `fit` to `out` as `name`, its tables in today's rows.

    `known` gives for each of today's users and items the row in those weights, -1 of who is new, whose row is zeros.
    """
    names = {f"{table}.weight": side for table, side in TABLES.items()}
    with safe_open(fit / WEIGHTS, "pt") as found:
        dense = {each: found.get_tensor(each) for each in set(found.keys()) - set(names)}
        for each, side in names.items():
            rows = known[side]
            table = found.get_tensor(each).numpy()
            values = np.zeros((len(rows), table.shape[1]), np.float32)
            values[rows >= 0] = table[rows[rows >= 0]]
            with aside(out / f"{name}-tables-{side}.npy") as file, file.open("wb") as handle:
                np.save(handle, values)
    with aside(out / f"{name}-dense.safetensors") as file:
        save_file(dense, file)


def moved(model: Model, path: Path, name: str, *, std: float, seed: int) -> dict[str, Rows]:
    """Fill what is dense of `model` with what `write_moved` left at `path` as `name`; return what tables begin with.

    Who is new begins with the row that it would have had at random with `std` and `seed`.
    """
    dense = load_file(path / f"{name}-dense.safetensors")
    if dense:
        model.load_state_dict(dense, strict=False)
    found = dict[str, Rows]()
    for module, child in model.named_modules():
        if isinstance(child, Table):
            side = TABLES[child.name]
            values = np.load(path / f"{name}-tables-{side}.npy", mmap_mode="r")
            known = np.load(path / f"{side}.npy") >= 0
            found[f"model.{module}"] = partial(kept_or_new, child.name, values, known, std=std, seed=seed)
    return found


def kept_or_new(
    name: str, table: Float, known: NDArray[np.bool_], start: int, stop: int, *, std: float, seed: int
) -> Tensor:
    """Return the rows [start, stop) of `table` [n,D] where `known` [n], else the random ones of a table `name`."""
    fresh = init_rows(name, start, stop, table.shape[1], std=std, seed=seed)
    there = torch.from_numpy(np.asarray(known[start:stop])).unsqueeze(1)
    return torch.where(there, torch.from_numpy(np.array(table[start:stop])), fresh)
