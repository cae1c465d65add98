"""Strike a small pipeline at random, seeded, and hold what the same command then ends in against an undisturbed run.

    python tests/faults/soak.py --seed 1 --minutes 30        or: make soak SEED=1 MINUTES=30

Each fault is one line on stdout as it happens; the table at the end is also written to --out. Exit code 1 if anything
was lost: an artifact that differs, a command that never ends again, an end without a reason.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[2]
DATA = ("polars", "pyarrow.parquet", "pipelines.distill", "pipelines.__main__", "recdistill.data.ingest")
LOADED = (
    *("numba", "faiss", "torch.distributed.checkpoint"),
    *("torchrec.distributed.model_parallel", "recdistill.stages", "recdistill.fit", "recdistill.labelling"),
    *("recdistill.measure", "recdistill.export"),
    *("pandas", "scipy.linalg", "torch.distributed.optim", "numba.np.arraymath"),  # which others import when they run
)
LOADED += ("mlflow", "mlflow.pyfunc", "sqlalchemy", "matplotlib.pyplot", "recdistill.report")
SLOW = {"latency": 0.05, "promote": 0.15}  # how much less often stages are struck that take many times as long
CAME = ("survived", "refused", "lost")


def main() -> int:
    """Strike until the time or the count is over; returns the exit code."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--minutes", type=float, default=30.0)
    asked.add_argument("--count", type=int, default=None, help="end after so many faults")
    asked.add_argument("--short", action="store_true", help="the stages without torch: seconds, not minutes")
    asked.add_argument("--only", default=None, help="kinds of faults, separated by commas")
    asked.add_argument("--out", type=Path, default=Path("runs/faults"))
    given = asked.parse_args()
    _load(short=given.short)
    with _disk() as (folder, mounted):
        chosen = plan(folder, Random(given.seed), short=given.short, mounted=mounted, only=given.only)
        tried = strike(chosen, given)
    text = table(tried)
    print(text)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"seed-{given.seed}.md").write_text(text + "\n")
    (given.out / f"seed-{given.seed}.json").write_text(json.dumps(tried, indent=1))
    return int(any(one["came"] == "lost" for one in tried))


def _load(*, short: bool) -> None:
    """Import what every command needs, once, with one thread for each library."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    sys.path[:0] = [str(ROOT)]
    from recdistill.tracking_store import MLFLOW_ENV

    os.environ |= {**MLFLOW_ENV, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    warnings.simplefilter("ignore")
    for name in (*DATA, *(() if short else LOADED)):
        importlib.import_module(name)
    if not short:
        importlib.import_module("numba").njit(lambda number: number + 1)(
            1
        )  # the first compilation takes what no other does


@contextmanager
def _disk() -> Iterator[tuple[Path, bool]]:
    """Yield a folder, and whether it is a file system of its own, which can be filled and made read-only."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    words = ["mount", "-t", "tmpfs", "-o", "size=4g", "faults", str(folder)]
    may = os.geteuid() == 0 and shutil.which("mount") is not None
    mounted = may and subprocess.run(words, capture_output=True, check=False).returncode == 0
    try:
        yield folder, mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


Strike = Callable[[], Any]


def plan(
    folder: Path, random: Random, *, short: bool, mounted: bool, only: str | None
) -> Callable[[], tuple[str, str, Strike]]:
    """Run what is not disturbed, and return what draws the next fault: its kind, stage, and what does it."""
    import calm
    import damage
    import kinds
    import served
    from scene import STAGES

    weights: dict[str, float] = {"kill": 6, "sealed": 3, "limited": 2}
    if not short:
        weights = {"kill": 40, "ranks": 10, "night": 2, "sealed": 16, "begun": 10, "limited": 6, "stop": 3}
        weights |= {"beside": 3, "locked": 0.5, "base": 1, "server": 0.5}
        weights |= {"full": 8, "readonly": 5} if mounted else {}
    names = only.split(",") if only else list(weights)
    database = None if short else calm.empty_registry(folder)
    scenes = {"one": calm.undisturbed(folder / "one", STAGES[:2] if short else STAGES, database=database)}
    if {"ranks", "stop"} & {*names}:
        scenes["two"] = calm.undisturbed(folder / "two", STAGES[:6], ranks=2)
    if {"night", "base"} & {*names} and database is not None:
        scenes["nights"] = calm.nights(folder / "nights", database)
    doing = {
        "kill": kinds.killed, "ranks": kinds.killed, "night": kinds.killed, "sealed": damage.sealed,
        "begun": damage.begun, "limited": kinds.limited, "stop": kinds.stopped, "beside": damage.beside,
        "locked": damage.locked, "base": damage.base, "full": kinds.full, "readonly": kinds.read_only,
        "server": served.killed_server,
    }  # fmt: skip

    def draw() -> tuple[str, str, Strike]:
        (name,) = random.choices(names, [weights[each] for each in names])
        where = {"ranks": "two", "stop": "two", "night": "nights", "base": "nights"}.get(name, "one")
        if name in ("sealed", "beside", "limited", "full", "readonly", "begun") and random.random() < 0.15:
            other = "two" if name == "begun" else "nights"
            where = other if other in scenes else where
        scene = scenes[where]
        stages = damage.stages_with_work(scene.stages) if name == "begun" else scene.stages
        if where == "two":
            stages = [stage for stage in stages if stage not in ("ingest", "split")]
        (stage,) = random.choices(stages, [SLOW.get(each, 1.0) for each in stages])
        seed = random.getrandbits(32)
        return name, f"{stage} ({where})", lambda: doing[name](scene, stage, Random(seed))

    return draw


def strike(draw: Callable[[], tuple[str, str, Strike]], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Strike again and again; one line for each fault."""
    tried: list[dict[str, Any]] = []
    end = time.monotonic() + 60 * given.minutes
    while time.monotonic() < end and (given.count is None or len(tried) < given.count):
        name, where, fault = draw()
        began = time.monotonic()
        try:
            found = asdict(fault())
        except KeyboardInterrupt:  # enough: the table tells of what was tried
            break
        except Exception as odd:  # what the harness did not foresee is not to be counted as survived
            found = {"kind": name, "stage": where, "what": "", "came": "lost", "why": f"the harness failed: {odd!r}"}
        found |= {"number": len(tried), "where": where}
        tried.append(found)
        took = time.monotonic() - began
        print(f"{len(tried):5d} {found['came']:8s} {took:5.1f} s  {found['kind']}, {where}: {found['what']}", end="")
        print(f"\n      {found['why']}" if found["why"] else "", flush=True)
    return tried


def table(tried: Sequence[dict[str, Any]]) -> str:
    """Return how many faults of each kind and stage came to what, in Markdown."""
    lines = ["| fault | stage | tried | survived | refused, then the same | lost |", "|---|---|--:|--:|--:|--:|"]
    for kind, stage in sorted({(one["kind"], one["stage"]) for one in tried}):
        mine = [one["came"] for one in tried if (one["kind"], one["stage"]) == (kind, stage)]
        counts = " | ".join(str(mine.count(came)) for came in CAME)
        lines.append(f"| {kind} | {stage} | {len(mine)} | {counts} |")
    every = " | ".join(str(sum(one["came"] == came for one in tried)) for came in CAME)
    return "\n".join([*lines, f"| **all** | | {len(tried)} | {every} |"])


if __name__ == "__main__":
    sys.exit(main())
