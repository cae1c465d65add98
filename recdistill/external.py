"""A teacher of somebody else's: its scores as a Parquet file of (user_id, item_id, score), joined to our rows."""

from __future__ import annotations

import numpy as np
import polars as pl

from recdistill.data.files import require, scan_table
from recdistill.errors import DataError
from recdistill.models.spec import ExternalSpec
from recdistill.teachers import Lister
from recdistill.topk import TopK
from recdistill.types import Dataset, Int, Interactions


def read_external(spec: ExternalSpec) -> pl.LazyFrame:
    """Return an external teacher's rows as user_id, item_id, score; DataError if the file breaks its contract."""
    path = spec.path
    frame = scan_table(path, format="parquet")
    require(frame, [spec.user, spec.item, spec.score], path)
    frame = frame.select(
        pl.col(spec.user).alias("user_id"), pl.col(spec.item).alias("item_id"), pl.col(spec.score).alias("score")
    )
    kind = frame.collect_schema()["score"]
    if not kind.is_numeric():
        raise DataError(f"scores of type {kind}", where=f"{path}: column {spec.score!r}", fix="give them as numbers")
    for name, column in (("user_id", spec.user), ("item_id", spec.item), ("score", spec.score)):
        bad = pl.col(name).is_null()
        if name == "score":
            bad = bad | ~pl.col(name).cast(pl.Float64).is_finite()
        rows = frame.with_row_index("row").filter(bad).head(3).collect()
        if rows.height:
            count = int(frame.select(bad.sum()).collect().item())
            what = f"{count} rows are null or not finite, first in rows {rows['row'].to_list()}"
            raise DataError(what, where=f"{path}: column {column!r}", fix="drop or mend those rows")
    twice = frame.group_by("user_id", "item_id").len().filter(pl.col("len") > 1).sort("user_id", "item_id")
    found = twice.head(3).collect()
    if found.height:
        what = f"pairs that are scored more than once, such as {found.rows()[0][:2]}"
        raise DataError(what, where=path, fix="keep one score for each (user, item)")
    return frame


def external_lister(
    spec: ExternalSpec, dataset: Dataset, depth: int, seen: Interactions | None
) -> tuple[Lister, dict[str, int]]:
    """Return the lists an external teacher's file gives, and how much of it joined the data's users and items.

    Raises DataError if the file breaks its contract or nothing of it joins.
    """
    frame = read_external(spec)
    users = dataset.user_ids.alias("user_id").to_frame().with_row_index("user").cast({"user": pl.Int64}).lazy()
    items = dataset.item_ids.alias("item_id").to_frame().with_row_index("item").cast({"item": pl.Int64}).lazy()
    for name, ids in (("user_id", dataset.user_ids), ("item_id", dataset.item_ids)):
        theirs = frame.collect_schema()[name]
        if theirs.is_integer() != ids.dtype.is_integer() or not (theirs.is_integer() or theirs == ids.dtype):
            what = f"ids of type {theirs} where the log has {ids.dtype}"
            raise DataError(what, where=f"{spec.path}: {name}", fix="write them as the log does")
    joined = frame.join(users, on="user_id").join(items, on="item_id").select("user", "item", "score")
    total = int(frame.select(pl.len()).collect().item())
    rows = joined.collect().sort("user", "score", "item", descending=[False, True, False])
    if rows.height == 0:
        what = f"none of its {total} rows has both a user and an item of the log"
        raise DataError(what, where=spec.path, fix="check that its ids are those of the log")
    if seen is not None:
        own = pl.DataFrame({"user": seen.users(), "item": np.array(seen.items)})
        rows = rows.join(own, on=["user", "item"], how="anti", maintain_order="left")
    joined_rows = {"rows": total, "rows_joined": rows.height}
    user, item = rows["user"].to_numpy(), rows["item"].to_numpy()
    score = rows["score"].cast(pl.Float64).to_numpy()
    starts = np.searchsorted(user, np.arange(dataset.num_users + 1))

    def lister(wanted: Int) -> TopK:
        import torch

        found = np.full((len(wanted), depth), -1, np.int64)
        scores = np.full((len(wanted), depth), -np.inf, np.float32)
        residual = np.full(len(wanted), -np.inf, np.float32)
        sizes = starts[wanted + 1] - starts[wanted]
        place = np.arange(depth)
        kept = place < np.minimum(sizes, depth)[:, None]
        at = (starts[wanted][:, None] + place)[kept]
        found[kept], scores[kept] = item[at], score[at]
        for row in np.flatnonzero(sizes > depth):  # only lists that are longer than what is kept leave a rest
            u = wanted[row]
            residual[row] = np.logaddexp.reduce(score[starts[u] + depth : starts[u + 1]])
        return TopK(torch.from_numpy(scores), torch.from_numpy(found), torch.from_numpy(residual))

    return lister, joined_rows
