"""G0: CPU seconds of training until a given NDCG@20, d=64, full ranking of the test part, train items masked.

Everyone trains a part at a time, in turns, and is measured by one evaluator, whose time is nobody's; until its quality
rises no more, or its time is up. A peer's level is 99 % of its own best; ours is asked when it was there. Ours are two:
a student, and LightGCN, which serves by vectors as long but is trained as a teacher here.
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
LIMIT, QUICK = 900.0, 45.0  # CPU seconds of each
LEVELS = (0.10, 0.11, 0.12, 0.13, 0.14)  # of the table of times
Asked = tuple[str, str, str | None, dict[str, Any]]  # script, task, environment, what is asked
STUDENT: dict[str, Any] = {
    "model": {"kind": "two_tower", "history": 20, "id_dropout": 0.0, "temperature": 0.1},
    "train": {"batch": 8192, "negatives": 512, "lr": 0.4, "decay": "cosine", "epochs": 12},
}
GRAPH: dict[str, Any] = {
    "model": {"kind": "lightgcn", "layers": 2, "temperature": 0.09, "popularity": 0.7},
    "train": {"batch": 8192, "negatives": 512, "lr": 0.1, "epochs": 8},
}
OWN: dict[str, Asked] = {
    "ours, two-tower": (OURS, "train", None, {"steps": None, **STUDENT}),
    "ours, LightGCN": (OURS, "train", None, {"steps": None, **GRAPH}),
}
PEERS: dict[str, Asked] = {
    "RecBole BPR": ("with_recbole.py", "train", "recbole", {"steps": None, "batch": 2048, "lr": 1e-3}),
    "implicit BPR": ("with_implicit.py", "bpr", "implicit", {"epochs": 10, "lr": 0.02, "regularization": 0.002}),
    "implicit ALS": ("with_implicit.py", "als", "implicit", {"epochs": 2, "alpha": 40.0, "regularization": 10.0}),
}
LIMITS = {"RecBole BPR": (1.0, 1.0), "implicit BPR": (1.0, 1.0), "implicit ALS": (None, 1.0)}  # must, aim
Curve = list[tuple[float, float, float]]  # CPU seconds, wall seconds, NDCG@20


def rows(setting: Setting) -> list[Row]:
    with setting.crew("quality") as crew:
        for name, (script, task, home, asked) in (OWN | PEERS).items():
            python = None if home is None else setting.python(home)
            crew.add(name, script, task, python=python, data=setting.log, dim=DIM, **asked)
        for name in OWN:
            crew.need(name)
        curves = trained(crew, setting)
    found = [_against(curves, ours, peer) for ours in OWN for peer in PEERS if peer in curves]
    why = "could not be installed: it is not published as a package"
    lacking = {**crew.failed, "LightGCN-PyTorch mf": why}
    return found + [missing("G0", "time to NDCG@20", peer, said) for peer, said in lacking.items()]


def trained(crew: Crew, setting: Setting) -> dict[str, Curve]:
    """Return the curve of each that could start."""
    curves: dict[str, Curve] = {name: [] for name in crew.workers}
    going, limit = dict(crew.workers), QUICK if setting.quick else LIMIT
    while going:
        for name, worker in list(going.items()):
            curve = curves[name]
            curve.append(_next(curve, worker, setting))
            cpu, _, ndcg = curve[-1]
            print(f"{name}: {cpu:.1f} CPU-s, NDCG@20 {ndcg:.4f}", file=sys.stderr, flush=True)
            epochs = OWN[name][3]["train"]["epochs"] if name in OWN else None
            if cpu > limit or len(curve) == epochs or (epochs is None and _stands(curve)):
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


def _against(curves: dict[str, Curve], ours: str, peer: str) -> Row:
    best = {name: max(ndcg for _, _, ndcg in curve) for name, curve in curves.items()}
    level = LEVEL * best[peer]
    mine, its = reached(curves[ours], level), reached(curves[peer], level)
    times = {name: {str(at): reached(curve, at) for at in LEVELS} for name, curve in curves.items()}
    about = {"curves": {name: curves[name] for name in (ours, peer)}, "times": times, "best": best}
    row: Row = {
        "goal": "G0",
        "what": f"CPU-s to NDCG@20 of {level:.4f}",
        "ours": f"{ours}, best {best[ours]:.4f}",
        "peer": f"{peer}, best {best[peer]:.4f}",
        "unit": "",
        "about": about,
    }
    if mine is None or its is None:
        return row | {"note": f"not reached in {curves[ours][-1][0]:.0f} CPU-s", "met": "no"}
    rates = {"ours_per_cpu_s": 1 / mine, "peer_per_cpu_s": 1 / its}
    return judged(row | rates | {"ratio": its / mine}, *LIMITS.get(peer, (None, None)))
