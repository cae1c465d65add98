"""Where the time of a training step goes: a factorisation with either loss.

    python benchmarks/step.py --data data/gowalla [--batch 8192] [--dim 64] [--out runs/step.json]

The log is that of DIR/train.parquet (user_id, item_id); one thread. The share of sampling is measured without the
profiler, those of the operations with it. `watched` is the CPU time of steps whose losses are added up and looked
after, as a training does, over that of the same steps without: the median of rounds that take turns, and their
quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

STEPS, ROUNDS, WARM, TURNS = 30, 3, 5, 20
KINDS = {
    "products of matrices": ("aten::mm", "aten::bmm", "aten::addmm"),
    "lookups": ("forward_cpu", "bounds_check", "[lookup]", "lookup_rowwise", "splits_dist", "output_dist", "all2all"),
    "update of tables": ("backward_codegen", "SplitLookupFunction"),
    "copies": ("aten::cat", "aten::copy_", "aten::index", "aten::fill_", "aten::clone", "aten::gather"),
}


def log_of(folder: Path) -> Any:
    import polars as pl

    from recdistill.types import Interactions

    rows = pl.read_parquet(folder / "train.parquet", columns=["user_id", "item_id"]).unique()
    rows = rows.with_columns(pl.all().rank("dense").cast(pl.Int64) - 1).sort("user_id", "item_id")
    counts = np.bincount(rows["user_id"].to_numpy())
    return Interactions(indptr=np.concatenate([[0], counts.cumsum()]), items=rows["item_id"].to_numpy())


def step_of(train: Any, alone: Any, *, loss: str, dim: int, batch: int) -> tuple[Any, Any]:
    """Return the function from a step to its batch, and the one that learns from a batch."""
    import torch

    from recdistill.data.batches import Sampler, make_batches
    from recdistill.data.sequences import Sequences
    from recdistill.distill.objective import Objective
    from recdistill.finite import added
    from recdistill.models.encoders import MF
    from recdistill.models.tables import Table, distribute

    items, own = int(train.items.max()) + 1, loss == "bpr"
    model = MF(Table, num_users=train.num_users, num_items=items, dim=dim, space="cosine", temperature=0.1)
    how = {"layout": "auto", "optimizer": "rowwise_adagrad", "lr": 0.1, "dense_lr": 1e-3, "weight_decay": 0.0}
    ready = distribute(Objective(model, loss=loss, num_items=items), alone, init_std=0.1, seed=1, **how)
    sampler = Sampler(
        train=train,
        num_items=items,
        sequences=Sequences.of(train),
        batch=batch,
        negatives=1 if own else 512,
        own_negatives=own,
        history=0,
        seed=1,
    )

    def learn(drawn: Any, totals: Any = None) -> Any:
        losses = ready.module(drawn)
        ready.set_rate(1.0)
        ready.optimizer.zero_grad()
        each = torch.stack(list(losses.values()))
        each.sum().backward()
        ready.optimizer.step()
        return added(totals[0], losses, each.detach(), step=0, before={}) if totals else None

    return make_batches(sampler, alone), learn


def shares(batch: Any, learn: Any) -> dict[str, float]:
    """Return CPU milliseconds a step, and the share of each kind of operation."""
    from torch.profiler import ProfilerActivity, profile

    for step in range(WARM):
        learn(batch(step))
    spent = []
    for first in range(WARM, WARM + ROUNDS * STEPS, STEPS):
        start = time.process_time()
        drawn = [batch(first + step) for step in range(STEPS)]
        middle = time.process_time()
        for one in drawn:
            learn(one)
        spent.append((time.process_time() - start, middle - start))
    whole, drawing = (statistics.median(times) for times in zip(*spent, strict=True))
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for one in drawn:
            learn(one)
    found: Counter[str] = Counter()
    for event in seen.key_averages():
        kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)), "other operations")
        found[kind] += event.self_cpu_time_total
    rest = (1 - drawing / whole) / sum(found.values())
    return {"ms": whole * 1e3 / STEPS, "sampling": drawing / whole, **{k: v * rest for k, v in found.items()}}


def watched(batch: Any, learn: Any) -> dict[str, float]:
    """Return what it costs to add losses up and to look after them, as a ratio of CPU time."""
    from recdistill.finite import means
    from recdistill.world import World

    drawn, ratios = [batch(step) for step in range(STEPS)], []

    def plain() -> None:
        for one in drawn:
            learn(one)

    def summed() -> None:
        totals = None
        for one in drawn:
            totals = learn(one, (totals,))
        means(totals, World(), where="here")  # pyrefly: ignore

    for turn in range(TURNS + 1):
        spent = {}
        for work in (plain, summed) if turn % 2 else (summed, plain):
            start = time.process_time()
            work()
            spent[work] = time.process_time() - start
        ratios.append(spent[summed] / spent[plain])
    low, middle, high = statistics.quantiles(ratios[1:], n=4)
    return {"watched": middle, "low": low, "high": high}


def main() -> None:
    from benchmarks.timing import machine, write
    from recdistill.world import world

    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--data", type=Path, required=True)
    asked.add_argument("--batch", type=int, default=8192)
    asked.add_argument("--dim", type=int, default=64)
    asked.add_argument("--out", type=Path, default=Path("runs/step.json"))
    args = asked.parse_args()
    train, rows = log_of(args.data), {}
    with world(device="cpu", threads=1) as alone:
        for loss in ("bpr", "softmax"):
            works = step_of(train, alone, loss=loss, dim=args.dim, batch=args.batch)
            found, cost = shares(*works), watched(*works)
            rows[loss] = found | cost
            parts = sorted(((k, v) for k, v in found.items() if k != "ms"), key=lambda part: -part[1])
            told = ", ".join(f"{name} {share:.0%}" for name, share in parts)
            print(f"{loss:8} {args.batch / found['ms']:5.0f}k samples a CPU-second: {told}", flush=True)
            print(f"{'':8} watched {cost['watched']:.4f} ({cost['low']:.4f} to {cost['high']:.4f})", flush=True)
    write(args.out, {"machine": machine(1), "batch": args.batch, "dim": args.dim, "rows": rows})


if __name__ == "__main__":
    main()
