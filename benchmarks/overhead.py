"""What our harness adds to the service times that it reports: against a script that calls FAISS and nothing of ours.

Both search the same file by the same runtime parameters for the same queries, in turns of a block; the script has a
timing loop of its own. 1M items in clusters, 64 numbers each, one thread, one query at a time. The indexes take minutes
to build and are kept under runs/overhead. Ratios alone: ours over the script's, of each repeat's p50 and p95; repeats
are short and many, since what disturbs the machine for longer than two turns disturbs both.

    python benchmarks/overhead.py [--items 1000000] [--repeats 40] [--rounds 3] [--only HNSW32]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

DIM, CLUSTERS, USERS, K = 64, 2000, 10_000, 10
WAYS = {"HNSW32": "efSearch=64", "IVF4096,SQ8": "nprobe=16"}
RECALL_QUERIES = 200
MUST = 1.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="runs of the whole comparison, of new processes")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--queries", type=int, default=500, help="of each repeat")
    parser.add_argument("--only", choices=WAYS, help="one kind of index")
    asked = parser.parse_args()
    root = Path("runs/overhead") / f"{asked.items}"
    ways = [asked.only] if asked.only else list(WAYS)
    rows = []
    for factory in ways:
        at = prepared(root, asked.items, factory)
        ours, theirs = recalls(at, root)
        for _ in range(asked.rounds):
            row = compared(at, root, factory, asked.queries, asked.repeats)
            rows.append(row | {"recall": ours, "recall_of_script": theirs})
            print(f"{factory}: p50 {np.median(row['p50']):.4f} of the script's; {row['why']}", flush=True)
    (root / "overhead.json").write_text(json.dumps(rows, indent=1))
    for factory in ways:
        told(factory, [row for row in rows if row["factory"] == factory])


def told(factory: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print the medians over the rounds of one kind of index."""
    p50 = [ratio for row in rows for ratio in row["p50"]]
    p95 = [ratio for row in rows for ratio in row["p95"]]
    rounds = ", ".join(f"{np.median(row['p50']):.4f}" for row in rows)
    low, high = np.percentile(p50, [25, 75])
    same = all(row["recall"] == row["recall_of_script"] for row in rows)
    print(
        f"{factory}: p50 {np.median(p50):.4f} of the script's (below {MUST}?), middle half of {len(p50)} repeats "
        f"{low:.3f} to {high:.3f}, by round {rounds}; p95 {np.median(p95):.3f}; recall {rows[0]['recall']:.6f}, "
        f"{'the same' if same else 'NOT the same: ' + format(rows[0]['recall_of_script'], '.6f')}"
    )


def prepared(root: Path, items: int, factory: str) -> Path:
    """Return the directory of a bundle over `factory`, built if it is not there."""
    import faiss
    import polars as pl

    from recdistill.bundle import write_bundle
    from recdistill.spec import canonical
    from recdistill.store import sha256

    at = root / factory.replace(",", "-")
    if (at / "bundle" / "manifest.json").is_file():
        return at
    vectors, users = made_up(items)
    at.mkdir(parents=True, exist_ok=True)
    faiss.omp_set_num_threads(1)
    started = time.perf_counter()
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:: max(1, items // 200_000)])
    index.add(vectors)
    faiss.write_index(index, str(at / "index.faiss"))
    print(f"{factory}: built in {time.perf_counter() - started:.0f} s", flush=True)
    facts = {"factory": factory, "params": WAYS[factory], "files": {"index.faiss": sha256(at / "index.faiss")}}
    (at / "index.json").write_text(canonical(facts) + "\n")
    np.save(root / "items.npy", vectors)
    write_bundle(
        at / "bundle",
        query={"user": users},
        query_meta={"kind": "mf", "space": "cosine", "dim": DIM, "num_users": USERS, "num_items": items},
        user_ids=pl.Series(range(USERS)),
        item_ids=pl.Series(range(items)),
        histories=None,
        popular=np.arange(items),
        index_dir=at,
        facts={"fingerprint": "overhead"},
    )
    return at


def made_up(items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return items [I,D] and users [U,D] of length 1 around the same centres."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, DIM)).astype(np.float32)

    def around(n: int) -> np.ndarray:
        found = centres[rng.integers(CLUSTERS, size=n)] + 0.6 * rng.normal(size=(n, DIM)).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return around(items), around(USERS)


def queries_of(bundle: Path, n: int) -> np.ndarray:
    """Return the query vectors [n,D] that the harness asks, in its order."""
    from recdistill import serve
    from recdistill.latency_child import users_of

    opened = serve.open_bundle(bundle)
    rows = [opened.user_row[i] for i in users_of(opened, n)]
    return serve.encode(opened, rows, [np.empty(0, np.int64)] * n)


def compared(at: Path, root: Path, factory: str, queries: int, repeats: int) -> dict[str, Any]:
    """Return our p50 and p95 of the search over the script's, of each repeat."""
    from recdistill.latency import How, Target, turns, worker
    from recdistill.turns import Worker, take_turns

    how = How(k=K, queries=queries, repeats=repeats)
    np.save(root / "queries.npy", queries_of(at / "bundle", queries))
    script = {
        "index": str((at / "bundle" / "index.faiss").absolute()),
        "queries": str((root / "queries.npy").absolute()),
        "params": WAYS[factory],
        "k": K,
        "repeats": how.repeats,
        "warmup": how.warmup,
    }
    both = [worker([Target(label="ours", bundle=at / "bundle")], how), Worker("benchmarks.peers.direct_faiss", script)]
    ours, theirs = take_turns(both, turns(how))
    row = next(row for row in ours["rows"] if row["part"] == "search")
    ratios = {p: [a / b for a, b in zip(row["repeats"][f"{p}_ms"], theirs[p], strict=True)] for p in ("p50", "p95")}
    noise = ours["environment"]["noise"]
    about = {"factory": factory, "params": WAYS[factory], "simd": ours["environment"]["simd"], "theirs": theirs["simd"]}
    return about | ratios | {"quiet": noise["judge"], "why": noise["why"]}


def recalls(at: Path, root: Path) -> tuple[float, float]:
    """Return recall@K as we count it, and as the script counts it by itself."""
    import subprocess

    import faiss

    from recdistill.ann_tune import recall
    from recdistill.serve import read_index

    np.save(root / "asked.npy", asked := queries_of(at / "bundle", RECALL_QUERIES))
    params = json.loads((at / "index.json").read_text())["params"]
    items, index = np.load(root / "items.npy"), read_index(at / "bundle" / "index.faiss", params)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(items)
    ours = recall(index, flat, items, asked, K)
    words = [str(at / "bundle" / "index.faiss"), str(root / "items.npy"), str(root / "asked.npy"), params, str(K)]
    script = Path(__file__).parent / "peers" / "direct_faiss.py"
    done = subprocess.run([sys.executable, str(script), "recall", *words], capture_output=True, text=True, check=True)
    return ours, float(done.stdout)


if __name__ == "__main__":
    main()
