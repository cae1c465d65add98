"""Many at once: two runs in one store, ten readers beside a writer, eight promoters of one model.

    python benchmarks/crowd.py --seconds 60 --rounds 5 --seed 0

Everybody is a process of its own. It ends with exit code 1 if one of them was told anything but the truth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Queue
from typing import Any

import yaml

from pipelines.models import prepare_mlflow

ROOT = Path(__file__).parent.parent
READERS, PROMOTERS, ENTRIES, SIZE = 10, 8, 24, 1 << 18
TIMED = ("latency", "surface")  # stages whose files are times
TRAIN = {"epochs": 3, "batch": 256, "negatives": 64}
CONFIG: dict[str, Any] = {
    "name": "crowd",
    "log": {"path": "d/interactions.parquet", "user": "user_id", "item": "item_id", "time": "timestamp"},
    "teacher": {"model": {"kind": "mf", "dim": 16}, "train": TRAIN},
    "labels": {"depth": 30},
    "student": {"model": {"kind": "mf", "dim": 8}, "train": TRAIN},
    "distill": [{"kind": "list", "weight": 1.0, "draw": [{"kind": "top", "k": 10}], "loss": {"kind": "softmax_kl"}}],
    "index": {"factory": "Flat", "k": [10]},
    "report": {"k": [10], "metrics": ["ndcg"], "bootstrap": 50},
    "latency": {"queries": 100, "repeats": 3},
    "registry": {"model": "crowd", "gates": {"ndcg_at_10": {"min": 0.0}}},
}


def runs(home: Path, rounds: int) -> Counter[str]:
    """Start the same run twice at once, and a third that shares its stages, and compare with one that was alone."""
    words = [sys.executable, "-m", "pipelines"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    told = Counter[str]()
    subprocess.run([*words, "synth", "d", "--users", "200", "--items", "160"], cwd=home, env=env, check=True)
    other = {**CONFIG, "student": {**CONFIG["student"], "train": {**TRAIN, "seed": 5}}}
    for name, config in (("one", CONFIG), ("other", other)):
        (home / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def start(name: str, store: str) -> subprocess.Popen[bytes]:
        command = [*words, "run", f"{name}.yaml", "--set", f"exec.store={store}/store"]
        return subprocess.Popen(command, cwd=home, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    for name in ("one", "other"):
        assert start(name, "alone").wait() in (0, 4)
    wanted = digests(home / "alone" / "store")
    for n in range(rounds):
        crowd = [start(name, f"crowd{n}") for name in ("one", "one", "other")]
        said = [process.communicate()[1].decode() for process in crowd]
        told.update(f"runs: ended with exit code {process.returncode}" for process in crowd)
        told["WRONG: a run that refused without a reason"] += sum(
            process.returncode not in (0, 4) and "fix:" not in text for process, text in zip(crowd, said, strict=True)
        )
        for name in ("one", "other"):  # who was refused is told to run the same command again
            told["WRONG: the same command again did not end"] += start(name, f"crowd{n}").wait() not in (0, 4)
        found = digests(home / f"crowd{n}" / "store")
        told["runs: artifacts equal to those of one alone"] += sum(found.get(k) == v for k, v in wanted.items())
        told["WRONG: artifacts that differ, or are missing"] += sum(found.get(k) != v for k, v in wanted.items())
    return told


def digests(store: Path) -> dict[str, str]:
    """Return of every artifact the hash of its files' hashes."""
    found = dict[str, str]()
    for file in store.glob("*/*/manifest.json"):
        if file.parts[-3] not in TIMED:
            listed = json.loads(file.read_text())["files"]
            found["/".join(file.parts[-3:-1])] = json.dumps({name: e["sha256"] for name, e in listed.items()})
    return found


def entry(n: int, seed: int) -> bytes:
    """Return the bytes of the n-th artifact."""
    return random.Random(f"{seed} {n}").randbytes(SIZE)


def write(root: Path, seed: int, until: float) -> None:
    """Build artifacts one after the other, take one away now and then, and build it again."""
    from recdistill.store import build
    from recdistill.world import World

    draw = random.Random(seed)
    while time.monotonic() < until:
        n = draw.randrange(ENTRIES)
        step = _step(n)
        path = root / step.stage / step.fingerprint
        if path.exists() and draw.random() < 0.5:
            shutil.rmtree(path.rename(path.with_name(f"{path.name}.gone")))

        def work(out: Path, n: int = n) -> None:
            for part in range(3):
                (out / f"{part}.bin").write_bytes(entry(3 * n + part, seed))

        build(root, World(), step, work)


