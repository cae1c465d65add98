"""Interleaved timing: every peer once a round, so that what the machine does meanwhile hits all of them alike.

A wall time alone says little on a shared machine: CPU seconds stand beside it, and what is compared are ratios within
one round, of which the median and the spread (largest minus smallest, over the median) are printed.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Round(NamedTuple):
    wall: float  # seconds
    cpu: float  # seconds of this process, all threads


def interleaved(peers: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Round]]:
    """Return the rounds of each peer, after one unmeasured call of each; every round starts with another peer.

    A peer in a process of its own returns the Round that was measured there.
    """
    for work in peers.values():
        work()
    found: dict[str, list[Round]] = {name: [] for name in peers}
    names = list(peers)
    for r in range(rounds):
        shift = r % len(names)
        for name in names[shift:] + names[:shift]:
            wall, cpu = time.perf_counter(), time.process_time()
            told = peers[name]()
            here = Round(time.perf_counter() - wall, time.process_time() - cpu)
            found[name].append(told if isinstance(told, Round) else here)
    return found


def median(values: list[float]) -> float:
    return statistics.median(values)


def spread(values: list[float]) -> float:
    return (max(values) - min(values)) / median(values)


def rates(found: Mapping[str, list[Round]], work: float, against: list[str]) -> list[dict[str, Any]]:
    """Return a row a peer: `work` units a CPU-second and a second, and the ratio of CPU time to each of `against`."""
    rows = []
    for name, rounds in found.items():
        cpu, wall = [work / r.cpu for r in rounds], [work / r.wall for r in rounds]
        row: dict[str, Any] = {"name": name, "per_cpu_s": median(cpu), "spread": spread(cpu), "per_s": median(wall)}
        for other in against:
            ratios = [theirs.cpu / ours.cpu for theirs, ours in zip(found[other], rounds, strict=True)]
            row[f"x {other}"], row[f"x {other} spread"] = median(ratios), spread(ratios)
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]], unit: str, scale: float = 1e6) -> None:
    """Print the rows of `rates` as one table; ratios with their spread over the rounds."""
    ratios = [key for key in rows[0] if key.startswith("x ") and not key.endswith(" spread")]
    head = ["", f"{unit}/cpu-s", "spread", f"{unit}/s", *ratios]
    lines = [head]
    for row in rows:
        parts = [f"{row[key]:.2f} ({row[f'{key} spread']:.0%})" for key in ratios]
        numbers = [f"{row['per_cpu_s'] / scale:.1f}", f"{row['spread']:.0%}", f"{row['per_s'] / scale:.1f}"]
        lines.append([row["name"], *numbers, *parts])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        print(
            "  ".join(
                part.rjust(w) if i else part.ljust(w) for i, (part, w) in enumerate(zip(line, widths, strict=True))
            )
        )


def machine(threads: int) -> dict[str, Any]:
    """Return what the figures were measured on."""
    import torch

    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "cpu": model,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write(path: Path, result: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
