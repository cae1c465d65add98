"""Which users and items there are: the k-core, counted by streaming the rows."""

from __future__ import annotations

import polars as pl


def k_core(rows: pl.LazyFrame, min_user: int, min_item: int) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Return (user_id, count), (item_id, count) and how many rounds took something out.

    Users and items below their minimum are taken out together and the rest counted again, until nothing changes.
    Both are sorted by id: the row number is the dense row. Not by count, which would number items by their popularity
    in the test part too, and every tie that is broken by row would know it. `rows` has columns user and item; it is
    streamed once a round, so memory is that of the two vocabularies.
    """
    kept, rounds = rows, 0
    while True:
        all_users, all_items = pl.collect_all([_counts(kept, "user"), _counts(kept, "item")])
        users, items = all_users.filter(pl.col("count") >= min_user), all_items.filter(pl.col("count") >= min_item)
        if users.height == all_users.height and items.height == all_items.height:
            return _ordered(users, "user_id"), _ordered(items, "item_id"), rounds
        rounds += 1
        kept = rows.join(users.lazy(), left_on="user", right_on="user_id", how="semi")
        kept = kept.join(items.lazy(), left_on="item", right_on="item_id", how="semi")


def _counts(rows: pl.LazyFrame, side: str) -> pl.LazyFrame:
    return rows.group_by(pl.col(side).alias(f"{side}_id")).agg(pl.len().cast(pl.Int64).alias("count"))


def _ordered(counts: pl.DataFrame, key: str) -> pl.DataFrame:
    return counts.sort(key)
