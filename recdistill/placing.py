"""Where tables were laid, told: a line of the progress, a file beside the weights, and rows for a person to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recdistill.models.placement import Layout, Placement
from recdistill.models.tables import Distributed
from recdistill.store import write_text
from recdistill.types import Log
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
            f"{shard['weight_bytes'] / 1e6:,.1f}",
            f"{shard['optimizer_bytes'] / 1e6:,.1f}",
        )
        for row in plan["tables"]
        for shard in row["shards"]
    ]


def _where(row: Mapping[str, Any]) -> str:
    cached = "" if row["cache"] is None else f" {row['cache']:g}"
    return f"{row['sharding']} {row['kernel']}{cached}"
