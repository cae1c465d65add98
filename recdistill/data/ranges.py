"""A log of any size by ranges of users: each range is sorted and made unique in memory, one after the other.

Users are ranged in order of their ids, so the ranges one after the other are the whole in order, wherever they are cut.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.data.log import PARTS
from recdistill.data.mapped import columns
from recdistill.types import Int

ROWS = 1 << 21  # of a range, but for its last user: about 0.5 GiB while it is sorted
SPLIT = pl.Enum(sorted(PARTS))  # one byte a row, and the order of the text
EXAMPLES = 3
INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Unique:
    """A log with every (user, item, part) once, as files of codes in order of user, time, item, part."""

    files: list[Path]
    users: Int  # [U] rows of each user
    items: Int  # [I] rows of each item
    repeats: int  # rows that are left out
    examples: pl.DataFrame  # the first of them where none may be: u, i, (split,) len, row

    def pairs(self) -> Iterator[tuple[NDArray[np.integer], NDArray[np.integer]]]:
        """Yield the codes of users and items, file by file, as views of the mapped files."""
        for file in self.files:
            found = columns(file, "u", "i")
            yield found["u"], found["i"]


def write_ranges(rows: pl.LazyFrame, users: pl.DataFrame, items: pl.DataFrame, out: Path) -> list[Path]:
    """Write `rows` (row, user, item, ...) with codes in place of ids, a directory below `out` for each range of users.

    Returns these in order. `users` and `items` are the vocabularies of `rows`. Ids are encoded by join, so that
    vocabularies never become Python objects, and memory is that of the vocabularies.
    """
    start = pl.col("count").cum_sum() - pl.col("count")
    coded = users.with_row_index("u").select("u", user="user_id", range=(start // ROWS).cast(pl.UInt32))
    rows = rows.join(coded.lazy(), on="user").drop("user")
    rows = rows.join(items.with_row_index("i").select("i", item="item_id").lazy(), on="item").drop("item")
    if "split" in rows.collect_schema():
        rows = rows.with_columns(pl.col("split").cast(SPLIT))
    rows.sink_ipc(pl.PartitionBy(out, key="range", include_key=False), mkdir=True)
    return sorted(out.iterdir(), key=lambda path: int(path.name.removeprefix("range=")))


def unique_rows(
    ranges: list[Path], users: int, items: int, out: Path, duplicates: Literal["refuse", "keep_last", "keep_first"]
) -> Unique:
    """Return the rows of `write_ranges` with every (user, item, part) once, as files in directory `out`.

    `users` and `items` are how many there are. Of repeats the last is the latest, and of equal times the lowest in
    the log. Memory is that of one range; each is removed when it is done.
    """
    by_user, by_item = np.zeros(users, np.int64), np.zeros(items, np.int64)
    files, repeats, examples = list[Path](), 0, list[pl.DataFrame]()
    for directory in ranges:
        part = pl.scan_ipc(directory, hive_partitioning=False).collect()
        kept, again = _unique(part, items, "first" if duplicates == "keep_first" else "last")
        repeats += part.height - kept.height
        if duplicates == "refuse" and len(examples) < EXAMPLES and again.height:
            key = [name for name in ("u", "i", "split") if name in again.columns]
            examples.append(again.group_by(key).agg(pl.len(), pl.col("row").max()).sort(key).head(EXAMPLES))
        kept = _ordered(kept.drop("row"), items)
        files.append(out / f"{directory.name}.arrow")
        kept.write_ipc(files[-1], compression="uncompressed", record_batch_size=kept.height)
        first = int(kept["u"][0])
        counted = np.bincount(kept["u"].to_numpy() - first)
        by_user[first : first + len(counted)] += counted
        by_item += np.bincount(kept["i"].to_numpy(), minlength=items)
        shutil.rmtree(directory)
    shown = pl.concat(examples).head(EXAMPLES) if examples else pl.DataFrame()
    return Unique(files, by_user, by_item, repeats, shown)


def _unique(part: pl.DataFrame, items: int, keep: Literal["first", "last"]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return `part` with every key once, in any order, and all rows of the keys that repeat.

    Only rows that repeat are put in order of time: they are found by one sort of one number.
    """
    key = [name for name in ("u", "i", "split") if name in part.columns]
    number = _pair(part, items)
    order = number.arg_sort().to_numpy()
    ordered = number.to_numpy()[order]
    same = ordered[1:] == ordered[:-1]
    if not same.any():
        return part, part.clear()
    repeated = np.zeros(part.height, bool)
    repeated[order[1:][same]] = repeated[order[:-1][same]] = True
    again = part.filter(repeated)
    chosen = again.sort([*key, *(["time"] if "time" in part.columns else []), "row"])
    chosen = chosen.unique(key, keep=keep, maintain_order=True)
    return pl.concat([part.filter(~repeated), chosen]), again


def _pair(part: pl.DataFrame, items: int) -> pl.Series:
    """Return one number for each row, in order of user, item, part; a range has fewer than 2^29 users x 2^32 items."""
    first = part["u"].min()
    number = (pl.col("u") - first).cast(pl.Int64) * items + pl.col("i")
    if "split" in part.columns:
        number = number * len(PARTS) + pl.col("split").to_physical()
    return part.select(number).to_series()


def _ordered(part: pl.DataFrame, items: int) -> pl.DataFrame:
    """Return `part` by user, time, item, part: by one number for the first two where it holds them."""
    rest = [name for name in ("i", "split") if name in part.columns]
    if "time" not in part.columns:
        return part.select(pl.all(), _pair(part, items).alias("key")).sort("key").drop("key")
    user, time = part["u"].to_numpy(), part["time"].to_numpy()
    first, low = int(user.min()), int(time.min())
    step = 1 if (time % 1_000_000).any() else 1_000_000  # many logs count seconds
    span = (int(time.max()) - low) // step + 1
    if (int(user.max()) - first + 1) * span >= INT64:
        return part.sort(["u", "time", *rest])
    key = (pl.col("u") - first).cast(pl.Int64) * span + (pl.col("time") - low) // step
    return part.with_columns(key.alias("key")).sort(["key", *rest]).drop("key")
