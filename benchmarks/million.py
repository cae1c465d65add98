"""Make a log with a catalogue of a million items, for the surface of docs/latency.md: tastes planted, times in order.

    python benchmarks/million.py data/million           10,000 users, a million items, 5.2M rows, in some seconds
    recdistill run benchmarks/million.yaml

Every user likes three of 256 clusters of items, and one event in seven is of any; within a cluster items are as popular
as Zipf's law has it. An item that nobody took is not in the log, so that there are fewer than are asked for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

CLUSTERS, LIKED, STRAY, ZIPF = 256, 3, 1 / 7, 0.8
START, SPAN = 1_700_000_000, 180 * 86_400  # seconds


def million(users: int, items: int, events: int, seed: int) -> dict[str, np.ndarray]:
    """Return the columns of a log; the same arguments give the same rows."""
    rng = np.random.default_rng(seed)
    size = items // CLUSTERS
    liked = rng.integers(CLUSTERS, size=(users, LIKED))
    user = np.repeat(np.arange(users), events)
    cluster = liked[user, rng.integers(LIKED, size=len(user))]
    stray = rng.random(len(user)) < STRAY
    cluster[stray] = rng.integers(CLUSTERS, size=int(stray.sum()))
    rank = (size + 1) ** (1 - ZIPF) - 1  # of ranks up to `size`, each as often as 1 / rank ** ZIPF
    rank = np.minimum((1 + rng.random(len(user)) * rank) ** (1 / (1 - ZIPF)) - 1, size - 1).astype(np.int64)
    item = rng.permutation(CLUSTERS * size)[cluster * size + rank]  # an id says nothing about its item
    once = np.unique(np.stack([user, item]), axis=1)
    when = START + rng.integers(SPAN, size=once.shape[1])
    return {"user_id": once[0], "item_id": once[1], "timestamp": when}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=1_230_000)
    parser.add_argument("--events", type=int, default=600, help="of each user, before those that repeat are left out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import polars as pl

    made = pl.DataFrame(million(args.users, args.items, args.events, args.seed))
    args.out.mkdir(parents=True, exist_ok=True)
    made.write_parquet(args.out / "interactions.parquet")
    print(f"{made.height:,} rows, {made['user_id'].n_unique():,} users, {made['item_id'].n_unique():,} items")


if __name__ == "__main__":
    main()
