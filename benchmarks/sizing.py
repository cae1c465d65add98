"""What a catalogue takes in memory, hours and machines, from rates that were measured on this machine.

    python benchmarks/ingest.py && python benchmarks/growth.py        measures: runs/ingest.json, runs/growth.json
    python benchmarks/sizing.py --users 1e9 --items 1e8 --interactions 5e10 --machines 16 --cores 64 --ram-gb 512

Bytes are what the formats hold; rates are those of the largest size that was measured, one thread, 64 dimensions. Hours
are those of all cores at that rate: what threads cost each other must be measured where they run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

GB, DIM = 1e9, 64
IDS = 1 / 40 + 1 / 50  # users and items of a row in the log of benchmarks/ingest.py
LABEL_BYTES = 8  # of an item in a list: its row and its score


class Line(NamedTuple):
    """One stage: what it does, CPU-hours, bytes in memory at once over all machines and on disk, and the setting."""

    stage: str
    work: str
    hours: float
    memory: float
    disk: float
    setting: str
    wall: float | None = None  # hours, where they are not those of all cores


def rates(folder: Path) -> dict[str, float]:
    """Return CPU seconds a unit of work, by kind, from the files of the benchmarks in `folder`."""
    missing = [name for name in ("ingest", "growth") if not (folder / f"{name}.json").is_file()]
    if missing:
        sys.exit(
            f"no {folder / missing[0]}.json: run python benchmarks/{missing[0]}.py --out {folder / missing[0]}.json"
        )
    ours = [r for r in json.loads((folder / "ingest.json").read_text())["results"] if r["peer"] == "ours" and r["rows"]]
    small, size = sorted({r["size"] for r in ours})[-2:]
    own = {n: max(r["own"] for r in ours if r["size"] == n) * 2**30 for n in (small, size)}
    found = {
        "ingest": statistics.median(r["cpu"] for r in ours if r["size"] == size) / size,
        "ingest, wall": statistics.median(r["wall"] for r in ours if r["size"] == size) / size,
        "ingest bytes an id": (own[size] - own[small]) / ((size - small) * IDS),
    }
    points = json.loads((folder / "growth.json").read_text())["points"]
    for what in {point["what"] for point in points}:
        largest = max((p for p in points if p["what"] == what), key=lambda p: p["size"])
        found[what] = largest["cpu_s_per_million"] / 1e6
    return found


def lines(rate: dict[str, float], asked: argparse.Namespace) -> list[Line]:
    """Return the stages of a run over the catalogue that `asked` describes."""
    rows, dim = asked.users + asked.items, asked.dim / DIM
    table, sums = rows * asked.dim * 4, rows * 4
    each = table / asked.machines / GB
    lists = asked.label_users * asked.depth * LABEL_BYTES
    pairs = asked.label_users * asked.items
    index = asked.items * (asked.dim + 8)
    epoch = asked.interactions * rate["training, softmax"] * dim / 3600
    return [
        Line(
            "ingest, split",
            f"{asked.interactions:,.0f} rows",
            asked.interactions * rate["ingest"] / 3600,
            rows * rate["ingest bytes an id"],
            asked.interactions * 40,
            "one machine, as many cores at work as where it was measured",
            asked.interactions * rate["ingest, wall"] / 3600,
        ),
        Line(
            "training, an epoch",
            f"{asked.interactions:,.0f} samples, {asked.dim}-d, sampled softmax",
            epoch,
            table + sums,
            2 * (table + sums),
            f"exec.tables: auto lays rows over {asked.machines} hosts, {each:,.0f} GB on each; on disk two checkpoints",
        ),
        Line(
            "labels",
            f"{asked.label_users:,.0f} users x {asked.items:,.0f} items, best {asked.depth}",
            pairs * rate["lists against items"] * dim / 3600,
            asked.items * asked.dim * 4 / 2,
            lists,
            f"labels.compute: bf16, --shard i/{asked.machines}; items are mapped",
        ),
        Line(
            "index",
            f"{asked.items:,.0f} vectors in 8 bits and a row's number",
            0.0,
            index,
            index,
            "index.factory: IVF with SQ8",
        ),
        Line(
            "bundle",
            f"{asked.users:,.0f} users in 8 bits",
            0.0,
            asked.users * (asked.dim + 8),
            asked.users * (asked.dim + 8),
            "index.tables: int8; mapped where it serves",
        ),
    ]


def table(found: list[Line], asked: argparse.Namespace) -> str:
    """Return the lines as Markdown."""
    cores = asked.machines * asked.cores
    rows = ["| stage | work | CPU-hours | hours | in memory | on disk | how |", "|---|---|--:|--:|--:|--:|---|"]
    for line in found:
        hours = f"{line.wall or line.hours / cores:,.1f}" if line.hours else "-"
        spent = f"{line.hours:,.0f}" if line.hours else "-"
        rows.append(
            f"| {line.stage} | {line.work} | {spent} | {hours} | {line.memory / GB:,.0f} GB | {line.disk / GB:,.0f} GB "
            f"| {line.setting} |"
        )
    return "\n".join(rows)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers: dict[str, Any] = {"users": 1e9, "items": 1e8, "interactions": 5e10, "label-users": 1e7}
    for name, value in numbers.items():
        asked.add_argument(f"--{name}", type=float, default=value)
    for name, value in {"dim": 64, "depth": 100, "machines": 16, "cores": 64, "ram-gb": 512}.items():
        asked.add_argument(f"--{name}", type=int, default=value)
    asked.add_argument("--runs", type=Path, default=Path("runs"))
    args = asked.parse_args()
    found = lines(rates(args.runs), args)
    print(table(found, args))
    most = max(line.memory for line in found)
    needed = -(-most // (args.ram_gb * GB * 0.7))
    print(f"\nmachines of {args.ram_gb} GB: {needed:.0f} hold in 70% of it what is needed at once: {most / GB:,.0f} GB")


if __name__ == "__main__":
    main()
