"""How cost grows: training against interactions, lists against users and items. A line is as it should be.

    python benchmarks/growth.py [--rows 1,10,100] [--out runs/growth.json]

Every point is a process of its own on one thread. Interactions are read from a file that is mapped, as a run maps them;
memory is what the process allocates itself, pages of files apart, beside what it had before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

DIM, BATCH, STEPS, WARM = 64, 8192, 40, 8
PER_USER, PER_ITEM = 50, 500  # interactions
QUERIES, K = 2048, 100


def log_of(rows: int, folder: Path) -> None:
    """Write a log of `rows` interactions, as many of each user, items by a power law, to `folder`."""
    users, items = rows // PER_USER, rows // PER_ITEM
    np.save(folder / "indptr.npy", np.arange(users + 1, dtype=np.int64) * PER_USER)
    out = np.lib.format.open_memmap(folder / "items.npy", mode="w+", dtype=np.int64, shape=(rows,))
    draw = np.random.default_rng(0)
    for start in range(0, rows, 10_000_000):
        stop = min(start + 10_000_000, rows)
        out[start:stop] = (draw.random(stop - start) ** 3 * items).astype(np.int64)
    out.flush()


def anonymous() -> int:
    """Return the bytes this process has allocated, pages of files apart."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def training(rows: int, loss: str) -> dict[str, Any]:
    """Return CPU seconds a million samples, and bytes, of training a factorisation on `rows` interactions."""
    from benchmarks.step import step_of
    from recdistill.types import Interactions
    from recdistill.world import world

    with tempfile.TemporaryDirectory() as name, world(threads=1) as alone:
        folder = Path(name)
        log_of(rows, folder)
        train = Interactions(
            indptr=np.load(folder / "indptr.npy"), items=np.load(folder / "items.npy", mmap_mode="r").view(np.ndarray)
        )
        # The tables, and the sum that Adagrad has of each row, are what is given.
        given = anonymous() + (rows // PER_USER + rows // PER_ITEM) * (DIM + 1) * 4
        batch, learn = step_of(train, alone, loss=loss, dim=DIM, batch=BATCH)
        spent = 0.0
        for step in range(WARM + STEPS):
            start = time.process_time()
            learn(batch(step))
            spent += time.process_time() - start if step >= WARM else 0.0
        return {"cpu_s_per_million": spent / (STEPS * BATCH) * 1e6, "bytes": anonymous() - given}


def lists(users: int, items: int) -> dict[str, Any]:
    """Return CPU seconds a million pairs of exact lists of the best of `items` for `users`."""
    import torch

    from recdistill.topk import exact_topk

    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    left, right = (draw.standard_normal((n, 64), dtype=np.float32) for n in (users, items))
    exact_topk(left[:64], right[:8192], K)  # compiles
    before, start = anonymous(), time.process_time()
    exact_topk(left, right, K)
    return {"cpu_s_per_million": (time.process_time() - start) / (users * items) * 1e6, "bytes": anonymous() - before}


def points(rows: list[int]) -> list[dict[str, Any]]:
    """Return what to measure: its name, its size, and the arguments of its process."""
    found = [
        {"what": f"training, {loss}", "size": n, "call": ["training", n, loss]}
        for loss in ("bpr", "softmax")
        for n in rows
    ]
    found += [
        {"what": "lists against items", "size": n, "call": ["lists", QUERIES, n]} for n in (10_000, 100_000, 1_000_000)
    ]
    return found + [
        {"what": "lists against users", "size": n, "call": ["lists", n, 20_000]} for n in (1_000, 10_000, 100_000)
    ]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rows", default="1,10,100", help="millions of interactions")
    asked.add_argument("--out", type=Path, default=Path("runs/growth.json"))
    asked.add_argument("--one", help=argparse.SUPPRESS)
    args = asked.parse_args()
    if args.one:
        name, *values = json.loads(args.one)
        print(json.dumps({"training": training, "lists": lists}[name](*values)))
        return
    from benchmarks.timing import machine, write

    found = []
    for point in points([int(float(n) * 1e6) for n in args.rows.split(",")]):
        command = [sys.executable, __file__, "--one", json.dumps(point["call"])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{point['what']}, {point['size']:,}: {done.stderr.strip().splitlines()[-1]}")
            continue
        found.append({"what": point["what"], "size": point["size"], **json.loads(done.stdout.splitlines()[-1])})
        row = found[-1]
        cost, memory = row["cpu_s_per_million"] * 1e3, row["bytes"] / 2**20
        print(f"{row['what']:22} {row['size']:>12,}  {cost:10.4f} CPU-ms per million  {memory:8.0f} MiB", flush=True)
    write(args.out, {"machine": machine(1), "points": found})


if __name__ == "__main__":
    main()
