"""The same run again and again: which artifacts have the same bytes, and how far metrics are apart where they differ.

    python benchmarks/same.py CONFIG [--times 3] [--ranks 1,2,4] [--threads 1,2] [--until evaluate] [--set KEY=VALUE]

Each run has a store of its own and nothing from another. `--threads` is the number of threads of torch, OpenMP and
Polars of each process; `--ranks` the number of processes. Repeats of one row are asked for the same bytes; rows are
compared by the metrics of the first of each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# What an artifact tells of its making alone; all else that it holds is compared.
OF_THE_MAKING = ("created_at", "seconds", "env", "git", "digest")
TIMES = ("seconds_per_epoch", "build_s", "scored_at")  # facts

Found = Mapping[str, Mapping[str, Any]]
"""Artifact (`stage/fingerprint`) -> its files' SHA-256, and its facts but those of time."""


def contents(store: Path) -> dict[str, dict[str, Any]]:
    """Return of each whole artifact of `store` what is to be the same whenever it is made."""
    found = {}
    for file in sorted(store.glob("*/*/manifest.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        files = {name: entry["sha256"] for name, entry in told["files"].items()}
        facts = {name: value for name, value in told["facts"].items() if name not in TIMES}
        rest = {k: v for k, v in told.items() if k not in (*OF_THE_MAKING, "files", "facts")}
        found[str(file.parent.relative_to(store))] = {"files": files, "facts": facts, "rest": rest}
    return found


def apart(one: Found, other: Found) -> list[str]:
    """Return what of both differs: an artifact that one of them lacks, or a file or fact of one that both have."""
    differs = sorted(set(one) ^ set(other))
    for name in sorted(set(one) & set(other)):
        for part in ("files", "facts", "rest"):
            mine, theirs = one[name][part], other[name][part]
            differs += [f"{name}: {key}" for key in sorted(set(mine) | set(theirs)) if mine.get(key) != theirs.get(key)]
    return differs


def metrics(store: Path) -> dict[str, float]:
    """Return the quality of each model on all users, by `model metric@k`; {} before it is evaluated."""
    found = {}
    for file in store.glob("evaluate/*/quality.json"):
        for row in json.loads(file.read_text(encoding="utf-8"))["quality"]:
            if row["slice"] == "all":
                found[f"{row['model']} {row['metric']}@{row['k']}"] = row["value"]
    return found


def run(config: str, store: Path, *, ranks: int, threads: int, until: str, sets: Sequence[str]) -> None:
    """Run CONFIG into `store`; SystemExit with what it said if it fails."""
    head = [sys.executable]
    if ranks > 1:
        head += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    words = ["-m", "pipelines", "run", config, "--json", "--until", until]
    for one in (*sets, f"exec.store={store}", f"exec.threads={threads}"):
        words += ["--set", one]
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {"OMP_WAIT_POLICY": "PASSIVE"} | dict(os.environ) | limits | {"PYTHONPATH": path}
    done = subprocess.run([*head, *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{ranks} processes of {threads} threads: exit code {done.returncode}\n{done.stderr}")


def by_kind(found: Sequence[Found]) -> dict[str, str]:
    """Return for each stage whether all of `found` hold the same: `same`, or what is the first to differ."""
    kinds = dict.fromkeys((name.split("/")[0] for one in found for name in one), "same")
    for other in found[1:]:
        for name in apart(found[0], other):
            kind = name.split("/")[0]
            if kinds[kind] == "same":
                kinds[kind] = name.partition(": ")[2] or "another fingerprint"
    return kinds


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("config")
    asked.add_argument("--times", type=int, default=2)
    asked.add_argument("--ranks", default="1")
    asked.add_argument("--threads", default="1")
    asked.add_argument("--until", default="evaluate")
    asked.add_argument("--set", action="append", default=[], dest="sets")
    asked.add_argument("--out", type=Path, default=ROOT / "runs" / "same.json")
    args = asked.parse_args()
    firsts: dict[str, tuple[Found, dict[str, float]]] = {}
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="same-") as folder:
        for ranks in map(int, args.ranks.split(",")):
            for threads in map(int, args.threads.split(",")):
                name, found, told = f"{ranks} x {threads}", [], {}
                for attempt in range(args.times):
                    store = Path(folder) / f"{ranks}-{threads}-{attempt}"
                    run(args.config, store, ranks=ranks, threads=threads, until=args.until, sets=args.sets)
                    found.append(contents(store))
                    told = told or metrics(store)
                kinds = by_kind(found)
                firsts[name] = found[0], told
                first, base = next(iter(firsts.values()))
                across = by_kind([first, found[0]])
                gaps = {key: abs(told[key] - value) for key, value in base.items() if key in told}
                worst = max(gaps, key=lambda key: gaps[key], default="")
                rows[name] = {"again": kinds, "to the first row": across, "metrics": told, "gaps": gaps}
                odd = [f"{kind} ({what})" for kind, what in kinds.items() if what != "same"]
                other = [kind for kind, what in across.items() if what != "same"]
                print(
                    f"| {name} | {args.times} | {', '.join(odd) or 'all the same'} | {', '.join(other) or 'none'} | "
                    f"{f'{gaps[worst]:.4f} ({worst})' if worst else '-'} |",
                    flush=True,
                )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"config": args.config, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
