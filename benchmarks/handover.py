"""What every peer is given: one log as numbers, and vectors of a model that was trained on it, as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recdistill.types import Interactions

USERS, ITEMS = 29_858, 40_981  # of a log that is made up where none is given: Gowalla's shape


def write_log(out: Path, folder: Path | None, *, share: int = 1) -> Path:
    """Write `train` and `test` [n,2] of (user, item), and the numbers of `users` and `items`; return the file.

    `folder` has train.parquet and test.parquet (user_id, item_id). Of the test part, every `share`-th user is kept.
    """
    if folder is None:
        print("no log given (DATA=folder): one is made up, of Gowalla's shape", file=sys.stderr)
    train, test = made_up() if folder is None else read(folder)
    users, items = int(max(train[:, 0].max(), test[:, 0].max())) + 1, int(max(train[:, 1].max(), test[:, 1].max())) + 1
    test = test[test[:, 0] % share == 0]
    np.savez(out, train=train, test=test, users=users, items=items)
    return out


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    import polars as pl

    parts = [pl.read_parquet(folder / f"{part}.parquet", columns=["user_id", "item_id"]) for part in ("train", "test")]
    whole = pl.concat(parts)
    ranks = whole.select(pl.all().rank("dense").cast(pl.Int64) - 1).to_numpy()
    cut = parts[0].height
    return distinct(ranks[:cut]), distinct(ranks[cut:])


def made_up(users: int = USERS, items: int = ITEMS, mean: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Return a log, of Gowalla's shape by default, items as popular as 1 / rank: for speeds alone."""
    rng = np.random.default_rng(0)
    counts = np.minimum(8 + rng.geometric(1 / (mean - 8), users), 800)
    chance = 1 / (10 + np.arange(items))
    drawn = rng.choice(items, counts.sum(), p=chance / chance.sum())
    rows = distinct(np.stack([np.repeat(np.arange(users), counts), rng.permutation(items)[drawn]], axis=1))
    test = rng.random(len(rows)) < 0.2
    return rows[~test], rows[test]


def distinct(rows: np.ndarray) -> np.ndarray:
    return np.unique(rows, axis=0)


def interactions(rows: np.ndarray, users: int) -> Interactions:
    """Return (user, item) rows, sorted by user, as the package holds them."""
    from recdistill.types import Interactions

    counts = np.bincount(rows[:, 0], minlength=users)
    return Interactions(indptr=np.concatenate([[0], counts.cumsum()]), items=np.ascontiguousarray(rows[:, 1]))
