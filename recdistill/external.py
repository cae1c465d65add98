"""A teacher of somebody else's: its scores as a Parquet file of (user_id, item_id, score), joined to our rows.

What its scores mean is `space`. They become scores that rise with what is better: a logit stays as it is, a
probability becomes its logit, and a rank, of which smaller is better, is negated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recdistill.candidates import sampled
from recdistill.coverage import share
from recdistill.data.files import require, scan_table
from recdistill.errors import DataError
from recdistill.labels import Lister, Lists
from recdistill.models.spec import ExternalSpec
from recdistill.types import Dataset, Int, Interactions

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.scoring import Scorer

CLIP = 1e-9  # a probability is taken as no nearer to 0 or 1, whose logits are infinite: between -20.7 and 20.7
FEW = 0.01  # a share that no join which went right should stay below


def read_external(spec: ExternalSpec) -> pl.LazyFrame:
    """Return an external teacher's rows as user_id, item_id, score; DataError if the file breaks its contract.

    The score is one that rises, whatever space the file is in.
    """
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
        _refuse(frame, bad, "are null or not finite", f"{path}: column {column!r}", "drop or mend those rows")
    if spec.space == "probability":
        outside = ~pl.col("score").is_between(0, 1)
        fix = "set teacher.model.space to logit or rank if that is what they are"
        _refuse(frame, outside, "are no probabilities, from 0 to 1", f"{path}: column {spec.score!r}", fix)
    twice = frame.group_by("user_id", "item_id").len().filter(pl.col("len") > 1).sort("user_id", "item_id")
    found = twice.head(3).collect()
    if found.height:
        what = f"pairs that are scored more than once, such as {found.rows()[0][:2]}"
        raise DataError(what, where=path, fix="keep one score for each (user, item)")
    score = pl.col("score").cast(pl.Float64)
    chance = score.clip(CLIP, 1 - CLIP)
    rising = {"logit": score, "rank": -score, "probability": (chance / (1 - chance)).log()}
    return frame.with_columns(rising[spec.space].alias("score"))


def _refuse(frame: pl.LazyFrame, bad: pl.Expr, why: str, where: str, fix: str) -> None:
    """Raise DataError, which names the first of them, if some rows are `bad`."""
    rows = frame.with_row_index("row").filter(bad).head(3).collect()
    if rows.height:
        count = int(frame.select(bad.sum()).collect().item())
        raise DataError(f"{count} rows {why}, first in rows {rows['row'].to_list()}", where=where, fix=fix)


def joined_rows(spec: ExternalSpec, dataset: Dataset) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return the file's rows as user, item, score, each user's best first, and how much of it joined the data.

    Raises DataError if the file breaks its contract or (next to) nothing of it joins.
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
    rows = joined.collect().sort("user", "score", "item", descending=[False, True, False])
    report = _joined(frame, users, items, rows.height)
    _enough(report, rows, dataset, spec.path)
    return rows, report


def external_lister(
    spec: ExternalSpec,
    dataset: Dataset,
    depth: int,
    seen: Interactions | None,
    *,
    rest: int = 0,
    scale: float = 1.0,
    shift: float = 0.0,
) -> tuple[Lister, dict[str, Any]]:
    """Return the lists an external teacher's file gives, and how much of it joined the data's users and items.

    What it scored is what its file holds; `rest` samples a user are kept of what is outside the list. Its scores
    become scale * score + shift. Raises DataError as `joined_rows` does.
    """
    rows, report = joined_rows(spec, dataset)
    if seen is not None:
        own = pl.DataFrame({"user": seen.users(), "item": np.array(seen.items)})
        rows = rows.join(own, on=["user", "item"], how="anti", maintain_order="left")
    report["rows_seen"] = report["rows_joined"] - rows.height
    user, item = rows["user"].to_numpy(), rows["item"].to_numpy()
    score = (rows["score"].to_numpy() * scale + shift).astype(np.float64)
    starts = np.searchsorted(user, np.arange(dataset.num_users + 1))

    def lister(wanted: Int) -> Lists:
        sizes = starts[wanted + 1] - starts[wanted]
        place = np.arange(depth)
        kept = place < np.minimum(sizes, depth)[:, None]
        at = (starts[wanted][:, None] + place)[kept]
        lists = _empty(len(wanted), depth, rest)
        lists.items[kept], lists.scores[kept] = item[at], score[at]
        for row in np.flatnonzero(sizes > depth):  # only lists that are longer than what is kept leave a rest
            u = wanted[row]
            tail = slice(starts[u] + depth, starts[u + 1])
            lists.residual[row] = np.logaddexp.reduce(score[tail])
            if lists.rest_items is not None and lists.rest_scores is not None and lists.rest_logq is not None:
                certain = np.zeros((1, sizes[row] - depth), np.float32)
                scores = score[None, tail].astype(np.float32)
                found = sampled(item[None, tail], scores, certain, wanted[[row]], rest, dataset.num_items)
                lists.rest_items[row], lists.rest_scores[row], lists.rest_logq[row] = (part[0] for part in found)
        return lists

    return lister, report


def external_scorer(spec: ExternalSpec, dataset: Dataset) -> Scorer:
    """Return the scores of the file, -inf where it has none; DataError as of `joined_rows`."""
    import torch

    rows, _ = joined_rows(spec, dataset)
    item, score = (torch.from_numpy(rows[name].to_numpy().copy()) for name in ("item", "score"))
    starts = np.searchsorted(rows["user"].to_numpy(), np.arange(dataset.num_users + 1))

    def scorer(users: Int, items: Tensor | None) -> Tensor:
        found = torch.full((len(users), dataset.num_items), -torch.inf)
        for row, user in enumerate(users):
            own = slice(int(starts[user]), int(starts[user + 1]))
            found[row, item[own]] = score[own].float()
        return found if items is None else found.gather(1, items.clamp(min=0))

    return scorer


def _empty(users: int, depth: int, rest: int) -> Lists:
    nothing = np.full((users, depth), -1, np.int64), np.full((users, depth), -np.inf, np.float32)
    lists = Lists(*nothing, residual=np.full(users, -np.inf, np.float32))
    if not rest:
        return lists
    return lists._replace(
        rest_items=np.full((users, rest), -1, np.int64),
        rest_scores=np.full((users, rest), -np.inf, np.float32),
        rest_logq=np.zeros((users, rest), np.float32),
    )


def _joined(frame: pl.LazyFrame, users: pl.LazyFrame, items: pl.LazyFrame, rows_joined: int) -> dict[str, Any]:
    """Return how many rows, users and items the file has, and how many of them the data knows."""
    found: dict[str, Any] = {"rows": int(frame.select(pl.len()).collect().item()), "rows_joined": rows_joined}
    for name, column, known in (("users", "user_id", users), ("items", "item_id", items)):
        theirs = frame.select(column).unique()
        found[name] = int(theirs.select(pl.len()).collect().item())
        found[f"{name}_joined"] = int(theirs.join(known, on=column, how="semi").select(pl.len()).collect().item())
    return found | {f"{n}_joined_share": share(found[f"{n}_joined"], found[n]) for n in ("rows", "users", "items")}


def _enough(report: Mapping[str, Any], rows: pl.DataFrame, dataset: Dataset, path: str) -> None:
    """Raise DataError if next to nothing joins: few of the file's rows, and few of the users to be taught.

    A file of a whole company may rightly hold little of this log, and a log may have users that the file has not.
    """
    what = f"none of its {report['rows']} rows has both a user and an item of the log"
    trained = np.diff(dataset.train.indptr) > 0
    covered = int(trained[rows["user"].unique().to_numpy()].sum())
    if rows.height:
        few = report["rows_joined_share"] < FEW and share(covered, int(trained.sum())) < FEW
        what = f"{rows.height} of its {report['rows']} rows have both a user and an item of the log, and {covered} of "
        what += f"{int(trained.sum())} users with training data have any: less than {FEW:.0%} of both"
        if not few:
            return
    raise DataError(what, where=path, fix="check that its ids are those of the log")