def _step(n: int) -> Any:
    from recdistill.store import Step

    return Step(stage="crowd", version=1, config={"n": n}, inputs={})


def read(root: Path, seed: int, who: int, until: float, out: Queue[Counter[str]]) -> None:
    """Open artifacts at random, and compare each file that is said to be whole with what was written."""
    from recdistill.errors import ArtifactError
    from recdistill.store import open_checked

    draw, told = random.Random(f"{seed} reader {who}"), Counter[str]()
    while time.monotonic() < until:
        n = draw.randrange(ENTRIES)
        step = _step(n)
        path = root / step.stage / step.fingerprint
        try:
            open_checked(path)
            held = [hashlib.sha256((path / f"{part}.bin").read_bytes()).digest() for part in range(3)]
        except (ArtifactError, FileNotFoundError):
            told["readers: not there, or just taken away"] += 1
            continue
        right = held == [hashlib.sha256(entry(3 * n + part, seed)).digest() for part in range(3)]
        told["readers: whole and right" if right else "WRONG: torn reads"] += 1
    out.put(told)


def readers(home: Path, seconds: float, seed: int) -> Counter[str]:
    """Let ten readers look at what one writer builds."""
    context, until = multiprocessing.get_context("spawn"), time.monotonic() + seconds
    out = context.Queue()
    crowd = [context.Process(target=write, args=(home / "store", seed, until))]
    crowd += [context.Process(target=read, args=(home / "store", seed, n, until, out)) for n in range(READERS)]
    for process in crowd:
        process.start()
    told = sum((out.get() for _ in range(READERS)), Counter[str]())
    for process in crowd:
        process.join()
    told["WRONG: writers or readers that died"] += sum(process.exitcode != 0 for process in crowd)
    return told


def promote(uri: str, who: int, rounds: int, gate: Barrier, out: Queue[Counter[str]]) -> None:
    """Promote one's own version of each round's model the moment that all do."""
    from recdistill import registry
    from recdistill.errors import GateRejected

    told = Counter[str]()
    for n in range(rounds):
        gate.wait()
        try:
            registry.promote(uri, f"crowd{n}", who + 1, gates=[])
            told["promoters: their version served"] += 1
        except GateRejected:
            told["promoters: refused, newer data serves"] += 1
    out.put(told)


def promoters(home: Path, rounds: int, seed: int) -> Counter[str]:
    """Let eight promote versions of one model at once; the one with the newest data has to serve at the end."""
    from recdistill import registry

    uri = f"sqlite:///{home / 'alone' / 'mlflow.db'}"
    version = registry.history(uri, "crowd")[0]
    source = registry.fetch(uri, "crowd", version["version"])
    newest, draw = dict[int, int](), random.Random(seed)
    for n in range(rounds):
        days = draw.sample(range(1, 29), PROMOTERS)
        for who, day in enumerate(days):
            bundle = home / f"bundle-{n}-{who}"
            shutil.copytree(source, bundle)
            facts = json.loads((bundle / "manifest.json").read_text()) | {"data_end": f"2026-11-{day:02d}"}
            (bundle / "manifest.json").write_text(json.dumps(facts))
            assert registry.register(uri, f"crowd{n}", bundle, version["run_id"], {}) == who + 1
        newest[n] = days.index(max(days)) + 1
    context = multiprocessing.get_context("spawn")
    gate, out = context.Barrier(PROMOTERS), context.Queue()
    crowd = [context.Process(target=promote, args=(uri, who, rounds, gate, out)) for who in range(PROMOTERS)]
    for process in crowd:
        process.start()
    told = sum((out.get() for _ in range(PROMOTERS)), Counter[str]())
    for process in crowd:
        process.join()
    told["WRONG: promoters that died"] += sum(process.exitcode != 0 for process in crowd)
    for n, wanted in newest.items():
        serving = {v["version"] for v in registry.history(uri, f"crowd{n}") if "champion" in v["aliases"]}
        told["promoters: rounds that ended on the newest data" if serving == {wanted} else "WRONG: rounds"] += 1
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of the readers")
    parser.add_argument("--rounds", type=int, default=5, help="of runs and of promoters")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    prepare_mlflow()
    with tempfile.TemporaryDirectory(prefix="crowd-") as folder:
        home = Path(folder)
        told = runs(home, args.rounds) + readers(home, args.seconds, args.seed)
        told += promoters(home, args.rounds, args.seed)
    for name, count in sorted(told.items()):
        print(f"{count:9,}  {name}")
    return int(any(name.startswith("WRONG") for name in told))


if __name__ == "__main__":
    sys.exit(main())
