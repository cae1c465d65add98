"""What a GPU does in a training step and under label scoring, beside what it can do: bandwidth, FLOP/s, steps a second.

    python benchmarks/gpu.py                  make gpu-bench: one line, and exit 0, where there is no GPU
    python benchmarks/gpu.py --device cpu     small sizes on the CPU: tries the lines, its figures say nothing
    python benchmarks/gpu.py --device cpu --ahead    what drawing batches ahead gives there, peers in turn

Ceilings are measured in the same run (a copy, a square bf16 product); the card's own are its data sheet's. Lists of
labels are made on the CPU, whatever the device: the last two rows of products are what a tile of them would take here.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")
logging.getLogger("torchrec").setLevel(logging.ERROR)

CARDS = {"H200": (4.8e12, 989e12), "H100": (3.35e12, 989e12), "A100": (2.0e12, 312e12), "L4": (0.3e12, 121e12)}
ROUNDS = 7


def seconds(device: str, work: Callable[[], Any], repeat: int) -> float:
    """Return the median seconds of a call of `work`, of ROUNDS rounds of `repeat` calls, after one that is not read."""
    import torch

    def settled() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    found = []
    for _ in range(ROUNDS + 1):
        start = settled()
        for _ in range(repeat):
            work()
        found.append((settled() - start) / repeat)
    return statistics.median(found[1:])


def copied(device: str, size: int) -> float:
    """Return the bytes a second that a copy of `size` bytes reads and writes."""
    import torch

    source = torch.zeros(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(device, lambda: target.copy_(source), 5)


def looked_up(device: str, rows: int, dim: int, batch: int, optimizer: Any) -> tuple[float, float]:
    """Return the bytes a second of a lookup, and of a step: a lookup, its backward pass and the fused update in it.

    Counted is what cannot be saved: of a lookup the rows read and written out; of an update the gradient and the row
    read, the row written, and its moment, which Adagrad has for every number and row-wise Adagrad one a row.
    """
    import torch
    from torch import nn

    from recdistill.models.tables import Table, distribute
    from recdistill.world import world

    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = Table("item", rows, dim)

        def forward(self, asked: torch.Tensor) -> torch.Tensor:
            return self.table(asked)

    with world(device=device) as joined:
        how = {"layout": "auto", "optimizer": optimizer, "lr": 0.01, "dense_lr": 0.01, "weight_decay": 0.0}
        model = distribute(Summed(), joined, init_std=0.1, seed=0, **how)
        asked = torch.randperm(rows, device=device)[:batch]  # each row once, so that no update waits for another
        one = torch.ones(batch, dim, device=device)

        def forward() -> None:
            with torch.no_grad():
                model.module(asked)

        def step() -> None:
            model.optimizer.zero_grad()
            model.module(asked).backward(one)

        row = batch * dim * 4
        moment = 2 * row if optimizer == "adagrad" else 2 * batch * 4
        return 2 * row / seconds(device, forward, 10), (2 * row + 3 * row + moment) / seconds(device, step, 10)


def products(device: str, side: int, users: int, items: int, dim: int, k: int) -> dict[str, float]:
    """Return the FLOP/s of a square bf16 product, of a tile of scores, and of the tile with its top-k."""
    import torch

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device).bfloat16()

    left, right, one, other = made(side, side), made(side, side), made(users, dim), made(items, dim)
    work = 2.0 * users * items * dim
    return {
        "bf16 product, square": 2.0 * side**3 / seconds(device, lambda: left @ right, 3),
        "bf16 scores of a tile": work / seconds(device, lambda: one @ other.T, 3),
        f"the same, and the best {k} of each row": work / seconds(device, lambda: (one @ other.T).topk(k), 3),
    }


def trained(device: str, prefetch: int, users: int, items: int, batch: int, steps: int) -> float:
    """Return the positives a second of a whole training of matrix factorisation, drawing included."""
    import polars as pl

    from recdistill.fit import fit
    from recdistill.models.spec import MFSpec, TrainSpec
    from recdistill.types import Dataset, Interactions, quiet
    from recdistill.world import world

    rng, each = np.random.default_rng(0), 20
    rows = (rng.integers(0, items, (users, 1)) + rng.permutation(items)[:each]) % items

    def csr(part: Any) -> Interactions:
        indptr = np.arange(users + 1, dtype=np.int64) * part.shape[1]
        return Interactions(indptr=indptr, items=np.sort(part, axis=1).reshape(-1))

    parts = {"train": csr(rows), "valid": csr(rows[:, :0]), "test": csr(rows[:, :0])}
    data = Dataset(user_ids=pl.Series(range(users)), item_ids=pl.Series(range(items)), **parts)
    epochs = max(1, steps * batch // (users * each))
    settings = TrainSpec(epochs=epochs, batch=batch, negatives=512, lr=0.1, evaluate_every=epochs)
    with tempfile.TemporaryDirectory() as folder, world(device=device) as joined:
        how = {"name": "bench", "world": joined, "log": quiet, "prefetch": prefetch, "checkpoint_every": 10**9}
        start = time.perf_counter()
        fit(data, MFSpec(dim=64), settings, Path(folder), **how)
        return epochs * users * each / (time.perf_counter() - start)


def overlap(device: str) -> None:
    """Print what drawing ahead does to the time of a training of one thread, and to the work of its process."""
    import torch

    from benchmarks.timing import interleaved, median, spread

    torch.set_num_threads(1)
    peers = {d: lambda d=d: trained(device, d, 10_000, 20_000, 4096, 100) for d in (0, 1, 3)}
    found = interleaved(peers, 4)
    for depth, rounds in found.items():
        wall = [theirs.wall / ours.wall for theirs, ours in zip(found[0], rounds, strict=True)]
        cpu = [theirs.cpu / ours.cpu for theirs, ours in zip(found[0], rounds, strict=True)]
        said = f"{median(wall):.2f} ({spread(wall):.0%}) times as fast"
        print(f"{depth} batches ahead: {said}, {1 / median(cpu):.2f} ({spread(cpu):.0%}) of the CPU seconds")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--ahead", action="store_true")
    args = parser.parse_args()
    device = args.device
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        print("no GPU here: skipped")
        return 0
    if args.ahead:
        overlap(device)
        return 0
    small = device == "cpu"
    name = "cpu, small sizes: these figures say nothing" if small else torch.cuda.get_device_name(0)
    known = next((peaks for card, peaks in CARDS.items() if card in name), (None, None))
    print(f"{name}, torch {torch.__version__}")

    copy = copied(device, 2**24 if small else 2**31)
    show("copy", copy, "GB/s", 1e9, copy, known[0])
    rows, batch = (20_000, 4096) if small else (10_000_000, 1_000_000)
    for optimizer in ("sgd", "rowwise_adagrad", "adagrad"):
        lookup, step = looked_up(device, rows, 64, batch, optimizer)
        show(f"lookup, {optimizer}", lookup, "GB/s", 1e9, copy, known[0])
        show(f"lookup, backward, fused {optimizer}", step, "GB/s", 1e9, copy, known[0])

    found = products(device, *((256, 64, 2048, 64) if small else (16_384, 8192, 40_960, 256)), 100)
    for what, rate in found.items():
        show(what, rate, "TFLOP/s", 1e12, found["bf16 product, square"], known[1])

    shape = (2000, 1000, 1024, 80) if small else (30_000, 41_000, 8192, 400)
    slow = trained("cpu", 0, *shape)
    for where, depth in ((device, 0), (device, 2), ("cpu", 2)):
        rate = trained(where, depth, *shape)
        print(
            f"{f'training on {where}, {depth} batches ahead':45} {rate / 1e3:10.1f} k/s   {rate / slow:6.2f} of cpu, 0"
        )
    return 0


def show(what: str, rate: float, unit: str, scale: float, ceiling: float, card: float | None) -> None:
    sheet = "" if card is None else f"   {rate / card:5.0%} of the card's"
    print(f"{what:45} {rate / scale:10.1f} {unit:8} {rate / ceiling:5.0%} of what was measured{sheet}")


if __name__ == "__main__":
    sys.exit(main())
