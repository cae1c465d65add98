"""How far a night's data lies from the champion's: who is new, what is taken, how much came in; figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Counts = NDArray[np.int64]
DRAWS = 10  # over whose mean the divergence is known better than it changes from one day to the next


def divergence(then: Counts, now: Counts) -> float:
    """Return the Jensen-Shannon divergence, in bits, of the shares that `then` [n] and `now` [n] count.

    0 of equal shares, 1 of shares that nothing has in common (Lin, 1991). 0 where one of them counts nothing.
    """
    if not then.sum() or not now.sum():
        return 0.0
    p, q = (np.asarray(counts, np.float64) / counts.sum() for counts in (then, now))
    middle = (p + q) / 2
    found = 0.0
    for side in (p, q):
        there = side > 0
        found += float(np.sum(side[there] * np.log2(side[there] / middle[there]))) / 2
    return min(max(found, 0.0), 1.0)  # rounding reaches beyond both ends


def moved(then: Counts, now: Counts) -> float:
    """Return how far the shares that `now` [n] counts lie from those of `then` [n], beyond what chance does.

    It is `divergence`, less what as many draws from the shares of then have of it on average, as a share of what is
    left to 1: about 0 where nothing changed, however few `now` counts, and 1 where nothing is in common.
    """
    if not then.sum() or not now.sum():
        return 0.0
    rng, shares = np.random.default_rng(0), then / then.sum()
    by_chance = float(np.mean([divergence(then, rng.multinomial(now.sum(), shares)) for _ in range(DRAWS)]))
    return max((divergence(then, now) - by_chance) / (1 - by_chance), 0.0)


def beside(then: pl.DataFrame, now: pl.DataFrame) -> tuple[Counts, Counts]:
    """Return how often each id was counted then and now, [n] each, 0 where it was not there.

    Both have an id, first, and a count. Ids of two types never meet.
    """
    one, two = (frame.rename({frame.columns[0]: "id"}) for frame in (then, now))
    if one["id"].dtype != two["id"].dtype:
        old, new = one["count"].to_numpy(), two["count"].to_numpy()
        return np.r_[old, np.zeros_like(new)], np.r_[np.zeros_like(old), new]
    both = one.join(two, on="id", how="full", suffix="_now", maintain_order="left_right").fill_null(0)
    return both["count"].cast(pl.Int64).to_numpy(), both["count_now"].cast(pl.Int64).to_numpy()


def drift(
    users: tuple[pl.DataFrame, pl.DataFrame], items: tuple[pl.DataFrame, pl.DataFrame], since: pl.DataFrame
) -> dict[str, float]:
    """Return how far today's data is from another's; each side is (then, now) of an id and its interactions.

    `items_moved` is how far the items' shares `moved` in what came `since`: the days that both windows hold would hide
    most of it; `new_users` and `gone_users` are shares of today's users and of then's; `new_items`
    and `gone_items` shares of the interactions of today and of then; ratios are today's by then's.
    """
    user_then, user_now = beside(*users)
    item_then, item_now = beside(*items)
    rows, people = (int(item_then.sum()), int(item_now.sum())), (int((user_then > 0).sum()), int((user_now > 0).sum()))
    return {
        "items_moved": moved(*beside(items[0], since)),
        "new_users": _share(int(((user_now > 0) & (user_then == 0)).sum()), people[1]),
        "gone_users": _share(int(((user_then > 0) & (user_now == 0)).sum()), people[0]),
        "new_items": _share(int(item_now[item_then == 0].sum()), rows[1]),
        "gone_items": _share(int(item_then[item_now == 0].sum()), rows[0]),
        "per_user_ratio": _share(rows[1] * people[0], rows[0] * people[1]),
        "rows_ratio": _share(rows[1], rows[0]),
    }


def items_since(log: Path, end: str) -> pl.DataFrame:
    """Return the item_id and the count of the rows of an ingested log on days after the one of `end`, an ISO time."""
    midnight = datetime.fromisoformat(end).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    after = int((midnight + timedelta(days=1)).timestamp()) * 1_000_000
    rows = pl.scan_parquet(log / "log.parquet").filter(pl.col("time") >= after).group_by("item").len("count")
    items = pl.scan_parquet(log / "items.parquet").select("item_id").with_row_index("item")
    found = items.join(rows.with_columns(pl.col("item").cast(pl.UInt32)), on="item", maintain_order="left")
    return found.select("item_id", pl.col("count").cast(pl.Int64)).collect()


def days_of(facts: Mapping[str, Any]) -> dict[str, float]:
    """Return of what ingest says of a window how its last day compares with the others, and how many days are empty.

    Days before the first that has rows are none of the log's.
    """
    rows = [int(count) for count in facts["days"].values()]
    first = next(i for i, count in enumerate(rows) if count)
    others = [count for count in rows[first:-1] if count]
    mean = sum(others) / len(others) if others else float(rows[-1])
    return {"last_day_ratio": rows[-1] / mean, "empty_days": float(rows[first:].count(0))}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
