"""How long each point of a surface takes: all of them in turns, in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recdistill.latency import Target, measure
from recdistill.surface.points import Point

TIMES = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
REPEATS, MOST, FEWEST = 5, 1000, 100
SECONDS = 150.0  # of searching, by what the points took while they were judged


def timed(points: Sequence[Point], bundles: Mapping[int, Path], k: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return of each point its `latency` by part, `spread` and `qps`; and the environment they hold in.

    How many queries are asked depends on how long the points took before: fewer of what is slow.
    """
    targets = [
        Target(
            label=point.id,
            bundle=bundles[point.width],
            index=None if point.file.parent == bundles[point.width] else point.file,
            params=point.params,
            exclude=True,
        )
        for point in points
    ]
    queries = int(SECONDS / max(REPEATS * sum(point.seconds for point in points), 1e-9))
    rows, environment = measure(targets, k=k, queries=min(max(queries, FEWEST), MOST), repeats=REPEATS)
    by = {(row["model"], row["part"]): row for row in rows}
    found = []
    for point in points:
        parts = {part: by[point.id, part] for part in ("encode", "search", "total")}
        whole = parts["total"]
        times = {part: {name: row[name] for name in TIMES} for part, row in parts.items()}
        times["total"]["histogram"] = whole["histogram"]
        found.append(
            {
                "latency": times,
                "spread": whole["spread"],
                "qps": 1e3 / whole.get("mean_ms", whole["p50_ms"]),
            }
        )
    return found, environment
