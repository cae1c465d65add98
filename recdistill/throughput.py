"""How many queries a second a bundle answers: by how many are asked at once, and on how many threads."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from recdistill import serve
from recdistill.latency import Target, asked_of
from recdistill.latency_child import Opened, open_targets, set_params, users_of
from recdistill.latency_machine import calibration, facts, set_simd, set_threads
from recdistill.latency_stats import noise
from recdistill.serve_search import search_index, search_without
from recdistill.turns import Answer, Take, Worker, take_turns, work_in_turns

SECONDS = 0.1  # of one turn of a way to ask
ROUNDS = 5
BATCHES = (1, 32, 256)


def measure_throughput(
    targets: Sequence[Target],
    *,
    k: int,
    batches: Sequence[int] = BATCHES,
    threads: Sequence[int] = (1,),
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    simd: str | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row for each target, batch and number of threads, and the environment they hold in.

    A row has `qps`, the median over `rounds` of queries a second, and their `spread`; all ways take turns of `seconds`.
    Raises ArtifactError if a bundle or index fails its digest, StageError if the process fails.
    """
    asked = {"targets": asked_of(targets), "k": k, "batches": list(batches), "counts": list(threads), "simd": simd}
    asked |= {"rounds": rounds, "seconds": seconds}
    (answer,) = take_turns([Worker("recdistill.throughput", asked)], rounds)
    return answer["rows"], answer["environment"]


def begin(request: dict[str, Any]) -> tuple[Take, Answer]:
    """Open the targets; a turn is one round of all ways to ask."""
    import faiss  # noqa: F401 its threads cannot be set before it is loaded

    set_simd(request["simd"])
    pools = set_threads(1)
    opened = open_targets(request["targets"])
    ways = list(product(request["counts"], range(len(opened)), request["batches"]))
    users = [users_of(target.bundle, 4 * max(request["batches"])) for target in opened]
    found: dict[tuple[int, int, int], list[float]] = {way: [] for way in ways}
    fixed = [calibration()]

    def take(turn: int) -> None:
        for at in range(len(ways)):
            threads, n, batch = ways[(at + turn * len(ways) // request["rounds"]) % len(ways)]
            set_threads(threads)
            rate = _rate(opened[n], users[n], batch, request["k"], request["seconds"])
            found[threads, n, batch].append(rate)
        set_threads(1)
        fixed.append(calibration())

    def answer() -> dict[str, Any]:
        rows = [
            {"model": asked["label"], "batch": batch, "threads": threads, **_row(found[threads, n, batch])}
            for n, asked in enumerate(request["targets"])
            for batch in request["batches"]
            for threads in request["counts"]
        ]
        told = {"threads": request["counts"], "repeats": request["rounds"], "k": request["k"], "warmup": 1}
        environment = facts(told, pools) | {"batch": request["batches"], "noise": noise(fixed)}
        return {"rows": rows, "environment": environment | {"note": "closed loop: as many queries as it can take"}}

    return take, answer


def _rate(target: Opened, users: Sequence[Any], batch: int, k: int, seconds: float) -> float:
    """Return queries a second, of batches one after the other, the first of which is not timed."""
    set_params(target)
    _answer(target, users[:batch], k)
    done, start, started = 0, batch, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        start = 0 if start + batch > len(users) else start
        _answer(target, users[start : start + batch], k)
        done, start = done + batch, start + batch
    return done / spent


def _answer(target: Opened, user_ids: Sequence[Any], k: int) -> list[list[Any]]:
    bundle, k = target.bundle, min(k, len(target.bundle.item_ids))
    rows = [bundle.user_row[i] for i in user_ids]
    taken = [serve.default_history(bundle, row) for row in rows]
    queries = serve.encode(bundle, rows, taken)
    search = search_without(target.index, queries, k, taken) if target.exclude else None
    _, found = search_index(target.index, queries, k) if search is None else search
    return [[bundle.item_ids[i] for i in row if i >= 0] for row in found.tolist()]


def _row(rates: Sequence[float]) -> dict[str, float]:
    middle = float(np.median(rates))
    return {"qps": middle, "spread": float(np.ptp(rates)) / middle}


if __name__ == "__main__":
    sys.exit(work_in_turns(Path(sys.argv[1]), begin, serve.BundleError))
