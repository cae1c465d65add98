"""The tables of docs/latency.md: what a surface says, what a plan picks of it, and the pick measured again.

    python benchmarks/surface.py configs/gowalla-serving.yaml --plan "--memory-mb 3" --plan "--p95-ms 0.3"

Reads what `recdistill run` of the same configuration left. Picks are timed again together, in a process of their own,
beside the exact index of the whole width; what is compared is how much faster than that one each was, then and now.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

KEPT = 0.99  # of the exact quality of its width, which a way to serve has if it is worth a row


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("config", type=Path)
    asked.add_argument("--plan", action="append", default=[], help="limits, as plan-serving has them")
    args = asked.parse_args()
    from pipelines.serving import planned, surface_of
    from recdistill.config import load_config
    from recdistill.surface_form import read_surface

    made = surface_of(load_config(args.config), args.config)
    surface = read_surface(made.path).model_dump()
    print(told(surface), *table(surface), "", sep="\n")
    picks = []
    for text in args.plan:
        words = text.split()
        limits = {name: float(bound) for name, bound in zip(words[::2], words[1::2], strict=True)}
        data, said = planned(args.config, limits, out=None, method=None, sets=())
        print(f"`{text}`", "```", *said, "```", "", sep="\n")
        picks += [data["picked"]["id"]] if data["picked"] else []
    if picks:
        print(*again(surface, made.path, dict.fromkeys(picks)), sep="\n")


def told(surface: dict[str, Any]) -> str:
    noise = surface["environment"].get("noise", {})
    whole = f"{surface['users']:,} users, {surface['num_items']:,} items, {len(surface['points'])} ways to serve"
    kept = sum(point["kept"] for point in surface["points"])
    return f"{whole}, {kept} on the front. Noise: {noise.get('why')} (judge: {noise.get('judge')}).\n"


def table(surface: dict[str, Any]) -> list[str]:
    """Return a row for exact search at each width, and for what is on the front and keeps its quality."""
    name = f"{surface['metric'].upper()}@{surface['k']}"
    head = ["way to serve", name, "of exact", "of teacher", "recall@10", "p50 ms", "p95 ms", "queries/s", "MB"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    teacher = surface["teacher"]
    for point in surface["points"]:
        exact = surface["exact"][str(point["width"])]["quality"]
        if point["factory"] != "Flat" and (not point["kept"] or point["quality"] < KEPT * exact):
            continue
        total = point["latency"]["total"]
        share = f"{point['quality'] / teacher['quality']:.1%}" if teacher else ""
        cells = [point["id"], f"{point['quality']:.4f}", f"{point['quality'] / exact:.1%}", share]
        cells += [f"{point['recall']['10']:.3f}", f"{total['p50_ms']:.3f}", f"{total['p95_ms']:.3f}"]
        lines.append("| " + " | ".join([*cells, f"{point['qps']:,.0f}", f"{point['bytes'] / 1e6:.1f}"]) + " |")
    if teacher:
        times = [f"{teacher[key]:.1f}" if teacher.get(key) else "" for key in ("p50_ms", "p95_ms")]
        bytes_ = f"{teacher['bytes'] / 1e6:.1f}" if teacher.get("bytes") else ""
        lines.append(f"| teacher | {teacher['quality']:.4f} | | 100% | | {' | '.join(times)} | | {bytes_} |")
    return lines


def again(surface: dict[str, Any], path: Path, picks: dict[str, None]) -> list[str]:
    """Return a row for each pick: how many times as fast as exact search it was on the surface, and is now."""
    from recdistill.latency import Target, measure

    points = {point["id"]: point for point in surface["points"]}
    widest = f"d{max(point['width'] for point in points.values())} Flat"
    targets = [target(points[name], path, Target) for name in (widest, *picks)]
    rows, environment = measure(targets, k=surface["k"], queries=1000)
    now = {row["model"]: row for row in rows if row["part"] == "total"}
    lines = [
        "| pick | p50 ms then | now | p95 ms then | now | times as fast as exact, then | now |",
        "|---|" + "--:|" * 6,
    ]
    for name in picks:
        then, exact = points[name]["latency"]["total"], points[widest]["latency"]["total"]
        cells = [f"{then['p50_ms']:.3f}", f"{now[name]['p50_ms']:.3f}", f"{then['p95_ms']:.3f}"]
        cells += [f"{now[name]['p95_ms']:.3f}", f"{exact['p50_ms'] / then['p50_ms']:.2f}"]
        cells.append(f"{now[widest]['p50_ms'] / now[name]['p50_ms']:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    noise = environment["noise"]
    return [*lines, "", f"Noise: {noise['why']} (judge: {noise['judge']})."]


def target(point: dict[str, Any], path: Path, kind: Any) -> Any:
    bundle = path / f"d{point['width']}" / "bundle"
    index = None if point["factory"] == "Flat" else path / point["file"]
    return kind(label=point["id"], bundle=bundle, index=index, params=point["params"], exclude=True)


if __name__ == "__main__":
    main()
