"""The process that `recdistill.latency` starts: numpy and FAISS alone, every target asked in turns."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recdistill import serve
from recdistill.errors import ArtifactError
from recdistill.latency_stats import calibrate, summarise

PARTS = ("encode", "search", "total")
BLOCK = 100  # queries of one target before the next target's turn


class Opened(NamedTuple):
    """One way to answer, ready: targets over one file share its index, and set what they search it by."""

    bundle: serve.Bundle
    index: Any
    params: str  # runtime parameters, set before each turn; empty for those that the file was written with
    exclude: bool


def main(path: Path) -> int:
    """Answer the request in `path` with answer.json beside it; returns the exit code."""
    try:
        answer = _measured(json.loads(path.read_text(encoding="utf-8")))
    except serve.BundleError as cause:
        sys.stderr.write(f"{cause}\n")
        return ArtifactError.exit_code
    path.with_name("answer.json").write_text(json.dumps(answer), encoding="utf-8")
    return 0


def _measured(request: dict[str, Any]) -> dict[str, Any]:
    """Open, warm up, then time every target in turns."""
    import faiss
    from threadpoolctl import threadpool_info, threadpool_limits

    with threadpool_limits(request["threads"]):  # the linear algebra of the encoder
        faiss.omp_set_num_threads(request["threads"])
        opened = open_targets(request["targets"])
        repeats, queries = request["repeats"], request["queries"]
        times = np.empty((len(opened), repeats, queries, len(PARTS)))
        fixed: list[float] = []
        users = [users_of(target.bundle, queries) for target in opened]
        for target in opened:
            ask(target, users_of(target.bundle, request["warmup"]), request["k"])
        turns = 0
        for repeat in range(repeats):
            for start in range(0, queries, BLOCK):
                block = slice(start, min(start + BLOCK, queries))
                for n in np.roll(np.arange(len(opened)), turns):  # nobody always goes first
                    times[n, repeat, block] = ask(opened[n], users[n][block], request["k"])
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


def open_targets(targets: Sequence[dict[str, Any]]) -> list[Opened]:
    """Return every target ready to answer; a bundle is read once, and so is an index file, however many share it.

    Raises BundleError where a file is not what its digest says, or an index is of other items than its bundle.
    """
    bundles: dict[str, serve.Bundle] = {}
    checked: dict[Path, str] = {}
    indexes: dict[tuple[Path, tuple[str, ...]], Any] = {}
    opened = []
    for target in targets:
        if target["bundle"] not in bundles:
            bundles[target["bundle"]] = serve.open_bundle(Path(target["bundle"]))
        bundle = bundles[target["bundle"]]
        path = Path(target["index"] or bundle.path / "index.faiss")
        if path not in checked:
            checked[path] = bundle.params if target["index"] is None else _checked_params(path)
        params = checked[path] if target["params"] is None else target["params"]
        # What one target sets the next one must set too, or it would search by what was left there.
        shared = path, tuple(sorted(word.partition("=")[0] for word in params.split(",") if word))
        if shared not in indexes:
            indexes[shared] = serve.read_index(path)
        _fits(bundle, indexes[shared], path)
        _set(one := Opened(bundle, indexes[shared], params, bool(target["exclude"])), path)
        opened.append(one)
    return opened


def _set(target: Opened, path: Path | None = None) -> None:
    """Search by the runtime parameters of `target` from now on; raises BundleError if the index has none such."""
    if not target.params:
        return
    import faiss

    try:
        faiss.ParameterSpace().set_index_parameters(target.index, target.params)
    except RuntimeError as cause:
        what = f"{target.params!r} cannot be set: {str(cause).splitlines()[0][-200:]}"
        raise serve.BundleError(f"{path or target.bundle.path}: {what}") from cause


def _checked_params(path: Path) -> str:
    """Return the runtime parameters of an index file outside of a bundle, whose digest is that of index.json."""
    try:
        facts = json.loads((path.parent / "index.json").read_text(encoding="utf-8"))
        wanted = facts["files"][path.name]
    except (OSError, ValueError, KeyError) as cause:
        raise serve.BundleError(f"{path}: no index.json beside it that names it ({cause})") from cause
    if serve.file_digest(path) != wanted:
        raise serve.BundleError(f"{path}: contents differ from the digest in index.json")
    return facts["params"] if path.name == "index.faiss" else ""


def _fits(bundle: serve.Bundle, index: Any, path: Path) -> None:
    found = serve.encode(bundle, [0], [serve.default_history(bundle, 0)])
    if index.d != found.shape[1] or index.ntotal != len(bundle.item_ids):
        what = f"holds {index.ntotal} x {index.d}, the bundle has {len(bundle.item_ids)} items x {found.shape[1]}"
        raise serve.BundleError(f"{path}: {what}")


def searcher(target: Opened) -> Callable[[NDArray[np.float32], int, Any], tuple[Any, Any]]:
    """Return the search of `target`, by its runtime parameters: (query [1,D], k, item rows taken) -> scores, rows."""
    _set(target)
    index = target.index
    if not target.exclude:
        return lambda query, k, _taken: serve.search_index(index, query, k)
    from recdistill.serve_search import search_without

    return lambda query, k, taken: search_without(index, query, k, [taken])


def users_of(bundle: serve.Bundle, n: int) -> list[Any]:
    """Return `n` known user_ids, the same for every bundle over the same users."""
    ids = list(bundle.user_row)
    return [ids[i] for i in np.random.default_rng(0).integers(len(ids), size=n)]


def ask(target: Opened, user_ids: Sequence[Any], k: int) -> NDArray[np.float64]:
    """Return the seconds that encoding, searching and the whole of each query took, [n,3]."""
    bundle, search = target.bundle, searcher(target)
    clock, times = time.perf_counter_ns, np.empty((len(user_ids), len(PARTS)))
    k = min(k, len(bundle.item_ids))
    for n, user_id in enumerate(user_ids):
        t0 = clock()
        user = bundle.user_row[user_id]
        past = serve.default_history(bundle, user)
        query = serve.encode(bundle, [user], [past])
        t1 = clock()
        _, rows = search(query, k, past)
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


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
