"""A shop that does not stand still: who takes what on each day, planted, so that a model of yesterday ages.

Items come out every day, are popular while they are new, and are withdrawn after some weeks; users come, go, and now
and then like something else. On the day of the change a season begins: half of the users turn to what is in fashion.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

CLUSTERS = 24
LIKED = 2  # clusters a user likes
TASTE = 3.5  # log-odds between an item of a cluster that is liked and one of another
HALF_LIFE = 10.0  # days in which what an item's being new is worth halves
NEWNESS = 2.0  # log-odds of an item on its first day
SEASON = 0.7  # of the users, those who turn on the day of the change
IN_FASHION = 4  # clusters
LIFE = 45  # days that an item is sold
TURN, LEAVE = 0.02, 0.01  # of the users, those who change a liked cluster, and those who leave, each day
ACTIVE, TAKEN = 0.55, 4.0  # of the users, those who come on a day; and what they take
FIRST = date(2026, 11, 1)


def world(
    first: int, last: int, *, users: int, items: int, change: int, seed: int
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield each day from `first` to `last`, counted from `FIRST`, and its rows; no user takes an item twice.

    `users` and `items` are how many there are at a time. Equal arguments give equal rows.
    """
    rng = np.random.default_rng(seed)
    user_id, item_id = np.arange(users), np.arange(items)
    likes = rng.integers(CLUSTERS, size=(users, LIKED))
    cluster = rng.integers(CLUSTERS, size=items)
    appeal = rng.normal(0, 0.8, items)
    born = first - rng.integers(LIFE, size=items)
    taken = np.zeros((users, items), np.bool_)
    for day in range(first, last + 1):
        gone = day - born >= LIFE
        renewed = np.flatnonzero(gone)
        item_id[renewed] = item_id.max() + 1 + np.arange(len(renewed))
        cluster[renewed] = rng.integers(CLUSTERS, size=len(renewed))
        appeal[renewed], born[renewed] = rng.normal(0, 0.8, len(renewed)), day
        taken[:, renewed] = False
        left = np.flatnonzero(rng.random(users) < LEAVE)
        user_id[left] = user_id.max() + 1 + np.arange(len(left))
        likes[left], taken[left] = rng.integers(CLUSTERS, size=(len(left), LIKED)), False
        turned = np.flatnonzero(rng.random(users) < (SEASON if day == change else TURN))
        likes[turned] = rng.integers(IN_FASHION if day == change else CLUSTERS, size=(len(turned), LIKED))
        score = appeal + NEWNESS * 0.5 ** ((day - born) / HALF_LIFE)
        here = np.flatnonzero(rng.random(users) < ACTIVE)
        liked = (likes[here][:, :, None] == cluster).any(1)
        drawn = np.where(taken[here], -np.inf, score + TASTE * liked + rng.gumbel(size=(len(here), items)))
        count = np.minimum(1 + rng.poisson(TAKEN - 1, len(here)), items // 4)
        order = np.argsort(-drawn, axis=1)[:, : int(count.max())]
        row, place = np.nonzero(np.arange(order.shape[1]) < count[:, None])
        who, what = here[row], order[row, place]
        taken[who, what] = True
        yield day, _rows(day, user_id[who], item_id[what], rng)


def _rows(day: int, users: np.ndarray, items: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    start = datetime.combine(day_of(day), datetime.min.time())
    seconds = np.sort(rng.integers(86_400, size=len(users)))
    mixed = rng.permutation(len(users))
    columns = {"user": pl.Series([f"u{n:06d}" for n in users[mixed]]), "item": items[mixed] * 2_654_435_761 % (1 << 40)}
    return pl.DataFrame(columns).with_columns(time=start + pl.Series(seconds) * timedelta(seconds=1))


def day_of(day: int) -> date:
    """Return the date of a day that is counted from `FIRST`, the first night."""
    return FIRST + timedelta(days=day - 1)
