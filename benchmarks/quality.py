"""G0: CPU seconds of training until a given NDCG@20, d=64, full ranking of the test part, train items masked.

Everyone trains a part at a time, in turns, and is measured by one evaluator, whose time is nobody's; until its quality
rises no more, or its time is up. A peer's level is 99 % of its own best; ours is asked when it was there.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.goals import Row, judged, missing
from benchmarks.setting import OURS, Setting
from benchmarks.workers import Crew, Worker

DIM = 64
LEVEL = 0.99
PATIENCE = 3  # measurements without a gain
LIMIT = 900.0  # CPU seconds of each
LEVELS = (0.10, 0.11, 0.12, 0.13, 0.14)  # of the table of times
STUDENT: dict[str, Any] = {
    "model": {"space": "cosine", "temperature": 0.1},
    "train": {"batch": 8192, "negatives": 1024, "lr": 0.4, "decay": "cosine", "epochs": 10},
}
PEERS: dict[str, tuple[str, str, str | None, dict[str, Any]]] = {  # script, task, environment, what is asked
    "ours": (OURS, "train", None, {"steps": None, **STUDENT}),
    "RecBole BPR": ("with_recbole.py", "train", "recbole", {"steps": None, "batch": 2048, "lr": 2e-3}),
    "implicit BPR": ("with_implicit.py", "bpr", "implicit", {"epochs": 10, "lr": 0.05, "regularization": 0.01}),
    "implicit ALS": ("with_implicit.py", "als", "implicit", {"epochs": 2, "alpha": 10.0, "regularization": 1.0}),
}
Curve = list[tuple[float, float, float]]  # CPU seconds, wall seconds, NDCG@20


def rows(setting: Setting) -> list[Row]:
    with setting.crew("quality") as crew:
        for name, (script, task, home, asked) in PEERS.items():
            python = None if home is None else setting.python(home)
            crew.add(name, script, task, python=python, data=setting.log, dim=DIM, **asked)
        crew.need("ours")
        curves = trained(crew, setting)
    found = [_against(curves, peer) for peer in PEERS if peer in curves and peer != "ours"]
    why = "nothing of that name is in a package registry"
    lacking = {**crew.failed, "LightGCN-PyTorch mf": why}
    return found + [missing("G0", "time to NDCG@20", peer, said) for peer, said in lacking.items()]


def trained(crew: Crew, setting: Setting) -> dict[str, Curve]:
    """Return the curve of each that could start."""
    curves: dict[str, Curve] = {name: [] for name in crew.workers}
    going = dict(crew.workers)
    while going:
        for name, worker in list(going.items()):
            curve = curves[name]
            curve.append(_next(curve, worker, setting))
            cpu, _, ndcg = curve[-1]
            print(f"{name}: {cpu:.1f} CPU-s, NDCG@20 {ndcg:.4f}", file=sys.stderr, flush=True)
            epochs = STUDENT["train"]["epochs"] if name == "ours" else None
            if cpu > LIMIT or len(curve) == epochs or (epochs is None and _stands(curve)):
                del going[name]
    return curves


def _next(curve: Curve, worker: Worker, setting: Setting) -> tuple[float, float, float]:
    told = worker.ask(do="round")
    out = str(setting.folder / "now.npz")
    worker.ask(do="save", path=out)
    cpu, wall, _ = curve[-1] if curve else (0.0, 0.0, 0.0)
    return cpu + told["cpu"], wall + told["wall"], judge(out, setting.log)


def judge(vectors: str, log: str) -> float:
    """Return NDCG@20 of the vectors, as evaluation of a run has it."""
    import numpy as np

    from benchmarks.handover import interactions
    from recdistill.metrics import hits, ndcg, relevant
    from recdistill.topk import exact_topk

    given, data = np.load(vectors), np.load(log)
    users, items = (np.zeros((int(data[side]), given[side].shape[1]), np.float32) for side in ("users", "items"))
    users[: len(given["users"])], items[: len(given["items"])] = given["users"], given["items"]
    seen, truth = (interactions(data[part], len(users)) for part in ("train", "test"))
    rows = np.flatnonzero(np.diff(truth.indptr))
    lists = exact_topk(users, items, 20, seen=seen, rows=rows).items.numpy()
    return float(ndcg(hits(lists, truth, rows), relevant(truth, rows), 20).mean())


def _stands(curve: Curve) -> bool:
    best = max(range(len(curve)), key=lambda at: curve[at][2])
    return len(curve) - 1 - best >= PATIENCE


def reached(curve: Curve, level: float) -> float | None:
    """Return the CPU seconds after which the quality was there for the first time; None if never."""
    return next((cpu for cpu, _, ndcg in curve if ndcg >= level), None)


def _against(curves: dict[str, Curve], peer: str) -> Row:
    theirs, ours = curves[peer], curves["ours"]
    best = {name: max(ndcg for _, _, ndcg in curve) for name, curve in curves.items()}
    level = LEVEL * best[peer]
    mine, its = reached(ours, level), reached(theirs, level)
    times = {name: {str(at): reached(curve, at) for at in LEVELS} for name, curve in curves.items()}
    what = f"time to NDCG@20 of {level:.4f}"
    about = {"curve": theirs, "ours": ours, "times": times, "best": best}
    names: Row = {
        "goal": "G0",
        "what": what,
        "ours": f"ours, best {best['ours']:.4f}",
        "peer": f"{peer}, best {best[peer]:.4f}",
    }
    if mine is None or its is None:
        return missing("G0", what, names["peer"], f"ours, best {best['ours']:.4f}, never reached it") | {"about": about}
    row = names | {
        "ours_per_cpu_s": 1 / mine,
        "peer_per_cpu_s": 1 / its,
        "ratio": its / mine,
        "unit": "",
        "about": about,
    }
    return judged(row, None if "ALS" in peer else 1.0, 1.0)
