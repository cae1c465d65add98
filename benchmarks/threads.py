"""G12: the same work with one thread and with two, by the clock on the wall: training, evaluation, labels."""

from __future__ import annotations

import os

import numpy as np

from benchmarks.goals import Row, compare, missing
from benchmarks.setting import OURS, Setting
from benchmarks.timing import interleaved
from benchmarks.training import DIM, MODEL, POSITIVES, settings

MUST, AIM = 1.5, 1.8
BATCH, WIDE = 8192, 256
SOFTMAX = {"batch": BATCH, "negatives": 512, "lr": 0.2}
FREE = 0.9  # CPU seconds of one thread in a second on the wall: with less, others have the machine, and we no verdict


def rows(setting: Setting) -> list[Row]:
    if (os.cpu_count() or 1) < 2:
        return [missing("G12", "1 -> 2 threads", "one thread", "this machine has one core")]
    log = setting.log
    steps = setting.share(POSITIVES) // BATCH
    works = {
        "training, BPR": ("train", {"data": log, "dim": DIM, "steps": steps, "model": MODEL, "train": settings(BATCH)}),
        "training, softmax": ("train", {"data": log, "dim": DIM, "steps": max(1, steps // 4), "train": SOFTMAX}),
        "evaluation": ("evaluate", {"data": log, "vectors": setting.vectors}),
        "labels, 256-d, bf16": ("label", {"data": log, "vectors": _wide(setting), "users": setting.share(8192)}),
    }
    if setting.quick:
        del works["training, softmax"]
    found = []
    for what, (task, asked) in works.items():
        with setting.crew(f"threads {what}") as crew:
            for name, threads in (("one thread", 1), ("two threads", 2)):
                crew.add(name, OURS, task, threads=threads, **asked)
                crew.need(name)
            timed = interleaved(crew.workers, setting.rounds)
            row = compare(timed, "G12", what, "two threads", "one thread", must=MUST, aim=AIM, by="wall")
            got = min(r.cpu / r.wall for r in timed["one thread"])
            found.append(row if got >= FREE else row | {"met": f"machine busy: {got:.0%} of a core"})
    return found


def _wide(setting: Setting) -> str:
    """Return the file of 256-d vectors, in clusters as those of a teacher are."""
    from benchmarks.labels import CLUSTERS, TEMPERATURE, clustered

    rng, out = np.random.default_rng(0), setting.folder / "wide.npz"
    centres = rng.standard_normal((CLUSTERS, WIDE), np.float32)
    log = np.load(setting.log)
    users = clustered(rng, int(log["users"]), centres, 1 / TEMPERATURE)
    np.savez(out, users=users, items=clustered(rng, int(log["items"]), centres, 1.0))
    return str(out)
