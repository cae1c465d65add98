"""`recdistill serve` under load on loopback: every answer compared with what the bundle gives, to the last digit.

    python benchmarks/served_load.py                         one request alone, then rates up to saturation and beyond
    python benchmarks/served_load.py --move --seconds 180    minutes of load, a promotion and a rollback in the middle

Requests come on a schedule, so that waiting counts. Server and clients share this machine's cores: what saturates is
both of them together. Times are multiples of one request alone over HTTP, in the same run, and that one of the same
answer in process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.load_client import Asked, Line, arrivals, closed_loop, judged, open_loop

ROOT = Path(__file__).parents[1]
MODEL, K, POOL = "load", 10, 100  # requests of each size that are asked again and again
SHARES = (0.25, 0.5, 0.75, 0.9, 1.2)  # of saturation
QUANTILES = (50, 95, 99)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--users", type=int, default=20_000)
    asked.add_argument("--items", type=int, default=40_000)
    asked.add_argument("--dim", type=int, default=64)
    asked.add_argument("--factory", default="SQ8")
    asked.add_argument("--workers", type=int, default=1)
    asked.add_argument("--sizes", type=int, nargs="+", default=[1, 32], help="users in a request")
    asked.add_argument("--seconds", type=float, default=20.0, help="of each rate, or of the whole move")
    asked.add_argument("--lines", type=int, default=96, help="connections")
    asked.add_argument("--move", action="store_true")
    asked.add_argument("--share", type=float, default=0.4, help="of saturation, while the champion moves")
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uri, bundles = registry_of(Path(folder), given)
        pools = {size: pool(bundles, size, given.seed) for size in given.sizes}
        with served(uri, given.workers) as address:
            print(json.dumps({**vars(given), "cores": os.cpu_count(), "load": os.getloadavg()[0]}))
            if given.move:
                moved(address, uri, pools, given)
            else:
                for size, (bodies, expected) in pools.items():
                    rates(address, bundles[1], size, bodies, expected, given)
    return 0


def rates(
    address: tuple[str, int],
    bundle: Path,
    size: int,
    bodies: Sequence[bytes],
    expected: dict[int, Any],
    given: argparse.Namespace,
) -> None:
    """Print one request alone beside the same in process, then each rate."""
    alone, ratio, spread = against_process(address, bundle, bodies)
    say(size=size, what="alone: HTTP over in process", p50=ratio, spread=spread)
    most, asked = closed_loop(address, bodies, 8, seconds=given.seconds / 2)
    say(size=size, what="saturation: answers while one is given alone", p50=most * alone, **judged(asked, expected))
    for share in SHARES:
        times = arrivals(share * most, given.seconds, given.seed)
        order = np.random.default_rng(given.seed).integers(0, len(bodies), len(times))
        asked = open_loop(address, bodies, times, order, given.lines)
        say(size=size, what=f"{share:.0%} of saturation", **waits(asked, alone), **judged(asked, expected))


def moved(address: tuple[str, int], uri: str, pools: dict[int, Any], given: argparse.Namespace) -> None:
    """Print what came of minutes of load while version 2 is promoted, and later rolled back."""
    bodies = [body for held, _ in pools.values() for body in held]
    expected = {version: [row for _, told in pools.values() for row in told[version]] for version in (1, 2)}
    most, _ = closed_loop(address, bodies, 8, seconds=10)
    alone = statistics_of([one.ended - one.due for one in closed_loop(address, bodies, 1, seconds=5)[1]])
    times = arrivals(given.share * most, given.seconds, given.seed)
    order = np.random.default_rng(given.seed).integers(0, len(bodies), len(times))
    registry = ["--mlflow", uri]
    clocks = [
        Timer(given.seconds / 3, command, [["promote", MODEL, "--version", "2", *registry]]),
        Timer(2 * given.seconds / 3, command, [["rollback", MODEL, *registry]]),
    ]
    for clock in clocks:
        clock.start()
    asked = open_loop(address, bodies, times, order, given.lines)
    for clock in clocks:
        clock.join()
    say(size=given.sizes, what="all", **waits(asked, alone), **judged(asked, expected))
    answered = sorted((one.ended, one.version) for one in asked if one.version)
    for first in (0, given.seconds / 3, 2 * given.seconds / 3):
        part = [one for one in asked if first <= one.due < first + given.seconds / 3]
        say(size=given.sizes, what=f"due after {first:.0f} s", **waits(part, alone), **judged(part, expected))
    second = [at for at, version in answered if version == 2]
    mixed = sum(second[0] <= at <= second[-1] and version == 1 for at, version in answered) if second else None
    say(size=given.sizes, what="answers of version 1 between the first and the last of version 2", p50=mixed)


def waits(asked: Sequence[Asked], alone: float) -> dict[str, float]:
    """Return the quantiles of the time from when a request was due to its last byte, over one alone."""
    each = np.array([one.ended - one.due for one in asked if one.status == 200])
    if not len(each):
        return {}
    found = {f"p{q}": float(np.percentile(each, q)) / alone for q in QUANTILES}
    return found | {"max": float(each.max()) / alone}


def against_process(address: tuple[str, int], bundle: Path, bodies: Sequence[bytes]) -> tuple[float, float, float]:
    """Return the median seconds of one request alone, the median ratio to the same in process, and its spread."""
    from recdistill import serve

    opened = serve.open_bundle(bundle)
    index = serve.read_index(opened.path / "index.faiss", opened.params)
    requests = [[(row["user_id"], None) for row in json.loads(body)["dataframe_records"]] for body in bodies]
    line, pairs = Line(*address), []
    for n in range(3 * len(bodies)):
        at = n % len(bodies)
        started = time.perf_counter()
        line.ask(bodies[at])
        between = time.perf_counter()
        serve.recommend(opened, index, requests[at], K)
        pairs.append((between - started, time.perf_counter() - between))
    http, here = np.array(pairs[len(bodies) :]).T
    blocks = [np.median(a) / np.median(b) for a, b in zip(np.split(http, 2), np.split(here, 2), strict=True)]
    middle = float(np.median(http) / np.median(here))
    return statistics_of(http), middle, (max(blocks) - min(blocks)) / middle


def statistics_of(seconds: Sequence[float] | np.ndarray) -> float:
    return float(np.median(seconds))


def pool(bundles: dict[int, Path], size: int, seed: int) -> tuple[list[bytes], dict[int, list[Any]]]:
    """Return bodies of `size` users each, and what each version answers to each of them."""
    from recdistill import serve

    opened = {version: serve.open_bundle(path) for version, path in bundles.items()}
    users = list(opened[1].user_row)
    rng = np.random.default_rng([seed, size])
    asked = [[users[n] for n in rng.integers(0, len(users), size)] for _ in range(POOL)]
    bodies = [
        json.dumps({"dataframe_records": [{"user_id": user} for user in each], "params": {"k": K}}).encode()
        for each in asked
    ]
    expected: dict[int, list[Any]] = {}
    for version, bundle in opened.items():
        index = serve.read_index(bundle.path / "index.faiss", bundle.params)
        told = [serve.recommend(bundle, index, [(user, None) for user in each], K) for each in asked]
        expected[version] = [[answer._asdict() for answer in each] for each in told]
    return bodies, expected


def registry_of(folder: Path, given: argparse.Namespace) -> tuple[str, dict[int, Path]]:
    """Return a registry whose version 1 serves and whose version 2 is ready to, and the bundles of both."""
    from pipelines.models import prepare_mlflow

    prepare_mlflow()
    from recdistill import registry, tracking

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    tracking.initialise(uri)
    bundles = {version: made_bundle(folder / f"{version}", version, given) for version in (1, 2)}
    for version, bundle in bundles.items():
        data: tracking.DatasetFacts = {"name": "made", "digest": "0" * 32, "rows": 1}
        run = tracking.record(uri, MODEL, MODEL, [], data, folder / "none")
        assert registry.register(uri, MODEL, bundle, run, {}) == version
        with tracking.store(uri) as client:
            client.set_model_version_tag(MODEL, str(version), registry.GATE, registry.PASSED)
        if version == 1:
            registry.promote(uri, MODEL, 1)
    return uri, bundles


def made_bundle(out: Path, version: int, given: argparse.Namespace) -> Path:
    """Write an untrained two-tower bundle with its index."""
    import polars as pl

    from recdistill.ann import IndexSpec, build_index
    from recdistill.bundle import write_bundle

    rng = np.random.default_rng([given.seed, version])

    def table(rows: int, dim: int = given.dim) -> np.ndarray:
        return rng.standard_normal((rows, dim)).astype(np.float32)

    items = table(given.items)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    query = {"user": table(given.users), "history": table(given.items)}
    query |= {"layers.0.weight": table(given.dim, 2 * given.dim), "layers.0.bias": table(1)[0]}
    build_index(items, query["user"][:200], IndexSpec(factory=given.factory, k=(K,)), out / "index")
    meta = {"kind": "two_tower", "space": "cosine", "dim": given.dim}
    write_bundle(
        out / "bundle",
        query=query,
        query_meta=meta | {"num_users": given.users, "num_items": given.items},
        user_ids=pl.Series([f"u{n}" for n in range(given.users)]),
        item_ids=pl.Series(range(given.items)),
        histories=[rng.choice(given.items, 20, replace=False) for _ in range(given.users)],
        popular=rng.permutation(given.items),
        index_dir=out / "index",
        facts={"fingerprint": f"{version}", "data_end": f"2026-01-0{version}"},
    )
    return out / "bundle"


@contextmanager
def served(uri: str, workers: int) -> Iterator[tuple[str, int]]:
    """Serve the champion inside the block; yields host and port."""
    words = ["serve", f"{MODEL}@champion", "--mlflow", uri, "--port", "0", "--workers", str(workers), "--follow", "1"]
    process = subprocess.Popen([sys.executable, "-m", "pipelines", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"answers at http://([\d.]+):(\d+)/", said := process.stdout.readline())
        assert found, said
        yield found[1], int(found[2])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def command(words: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "pipelines", *words], cwd=ROOT, check=True, stdout=sys.stderr)


def say(**row: Any) -> None:
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
