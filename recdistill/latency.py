"""Single-query service times of bundles, measured in a process of its own that never loads torch.

In one process torch and FAISS share thread counts, and the order of their imports decides whose. The child loads numpy
and FAISS alone, and interleaves its targets, so that what disturbs the machine disturbs them alike.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recdistill import serve
from recdistill.errors import ArtifactError, StageError

PARTS = ("encode", "search", "total")
BLOCK = 100  # queries of one target before the next target's turn
NOISY = 0.3
LIMIT = 1800  # seconds after which the child is taken to hang


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One way to answer: the encoder and ids of a bundle, and its own index or another one over the same items."""

    label: str  # student@index, student@flat, champion@index
    bundle: Path
    index: Path | None = None  # a file that the index.json beside it names; None is the bundle's own


def measure(
    targets: Sequence[Target],
    *,
    k: int,
    queries: int = 2000,
    repeats: int = 5,
    warmup: int = 200,
    threads: int = 1,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return rows with the fields of `LatencyRow`, one per target and part, and the environment they hold in.

    Each repeat asks every target the same `queries` known users, one at a time. Raises ArtifactError if a bundle or
    index fails its digest, StageError if the child fails.
    """
    asked = [asdict(t) | {"bundle": str(t.bundle.absolute()), "index": _text(t.index)} for t in targets]
    request = {
        "targets": asked,
        "k": k,
        "queries": queries,
        "repeats": repeats,
        "warmup": warmup,
        "threads": threads,
    }
    with tempfile.TemporaryDirectory(prefix="recdistill-latency-") as folder:
        file = Path(folder) / "request.json"
        file.write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "recdistill.latency", str(file)]
        root = Path(__file__).resolve().parents[1]  # so that the child finds this very package
        try:
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired as cause:
            what = f"the latency process ran past {LIMIT} s"
            raise StageError(what, where="latency", fix="ask fewer queries") from cause
        if done.returncode == ArtifactError.exit_code:
            raise ArtifactError(done.stderr.strip(), where="latency", fix="build the bundle and its index again")
        if done.returncode:
            raise StageError(f"the latency process failed: {done.stderr.strip()[-2000:]}", where="latency")
        answer = json.loads(file.with_name("answer.json").read_text(encoding="utf-8"))
    return answer["rows"], answer["environment"]


def summarise(times: NDArray[np.float64]) -> dict[str, Any]:
    """Return the numbers of a `LatencyRow` for service times in seconds, [R,Q] by repeat or [Q].

    Percentiles are medians over the repeats; `spread` is (largest - smallest) / median of the repeats' p50.
    """
    ms = np.atleast_2d(times) * 1e3
    p50, p95, p99 = np.percentile(ms, [50, 95, 99], axis=1)
    middle = float(np.median(p50))
    return {
        "p50_ms": middle,
        "p95_ms": float(np.median(p95)),
        "p99_ms": float(np.median(p99)),
        "max_ms": float(ms.max()),
        "queries": ms.size,
        "spread": float(np.ptp(p50)) / middle if middle else 0.0,
    }


def calibrate(times: Sequence[float]) -> dict[str, Any]:
    """Return the `noise` of fixed work timed again and again, (p95 - p50) / p50, and a `warning` where it is large."""
    p50, p95 = np.percentile(np.asarray(times), [50, 95])
    noise = float((p95 - p50) / p50)
    text = f"noisy machine: fixed work varied by {noise:.0%} (p95 over p50); compare targets, do not trust the tail"
    return {"noise": noise, "warning": text if noise > NOISY else None}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _child(request: dict[str, Any]) -> dict[str, Any]:
    """Open, warm up, then time every target in turns."""
    import faiss
    from threadpoolctl import threadpool_info, threadpool_limits

    with threadpool_limits(request["threads"]):  # the linear algebra of the encoder
        faiss.omp_set_num_threads(request["threads"])
        opened = [_open(t) for t in request["targets"]]
        repeats, queries = request["repeats"], request["queries"]
        times = np.empty((len(opened), repeats, queries, len(PARTS)))
        fixed: list[float] = []
        users = [_users(bundle, queries) for bundle, _ in opened]
        for bundle, index in opened:
            _ask(bundle, index, _users(bundle, request["warmup"]), request["k"])
        turns = 0
        for repeat in range(repeats):
            for start in range(0, queries, BLOCK):
                block = slice(start, min(start + BLOCK, queries))
                for n in np.roll(np.arange(len(opened)), turns):  # nobody always goes first
                    times[n, repeat, block] = _ask(*opened[n], users[n][block], request["k"])
                turns += 1
                fixed.append(_timed(_fixed_work))
        pools = {f"{p['user_api']}:{p['internal_api']}": p["num_threads"] for p in threadpool_info()}
        environment = _environment(request, pools) | calibrate(fixed)
    rows = [
        {"model": t["label"], "part": part, **summarise(times[n, :, :, p]), "size_bytes": size}
        for n, (t, size) in enumerate(zip(request["targets"], map(_size, request["targets"]), strict=True))
        for p, part in enumerate(PARTS)
    ]
    return {"rows": rows, "environment": environment}


def _open(target: dict[str, Any]) -> tuple[serve.Bundle, Any]:
    bundle = serve.open_bundle(Path(target["bundle"]))
    path, params = bundle.path / "index.faiss", bundle.params
    if target["index"] is not None:
        path = Path(target["index"])
        facts = json.loads((path.parent / "index.json").read_text(encoding="utf-8"))
        if path.name not in facts["files"] or serve.file_digest(path) != facts["files"][path.name]:
            raise serve.BundleError(f"{path}: contents differ from the digest in index.json")
        params = facts["params"] if path.name == "index.faiss" else ""
    index = serve.read_index(path, params)
    found = serve.encode(bundle, [0], [serve.default_history(bundle, 0)])
    if index.d != found.shape[1] or index.ntotal != len(bundle.item_ids):
        what = f"holds {index.ntotal} x {index.d}, the bundle has {len(bundle.item_ids)} items x {found.shape[1]}"
        raise serve.BundleError(f"{path}: {what}")
    return bundle, index


def _users(bundle: serve.Bundle, n: int) -> list[Any]:
    """Return `n` known user_ids, the same for every bundle over the same users."""
    ids = list(bundle.user_row)
    return [ids[i] for i in np.random.default_rng(0).integers(len(ids), size=n)]


def _ask(bundle: serve.Bundle, index: Any, user_ids: Sequence[Any], k: int) -> NDArray[np.float64]:
    """Return the seconds that encoding, searching and the whole of each query took, [n,3]."""
    clock, times = time.perf_counter_ns, np.empty((len(user_ids), len(PARTS)))
    k = min(k, len(bundle.item_ids))
    for n, user_id in enumerate(user_ids):
        t0 = clock()
        user = bundle.user_row[user_id]
        query = serve.encode(bundle, [user], [serve.default_history(bundle, user)])
        t1 = clock()
        _, rows = serve.search_index(index, query, k)
        t2 = clock()
        _ = [bundle.item_ids[i] for i in rows[0].tolist() if i >= 0]
        times[n] = t1 - t0, t2 - t1, clock() - t0
    return times * 1e-9


def _fixed_work() -> None:
    np.sort(np.random.default_rng(0).random(20_000))


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _size(target: dict[str, Any]) -> int:
    """Return the bytes of what answers: the query encoder and the index."""
    bundle = Path(target["bundle"])
    index = Path(target["index"] or bundle / "index.faiss")
    return index.stat().st_size + (bundle / "query.safetensors").stat().st_size


def _environment(request: dict[str, Any], pools: dict[str, int]) -> dict[str, Any]:
    import faiss

    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "simd": faiss.SIMDConfig.get_level_name(),
        "faiss": faiss.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "faiss_threads": faiss.omp_get_max_threads(),
        "pools": pools,
        "torch_loaded": "torch" in sys.modules,
        "k": request["k"],
        "repeats": request["repeats"],
        "note": "closed loop, batch 1: service times, not what users wait for under load",
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.processor())


def main(path: Path) -> int:
    """Answer the request in `path` with answer.json beside it; returns the exit code."""
    try:
        answer = _child(json.loads(path.read_text(encoding="utf-8")))
    except serve.BundleError as cause:
        sys.stderr.write(f"{cause}\n")
        return ArtifactError.exit_code
    path.with_name("answer.json").write_text(json.dumps(answer), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
