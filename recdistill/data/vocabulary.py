"""Which users and items there are: every id with its code, and the k-core counted over codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.types import Int

Pairs = Callable[[], Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]]]


def vocabulary(rows: pl.LazyFrame, side: str) -> pl.LazyFrame:
    """Return (`side`_id, count) of the rows' column `side`, by id: the row number is its code.

    Not by count, which would number items by their popularity in the test part too, and every tie that is broken by
    row would know it.
    """
    key = f"{side}_id"
    return rows.group_by(pl.col(side).alias(key)).agg(pl.len().cast(pl.Int64).alias("count")).sort(key)


def k_core(pairs: Pairs, users: Int, items: Int, min_user: int, min_item: int) -> tuple[Int, Int, int]:
    """Return how many rows users [U] and items [I] have left, 0 of those that are out, and the rounds it took.

    Users and items below their minimum are taken out together and the rest counted again, until nothing changes.
    `users` and `items` count the rows of all `pairs()`: blocks of (user codes, item codes), which are read once a
    round, so memory is that of the counts.
    """
    users, items, rounds = users.copy(), items.copy(), 0
    user_in, item_in = users > 0, items > 0
    while True:
        weak_users, weak_items = user_in & (users < min_user), item_in & (items < min_item)
        if not (weak_users.any() or weak_items.any()):
            return users, items, rounds
        rounds += 1
        for user, item in pairs():
            touched = np.flatnonzero(weak_users[user] | weak_items[item])
            u, i = user[touched], item[touched]
            lost = user_in[u] & item_in[i]  # the others went in an earlier round
            np.subtract.at(users, u[lost], 1)
            np.subtract.at(items, i[lost], 1)
        # One that lost its last row to the other side is out too: it is not there to be counted again.
        user_in, item_in = user_in & ~weak_users & (users > 0), item_in & ~weak_items & (items > 0)
