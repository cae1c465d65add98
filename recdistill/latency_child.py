"""The process that `recdistill.latency` starts: numpy and FAISS alone, every target asked in turns."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recdistill import serve
from recdistill.held import bundle_held, total
from recdistill.latency_machine import calibration, facts, set_simd, set_threads
from recdistill.latency_stats import noise, summarise
from recdistill.serve_search import search_index, search_without
from recdistill.turns import Answer, Take, work_in_turns

PARTS = ("encode", "search", "total")
BLOCK = 100  # queries of one target before the next target's turn
LEAD = 10  # queries before those of a block, untimed: they find the caches as others left them


class Opened(NamedTuple):
    """One way to answer, ready: targets over one file share its index, and set what they search it by."""

    bundle: serve.Bundle
    index: Any
    params: str  # runtime parameters, set before each turn; empty for those that the file was written with
    exclude: bool
    path: Path  # of the index


def begin(request: dict[str, Any]) -> tuple[Take, Answer]:
    """Open and warm up; a turn is a block of queries of every target, nobody always first."""
    import faiss  # noqa: F401 its threads cannot be set before it is loaded

    set_simd(request["simd"])
    pools = set_threads(request["threads"])
    opened = open_targets(request["targets"])
    k, queries = request["k"], request["queries"]
    times = np.empty((len(opened), request["repeats"], queries, len(PARTS)))
    users = [users_of(target.bundle, queries) for target in opened]
    for target in opened:
        ask(target, users_of(target.bundle, request["warmup"]), k)
    shown = [taken_shown(target, users_of(target.bundle, min(queries, BLOCK)), k) for target in opened]
    fixed = [calibration()]

    def take(turn: int) -> None:
        repeat, block = divmod(turn, blocks(queries))
        at = np.arange(block * BLOCK, min((block + 1) * BLOCK, queries))
        asked = np.arange(at[0] - LEAD, at[-1] + 1) % queries
        far = (asked + queries // 2) % queries  # who was asked long ago, so that no cache remembers the answer
        for n in np.roll(np.arange(len(opened)), turn):
            whole = ask(opened[n], [users[n][i] for i in asked], k)
            alone = search_alone(opened[n], [users[n][i] for i in far], k)
            times[n, repeat, at] = np.stack([whole[:, 0], alone, whole[:, 1]], axis=1)[LEAD:]
        fixed.append(calibration())

    def answer() -> dict[str, Any]:
        fixed.append(calibration())
        held = [bundle_held(target.bundle, target.path) for target in opened]
        rows = [
            {"model": asked["label"], "part": part, **summarise(times[n, :, :, p]), "size_bytes": total(held[n])}
            for n, asked in enumerate(request["targets"])
            for p, part in enumerate(PARTS)
        ]
        told = {
            asked["label"]: {"held": held[n], "shown_again": shown[n], **_told(opened[n])}
            for n, asked in enumerate(request["targets"])
        }
        return {"rows": rows, "environment": facts(request, pools) | {"targets": told, "noise": noise(fixed)}}

    return take, answer


def blocks(queries: int) -> int:
    """Return how many turns it takes to ask `queries` of every target."""
    return -(-queries // BLOCK)


def _told(target: Opened) -> dict[str, Any]:
    """Return what a target searches, and by what."""
    try:
        factory = json.loads((target.path.parent / "index.json").read_text(encoding="utf-8")).get("factory")
    except (OSError, ValueError):
        factory = None
    factory = factory if target.path.name == "index.faiss" else None
    return {
        "file": target.path.name,
        "factory": factory,
        "params": target.params,
        "exclude": target.exclude,
    }


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
        if target["exclude"] and bundle.offsets is None:
            raise serve.BundleError(f"{bundle.path}: keeps no histories, so nothing can be left out")
        one = Opened(bundle, indexes[shared], params, bool(target["exclude"]), path)
        set_params(one)
        opened.append(one)
    return opened


def set_params(target: Opened) -> None:
    """Search by the runtime parameters of `target` from now on; raises BundleError if the index has none such."""
    if not target.params:
        return
    import faiss

    try:
        faiss.ParameterSpace().set_index_parameters(target.index, target.params)
    except RuntimeError as cause:
        what = f"{target.params!r} cannot be set: {str(cause).splitlines()[0][-200:]}"
        raise serve.BundleError(f"{target.path}: {what}") from cause


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
    set_params(target)
    index = target.index
    if not target.exclude:
        return lambda query, k, _taken: search_index(index, query, k)
    return lambda query, k, taken: search_without(index, query, k, [taken])


def users_of(bundle: serve.Bundle, n: int) -> list[Any]:
    """Return `n` known user_ids, the same for every bundle over the same users."""
    ids = list(bundle.user_row)
    return [ids[i] for i in np.random.default_rng(0).integers(len(ids), size=n)]


def ask(target: Opened, user_ids: Sequence[Any], k: int) -> NDArray[np.float64]:
    """Return the seconds that encoding and the whole of each query took, [n,2]."""
    bundle, search = target.bundle, searcher(target)
    clock, times = time.perf_counter_ns, np.empty((len(user_ids), 2))
    k = min(k, len(bundle.item_ids))
    for n, user_id in enumerate(user_ids):
        started = clock()
        user = bundle.user_row[user_id]
        past = serve.default_history(bundle, user)
        query = serve.encode(bundle, [user], [past])
        encoded = clock()
        _, rows = search(query, k, past)
        _ = [bundle.item_ids[i] for i in rows[0].tolist() if i >= 0]
        times[n] = encoded - started, clock() - started
    return times * 1e-9


def search_alone(target: Opened, user_ids: Sequence[Any], k: int) -> NDArray[np.float64]:
    """Return the seconds that each search took, [n], of queries that were encoded before.

    Between two searches of whole answers lies an encoding, which leaves its own data in the caches. What the index
    takes is therefore timed apart, one search after the other, as those do who measure indexes alone.
    """
    bundle, search = target.bundle, searcher(target)
    clock, times = time.perf_counter_ns, np.empty(len(user_ids))
    k = min(k, len(bundle.item_ids))
    users = [bundle.user_row[user_id] for user_id in user_ids]
    taken = [serve.default_history(bundle, user) for user in users]
    queries = serve.encode(bundle, users, taken)
    for n, past in enumerate(taken):
        query = queries[n : n + 1]
        started = clock()
        search(query, k, past)
        times[n] = clock() - started
    return times * 1e-9


def taken_shown(target: Opened, user_ids: Sequence[Any], k: int) -> float | None:
    """Return the share of what is recommended that the user had taken; None where the bundle keeps no histories."""
    bundle, search = target.bundle, searcher(target)
    if bundle.offsets is None:
        return None
    again = count = 0
    for user_id in user_ids:
        past = serve.default_history(bundle, bundle.user_row[user_id])
        query = serve.encode(bundle, [bundle.user_row[user_id]], [past])
        _, rows = search(query, min(k, len(bundle.item_ids)), past)
        again, count = again + int(np.isin(rows[rows >= 0], past).sum()), count + int((rows >= 0).sum())
    return again / max(count, 1)


if __name__ == "__main__":
    sys.exit(work_in_turns(Path(sys.argv[1]), begin, serve.BundleError))
