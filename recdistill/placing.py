"""Where tables were laid, told: a line of the progress, a file beside the weights, and rows for a person to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import nn

from recdistill.models.build import build
from recdistill.models.placement import Layout, Placement
from recdistill.models.plan import plan_tables
from recdistill.models.sharding import Optimizer, fuse
from recdistill.models.spec import ModelSpec
from recdistill.models.tables import Distributed, Table
from recdistill.store import write_text
from recdistill.types import Dataset, Interactions, Log
from recdistill.world import World

Where = Layout | Placement
PLAN = "plan.json"


def told(model: Distributed, out: Path, name: str, world: World, log: Log) -> Distributed:
    """Write where the tables of `model` lie to plan.json in `out`, say it in a line, and return `model`; collective."""
    world.share(lambda: write_text(out / PLAN, json.dumps(model.plan, indent=1)))
    fullest = max(rank["weight_bytes"] + rank["optimizer_bytes"] for rank in model.plan["ranks"])
    log(f"{name} tables {summary(model.plan)}", 1, 1, {"megabytes on the fullest rank": fullest / 1e6})
    return model


def summary(plan: Mapping[str, Any]) -> str:
    """Return in a few words where each table of `plan` lies."""
    return ", ".join(f"{row['path'].removesuffix('.ebc')} {_where(row)}" for row in plan["tables"])


def shard_rows(plan: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a line for each shard of `plan`: whose, how, on which rank, which rows and columns, how many megabytes."""
    return [
        (
            row["path"].removesuffix(".ebc"),
            _where(row),
            str(shard["rank"]),
            "-".join(map(str, shard["rows"])),
            "-".join(map(str, shard["columns"])),
            f"{shard['weight_bytes'] / 1e6:,.3f}",
            f"{shard['optimizer_bytes'] / 1e6:,.3f}",
        )
        for row in plan["tables"]
        for shard in row["shards"]
    ]


def rank_rows(plan: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a line for each rank of `plan`: gigabytes of weights, of the optimizer, and what the planner reckons."""
    counted = [
        (rank["weight_bytes"], rank["optimizer_bytes"], rank["planned"]["hbm_bytes"], rank["planned"]["ddr_bytes"])
        for rank in plan["ranks"]
    ]
    return [(str(rank), *(f"{each / 1e9:.3f}" for each in row)) for rank, row in enumerate(counted)]


def plan_model(
    spec: ModelSpec, optimizer: Optimizer, dataset: Dataset, place: Placement, *, size: int, local: int, device: str
) -> dict[str, Any]:
    """Return where the tables of the model that `spec` describes would lie, as `plan_tables` does; nothing is filled.

    Raises StageError if they do not fit, or cannot lie so.
    """
    module = nn.ModuleDict({"model": build(spec, dataset, Table, seed=0)})
    tables = {f"{name}.ebc": child.ebc for name, child in module.named_modules() if isinstance(child, Table)}
    fuse(tables, optimizer, 1.0)
    return plan_tables(module, tables, optimizer=optimizer, place=place, size=size, local=local, device=device)


def nobody(users: int, items: int) -> Dataset:
    """Return a dataset of so many users and items who did nothing, and which takes no memory."""
    none = Interactions(indptr=np.broadcast_to(np.int64(0), users + 1), items=np.zeros(0, np.int64))
    ids = [pl.repeat(None, rows, dtype=pl.Null, eager=True) for rows in (users, items)]
    return Dataset(user_ids=ids[0], item_ids=ids[1], train=none, valid=none, test=none)


def _where(row: Mapping[str, Any]) -> str:
    cached = "" if row["cache"] is None else f" {row['cache']:g}"
    return f"{row['sharding']} {row['kernel']}{cached}"
