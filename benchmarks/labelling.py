"""G5, G6: labels of an encoder and of a ranker, by labels.py and ranker.py, each a run of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.goals import Row, judged
from benchmarks.setting import Setting
from benchmarks.workers import PeerError, pinned

HERE = Path(__file__).resolve().parent
RANKER = ("--dim", "64", "--hidden", "512", "256", "--items", "4096")
PAIRS = (  # goal, script, ours, peer, must, aim
    ("G5", "labels", "exact_topk bf16", "fp32 mm + topk", 2.0, None),
    ("G5", "labels", "exact_topk bf16", "bf16 mm", None, 0.5),
    ("G5", "labels", "exact_topk fp32", "fp32 mm + topk", None, None),
    ("G6", "ranker", "PairScorer bf16", "every pair a row, fp32", 4.0, 13.0),
    ("G6", "ranker", "PairScorer fp32", "every pair a row, fp32", None, None),
)
WHAT = {"labels": "top 100 of the catalogue, 256-d", "ranker": "pairs of an MLP ranker, 64-d, 512-256"}


def rows(setting: Setting) -> list[Row]:
    rounds = ("--rounds", str(setting.rounds))
    log = () if setting.data is None else ("--data", str(setting.data.absolute()))
    told = {
        "labels": run(setting, "labels.py", *log, *rounds, "--users", str(setting.share(4096))),
        "ranker": run(setting, "ranker.py", *RANKER, *rounds),
    }
    found = []
    for goal, script, ours, peer, must, aim in PAIRS:
        by = {row["name"]: row for row in told[script]["rows"]}
        mine, theirs = by[ours], by[peer]
        row: Row = {"goal": goal, "what": WHAT[script], "ours": ours, "peer": peer, "unit": "pairs", "by": "cpu"}
        for side, one in (("ours", mine), ("peer", theirs)):
            row |= {f"{side}_per_cpu_s": one["per_cpu_s"], f"{side}_per_s": one["per_s"]}
        row |= {"ratio": mine[f"x {peer}"], "spread": mine[f"x {peer} spread"], "rounds": setting.rounds}
        found.append(judged(row, must, aim))
    return found


def run(setting: Setting, script: str, *arguments: str) -> dict[str, Any]:
    """Return what a benchmark of this folder writes; raises PeerError with its last line if it fails."""
    print(f"{script} ...", file=sys.stderr, flush=True)
    out = (setting.folder / script).with_suffix(".json")
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(HERE / script), *arguments, "--out", str(out)]
    done = subprocess.run(command, cwd=HERE.parent, env=pinned(1), capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError(f"{script}: {(done.stderr.strip().splitlines() or ['no word of why'])[-1]}")
    return json.loads(out.read_text(encoding="utf-8"))
