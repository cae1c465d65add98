"""G0: CPU seconds of training until a given NDCG@20, d=64, full ranking of the test part, train items masked.

All settings are chosen by quality_search.py, on a part of train, among as many tries. Then everyone trains a part
at a time, in turns, and is measured by one evaluator, whose time is nobody's; until its quality rises no more, or its
time is up. A peer's level is 99 % of its own best; ours is asked when it was there. Ours are two: a student, and
LightGCN, which serves by vectors as long but is trained as a teacher here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from benchmarks.goals import Row, judged, missing
from benchmarks.quality_search import DIM, OWN, PEERS, Asked, chosen
from benchmarks.setting import Setting
from benchmarks.workers import Crew, Worker

LEVEL = 0.99
PATIENCE = 3  # measurements without a gain
LIMIT, TRY, QUICK = 250.0, 100.0, 45.0  # CPU seconds of each, of a try, and of both where it must be quick
LEVELS = (0.10, 0.11, 0.12, 0.13, 0.14)  # of the table of times
LIMITS = {"RecBole BPR": (1.0, 1.0), "implicit BPR": (1.0, 1.0), "implicit ALS": (None, 1.0)}  # must, aim
Curve = list[tuple[float, float, float]]  # CPU seconds, wall seconds, NDCG@20


def rows(setting: Setting) -> list[Row]:
    limit = QUICK if setting.quick else LIMIT
    short = min(TRY, limit)
    best = chosen(setting, lambda name, asked, log: max(n for *_, n in _alone(name, asked, setting, log, short)))
    with setting.crew("quality") as crew:
        for name, asked in best.items():
            _add(crew, name, asked, setting, setting.log)
        for name in OWN:
            crew.need(name)
        curves = trained(crew, best, setting, setting.log, limit)
    found = [_against(curves, ours, peer) for ours in OWN for peer in PEERS if peer in curves]
    for row in found:
        row["about"]["chosen"] = {name: dict(asked.told) for name, asked in best.items()}
    why = "could not be installed: it is not published as a package"
    lacking = {**crew.failed, "LightGCN-PyTorch mf": why}
    return found + [missing("G0", "time to NDCG@20", peer, said) for peer, said in lacking.items()]


def _alone(name: str, asked: Asked, setting: Setting, log: str, limit: float) -> Curve:
    """Return the curve of one setting on its own; nothing of no quality if it could not start."""
    with setting.crew(f"tries of {name}") as crew:
        _add(crew, name, asked, setting, log)
        return trained(crew, {name: asked}, setting, log, limit).get(name, [(0.0, 0.0, 0.0)])


def _add(crew: Crew, name: str, asked: Asked, setting: Setting, log: str) -> None:
    python = None if asked.home is None else setting.python(asked.home)
    crew.add(name, asked.script, asked.task, python=python, data=log, dim=DIM, **asked.told)


def trained(crew: Crew, asked: Mapping[str, Asked], setting: Setting, log: str, limit: float) -> dict[str, Curve]:
    """Return the curve of each that could start, on the test part of `log`, within `limit` CPU seconds of each."""
    curves: dict[str, Curve] = {name: [] for name in crew.workers}
    going = dict(crew.workers)
    while going:
        for name, worker in list(going.items()):
            curve = curves[name]
            curve.append(_next(curve, worker, setting, log))
            cpu, _, ndcg = curve[-1]
            print(f"{name}: {cpu:.1f} CPU-s, NDCG@20 {ndcg:.4f}", file=sys.stderr, flush=True)
            epochs = asked[name].epochs
            if cpu > limit or len(curve) == epochs or (epochs is None and _stands(curve)):
                del going[name]
    return curves


def _next(curve: Curve, worker: Worker, setting: Setting, log: str) -> tuple[float, float, float]:
    told = worker.ask(do="round")
    out = str(setting.folder / "now.npz")
    worker.ask(do="save", path=out)
    cpu, wall, _ = curve[-1] if curve else (0.0, 0.0, 0.0)
    return cpu + told["cpu"], wall + told["wall"], judge(out, log)


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
