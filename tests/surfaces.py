"""Made-up surfaces of the form that the stage writes, with known answers: a plausible one, and points by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

EXACT = {8: 0.118, 16: 0.130, 32: 0.1365, 64: 0.139}
# factory -> (bytes of a number, of an item besides, runtime parameters, share of the scan's time, recall at each)
FACTORIES: dict[str, tuple[float, int, str, tuple[int, ...], tuple[float, ...], tuple[float, ...]]] = {
    "Flat": (4, 0, "", (0,), (1.0,), (1.0,)),
    "SQ8": (1, 0, "", (0,), (0.9,), (0.985,)),
    "HNSW32": (4, 272, "efSearch", (16, 64), (0.04, 0.12), (0.93, 0.995)),
    "IVF512,SQ8": (1, 8, "nprobe", (2, 4, 8, 16, 32, 64), (0.02, 0.03, 0.05, 0.09, 0.17, 0.33),
                   (0.55, 0.7, 0.84, 0.93, 0.975, 0.984)),
}  # fmt: skip
ITEMS, USERS = 40981, 29858


def point(name: str, *, quality: float | None = 0.13, p95: float | None = 1.0, size: int = 5, **more: Any) -> Any:
    """Return one point: p95 in milliseconds, size in 10^6 bytes, an interval of 0.002 on both sides."""
    times = {"p50_ms": None if p95 is None else p95 / 2, "p95_ms": p95, "p99_ms": p95, "max_ms": p95}
    around = {} if quality is None else {"low": quality - 0.002, "high": quality + 0.002}
    return {
        "id": name,
        "width": 16,
        "factory": "Flat",
        "params": "",
        "recall": {"10": 0.99, "100": 0.95},
        "quality": quality,
        "low": None,
        "high": None,
        **around,
        "index_bytes": size * 600_000,
        "query_bytes": size * 400_000,
        "bytes": size * 1_000_000,
        "build_s": 1.9,
        "latency": {"encode": None, "search": times, "total": times},
        "spread": 0.03,
        "qps": 2000.0 / p95 if p95 else None,
        "kept": True,
        **more,
    }


def surface(points: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return a surface of `points`, else of forty plausible ones."""
    teacher = {"quality": 0.142, "low": 0.140, "high": 0.144, "bytes": 81_000_000}
    teacher |= {"p50_ms": 204.8, "p95_ms": 230.1, "p99_ms": 250.0, "max_ms": 300.0}
    exact = {str(w): {"quality": q, "low": q - 0.002, "high": q + 0.002} for w, q in EXACT.items()}
    return {
        "schema_version": 1,
        "metric": "ndcg",
        "k": 10,
        "users": USERS,
        "num_items": ITEMS,
        "fingerprint": "ab" * 16,
        "teacher": teacher,
        "exact": exact,
        "norms": {w: {"mean": 1.0, "spread": 0.0, "warning": ""} for w in exact},
        "environment": {"cpu": "a processor", "cpus": 2, "noise": {"judge": True}},
        "points": plausible() if points is None else points,
        **more,
    }


def plausible() -> list[dict[str, Any]]:
    """Return points of every width and factory, those of the front marked as kept."""
    points = []
    for width, exact in EXACT.items():
        for factory, (number, item, name, settings, cost, recalls) in FACTORIES.items():
            for setting, share, recall in zip(settings, cost, recalls, strict=True):
                params = f"{name}={setting}" if name else ""
                points.append(_plausible(width, factory, params, (number * width + item) * ITEMS, share, recall, exact))
    for p in points:
        p["kept"] = not any(_dominates(other, p) for other in points)
    return points


def _plausible(
    width: int, factory: str, params: str, index: float, share: float, recall: float, exact: float
) -> dict[str, Any]:
    search = 0.004 + share * ITEMS * width * 1.2e-7
    parts = {"encode": (0.005 + width * 1e-5, 1), "search": (search, 2), "total": (0.007 + width * 1e-5 + search, 3)}
    mean, spread = parts["total"][0] * 1.08, 0.0023
    quality = exact * (1 - 0.35 * (1 - recall))
    query = USERS * width * 4
    return {
        "id": f"d{width} {factory} {params}".strip(),
        "width": width,
        "factory": factory,
        "params": params,
        "recall": {"10": recall, "100": recall - 0.1 * (1 - recall)},
        "quality": round(quality, 6),
        "low": round(quality - spread, 6),
        "high": round(quality + spread, 6),
        "index_bytes": int(index),
        "query_bytes": query,
        "bytes": int(index) + query,
        "build_s": round(0.2 + 2e-8 * index, 3),
        "latency": {name: _times(middle, seed) for name, (middle, seed) in parts.items()},
        "spread": 0.03,
        "qps": round(1000 / mean, 1),
        "kept": False,
    }


def _times(middle: float, seed: int) -> dict[str, Any]:
    drawn = middle * np.exp(0.12 * np.abs(np.random.default_rng(seed).standard_normal(2000)))
    counts, edges = np.histogram(drawn, np.geomspace(drawn.min() * 0.999, drawn.max() * 1.001, 25))
    p50, p95, p99 = np.percentile(drawn, [50, 95, 99])
    found = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": drawn.max()}
    shown = {name: round(float(v), 6) for name, v in found.items()}
    return shown | {"histogram": {"edges_ms": [float(e) for e in edges], "counts": counts.tolist()}}


def _dominates(a: dict[str, Any], b: dict[str, Any]) -> bool:
    one, two = ((-p["quality"], p["latency"]["total"]["p95_ms"], p["bytes"]) for p in (a, b))
    return one != two and all(x <= y for x, y in zip(one, two, strict=True))


def finite(value: Any) -> bool:
    """Say whether every number in JSON values is finite."""
    if isinstance(value, dict):
        return all(finite(v) for v in value.values())
    if isinstance(value, list):
        return all(finite(v) for v in value)
    return not isinstance(value, float) or math.isfinite(value)
