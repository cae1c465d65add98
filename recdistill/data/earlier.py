"""A split log as it was a while ago: without the training interactions that came since."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.data.order import mixed
from recdistill.errors import DataError


def write_earlier(divided: Path, out: Path, *, lacks: float, seed: int) -> dict[str, Any]:
    """Write the split in `divided` to `out` without the share `lacks` of its training interactions; returns facts.

    Without the newest of the whole log where it has times, else without random ones, drawn by `seed`. The files are
    those that `split` writes; the validation and test parts stay as they are. DataError if nothing is left.
    """
    train = pl.read_ipc(divided / "train.arrow")
    kept = train.filter(before(train, lacks=lacks, seed=seed))
    if kept.is_empty():
        what = f"without {lacks:g} of {train.height} training interactions nothing is left of the day before"
        raise DataError(what, where="yesterday.lacks", fix="let it lack less")
    kept.write_ipc(out / "train.arrow", compression="uncompressed", record_batch_size=kept.height)
    for name in ("valid.arrow", "test.arrow", "events.json"):
        shutil.copyfile(divided / name, out / name)
    return {"rows": kept.height, "lacks": train.height - kept.height, "by": "time" if "time" in train else "chance"}


def before(train: pl.DataFrame, *, lacks: float, seed: int) -> NDArray[np.bool_]:
    """Return which rows of `train` [n] (user, item, time where it is known) were there before the share `lacks` came.

    Ties in time are broken by a hash of the pair.
    """
    if "time" in train.columns:
        user, item, time = (train[name].to_numpy() for name in ("user", "item", "time"))
        order = np.lexsort((mixed(user, item), time))
    else:
        order = np.random.Generator(np.random.Philox(seed)).permutation(train.height)
    kept = np.ones(train.height, bool)
    kept[order[train.height - round(lacks * train.height) :]] = False
    return kept
