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
from recdistill.data.order import stable_order
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
        places, again = _chosen(part, items, "first" if duplicates == "keep_first" else "last")
        repeats += part.height - len(places)
        if duplicates == "refuse" and len(examples) < EXAMPLES and again.height:
            key = [name for name in ("u", "i", "split") if name in again.columns]
            examples.append(again.group_by(key).agg(pl.len(), pl.col("row").max()).sort(key).head(EXAMPLES))
        kept = part.drop("row")[places]
        files.append(out / f"{directory.name}.arrow")
        kept.write_ipc(files[-1], compression="uncompressed", record_batch_size=kept.height)
        first = int(kept["u"][0])
        counted = np.bincount(kept["u"].to_numpy() - first)
        by_user[first : first + len(counted)] += counted
        by_item += np.bincount(kept["i"].to_numpy(), minlength=items)
        shutil.rmtree(directory)
    shown = pl.concat(examples).head(EXAMPLES) if examples else pl.DataFrame()
    return Unique(files, by_user, by_item, repeats, shown)


def _chosen(part: pl.DataFrame, items: int, keep: Literal["first", "last"]) -> tuple[Int, pl.DataFrame]:
    """Return the places of one row of every key, by user, time, item, part; and all rows of keys that repeat.

    Two sorts of one number each; only rows that repeat are put in order of time before one of them is chosen.
    """
    key = [name for name in ("u", "i", "split") if name in part.columns]
    pair = _pair(part, items)
    order = stable_order(pair)
    same = pair[order[1:]] == pair[order[:-1]]
    again = part.clear()
    if same.any():
        places = order[np.append(same, False) | np.insert(same, 0, False)]
        again = part[places].with_columns(place=places)
        ranked = again.sort([*key, *(["time"] if "time" in part.columns else []), "row"])
        left_out = np.zeros(part.height, bool)
        left_out[places] = True
        left_out[ranked.unique(key, keep=keep, maintain_order=True)["place"].to_numpy()] = False
        order = order[~left_out[order]]
    if "time" not in part.columns:
        return order, again
    return order[_by_time(part["u"].to_numpy()[order], part["time"].to_numpy()[order])], again


def _pair(part: pl.DataFrame, items: int) -> Int:
    """Return one number for each row, in order of user, item, part; a range has fewer than 2^29 users x 2^32 items."""
    number = (pl.col("u") - pl.col("u").min()).cast(pl.Int64) * items + pl.col("i")
    if "split" in part.columns:
        number = number * len(PARTS) + pl.col("split").to_physical()
    return part.select(number).to_series().to_numpy()


def _by_time(user: NDArray[np.uint32], time: Int) -> Int:
    """Return the order of rows, which are by user, by user and time, ties by place."""
    first, low = int(user[0]), int(time.min())
    step = 1 if (time % 1_000_000).any() else 1_000_000  # many logs count seconds
    span = (int(time.max()) - low) // step + 1
    if (int(user[-1]) - first + 1) * span >= INT64:
        return np.lexsort((time, user))
    return stable_order((user - np.uint32(first)).astype(np.int64) * span + (time - low) // step)
