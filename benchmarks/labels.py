"""How fast full-catalogue labels are, against bare products of the same shape; and how much memory they take.

    python benchmarks/labels.py                     Gowalla's shape: 40,981 items, 256-d, top-100, one thread
    python benchmarks/labels.py --data DIR          the same with the seen items of DIR/train.parquet (user_id, item_id)
    python benchmarks/labels.py --memory            1M users x 1M items on disk: peak memory, time extrapolated
    --threads 2 --users 8192 --rounds 7 --out runs/labels.json

Vectors are made up, but shaped as trained ones are: unit length, in clusters, temperature .1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

USERS, ITEMS, DIM, K = 29_858, 40_981, 256, 100
TEMPERATURE, CLUSTERS = 0.1, 200
BATCH = 1024  # users of a bare product
MILLION, WIDE_DIM, LIMIT = 1_000_000, 64, 4 * 2**30


def clustered(rng: np.random.Generator, rows: int, centres: np.ndarray, length: float) -> np.ndarray:
    found = centres[rng.integers(0, len(centres), rows)] + rng.standard_normal((rows, centres.shape[1]), np.float32)
    return found * np.float32(length) / np.linalg.norm(found, axis=1, keepdims=True)


def seen_items(data: Path | None, rng: np.random.Generator):
    """Return the training items of every user, those of DIR/train.parquet or as many at random."""
    from recdistill.types import Interactions

    if data is not None:
        import polars as pl

        rows = pl.read_parquet(data / "train.parquet", columns=["user_id", "item_id"]).unique()
        rows = rows.with_columns(pl.all().rank("dense").cast(pl.Int64) - 1).sort("user_id", "item_id")
        counts, items = np.bincount(rows["user_id"].to_numpy()), rows["item_id"].to_numpy()
    else:
        counts = np.minimum(8 + rng.geometric(1 / 20, USERS), 800)
        items = np.concatenate([rng.choice(ITEMS, n, replace=False) for n in counts])
    return Interactions(indptr=np.concatenate([[0], counts.cumsum()]), items=items)


def speed(args: argparse.Namespace) -> dict:
    import torch

    from benchmarks.timing import interleaved, machine, rates, show
    from recdistill.topk import exact_topk, pairs, select

    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    seen = seen_items(args.data, rng)
    centres = rng.standard_normal((CLUSTERS, DIM), np.float32)
    users = clustered(rng, min(args.users, seen.num_users), centres, 1 / TEMPERATURE)
    items = clustered(rng, max(ITEMS, int(seen.items.max()) + 1), centres, 1.0)
    left, right = torch.from_numpy(users), torch.from_numpy(items)
    half, other = left.bfloat16(), right.bfloat16()
    # Results of the bare products go to memory that is there already: faster than what most callers do.
    wide, narrow = torch.empty(BATCH, len(items)), torch.empty(BATCH, len(items), dtype=torch.bfloat16)
    starts = range(0, len(users), BATCH)

    def product(a, b, out):
        return [torch.mm(part := a[s : s + BATCH], b.T, out=out[: len(part)]) for s in starts]

    def plain():
        for s in starts:
            part = left[s : s + BATCH]
            torch.topk(torch.mm(part, right.T, out=wide[: len(part)]), K, dim=1)

    def whole():
        for s in starts:
            part = left[s : s + BATCH]
            scores = torch.mm(part, right.T, out=wide[: len(part)])
            scores[pairs(seen, np.arange(s, s + len(part)))] = -torch.inf
            select(scores, K)

    rows = np.arange(len(users))
    peers = {
        "sgemm": lambda: product(left, right, wide),
        "bf16 mm": lambda: product(half, other, narrow),
        "fp32 mm + topk": plain,
        "fp32 mm + mask + topk + residual": whole,
        "exact_topk fp32": lambda: exact_topk(users, items, K, seen=seen, rows=rows),
        "exact_topk bf16": lambda: exact_topk(users, items, K, seen=seen, rows=rows, precision="bf16"),
    }
    found = rates(interleaved(peers, args.rounds), len(users) * len(items), ["sgemm", "bf16 mm", "fp32 mm + topk"])
    print(
        f"{len(users):,} users x {len(items):,} items, {DIM}-d, top {K}, {args.threads} threads, {args.rounds} rounds"
    )
    print("products without masks, lists or residuals; the last three mask, and return lists and residuals")
    show(found, "Mpairs")
    return {"machine": machine(args.threads), "users": len(users), "items": len(items), "rows": found}


def save_vectors(path: Path, rows: int, centres: np.ndarray, length: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, centres.shape[1]))
    for start in range(0, rows, 50_000):
        out[start : start + 50_000] = clustered(rng, min(50_000, rows - start), centres, length)
    out.flush()


def memory(args: argparse.Namespace) -> dict:
    """Write one shard of labels in a fresh process for each precision; this one stays small, as peaks are inherited."""
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, WIDE_DIM), np.float32)
    results = []
    with tempfile.TemporaryDirectory() as where:
        save_vectors(Path(where) / "users.npy", MILLION, centres, 1 / TEMPERATURE, 1)
        save_vectors(Path(where) / "items.npy", MILLION, centres, 1.0, 2)
        for precision in ("fp32", "bf16"):
            command = [sys.executable, __file__, "--child", where, "--precision", precision]
            command += ["--users", str(args.users), "--threads", str(args.threads)]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            hours = result["wall"] / args.users * MILLION / 3600
            verdict = "under" if result["peak_bytes"] < LIMIT else "NOT UNDER"
            print(
                f"{precision}: 1M users x 1M items, {WIDE_DIM}-d, top {K}: peak {result['peak_bytes'] / 2**30:.2f} GiB"
                f" ({verdict} 4); {args.users:,} users in {result['wall']:.1f} s wall, {result['cpu']:.1f} s CPU, so"
                f" {hours:.1f} h for all of them on {args.threads} threads (extrapolated)"
            )
            results.append({"precision": precision, "hours_extrapolated": hours, "users_timed": args.users, **result})
    return {"rows": results}


def child(where: Path, args: argparse.Namespace) -> None:
    import torch

    from recdistill.labels import Layout
    from recdistill.shards import Share, write_shards
    from recdistill.teachers import encoder_lister
    from recdistill.topk import exact_topk
    from recdistill.types import quiet

    torch.set_num_threads(args.threads)
    users, items = (np.load(where / f"{side}.npy", mmap_mode="r") for side in ("users", "items"))
    exact_topk(users[:1], items[:2000], K, precision=args.precision)  # compiles
    layout = Layout(num_users=len(users), num_items=len(items), depth=K, shard_users=args.users)
    lister = encoder_lister(users, items, K, None, precision=args.precision)
    out = where / args.precision
    out.mkdir()
    wall, cpu = time.perf_counter(), time.process_time()
    write_shards(out, layout, lambda: lister, quiet, Share(1, layout.shards))  # the first shard of all
    result = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps({**result, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--users", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.users = args.users or (1024 if args.memory else 4096)
    if args.child:
        child(args.child, args)
        return
    result = memory(args) if args.memory else speed(args)
    if args.out:
        from benchmarks.timing import write

        write(args.out, result)


if __name__ == "__main__":
    main()
