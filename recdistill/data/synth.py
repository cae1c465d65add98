"""A planted log that can be learned: clustered tastes, popular items, telling features, and tastes that drift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.data.files import new_directory
from recdistill.errors import DataError

CLUSTERS = 16
SEGMENTS = ("student", "worker", "parent", "retired")
END = 1_767_225_600_000_000  # 2026-01-01 in microseconds: fixed, so that the same seed gives the same bytes
SPAN = 180 * 86_400_000_000
CONSONANTS, VOWELS = "bdfgklmnprstvxyz", "aeiou"
OWN_WORDS, NOISE_WORDS = 6, 200  # title words that only one cluster has, and those of all
TASTE = 3.0  # log-odds between an item of the user's cluster and one of no interest


def synthesize(
    out: Path, *, users: int = 2000, items: int = 1500, events_per_user: int = 40, seed: int = 0
) -> dict[str, Any]:
    """Write interactions.parquet, users.parquet and items.parquet into the new directory `out`; return facts.

    Items belong to clusters and are taken with Zipf popularity; each user likes two clusters and moves from one to
    the other over time, so a history says more than a user id. Genres tell the cluster of an item, segment and age
    that of a user, both with noise. Nine titles in ten have a word or two of the item's cluster among words of none.
    Ratings follow taste, and a well rated item is bought more often than a badly rated one. Times are UTC datetimes
    that end at 2026-01-01. The same arguments give the same bytes. Raises DataError if `out` holds something or the
    numbers cannot be met.
    """
    if users < 1 or items < 2 * CLUSTERS or not 3 <= events_per_user <= items // 4:
        fix = f"ask for items >= {2 * CLUSTERS} and 3 <= events_per_user <= items / 4"
        raise DataError(f"cannot plant {users} x {items} with {events_per_user} a user", where="synth", fix=fix)
    rng = np.random.default_rng(seed)
    cluster = rng.integers(CLUSTERS, size=items)
    early = rng.integers(CLUSTERS, size=users)
    late = (early + 1 + rng.integers(3, size=users)) % CLUSTERS
    user_ids = np.array([f"u{user:06d}" for user in range(users)])
    item_ids = 1000 + rng.permutation(items)  # an id says nothing about its item
    rows = _interactions(rng, cluster, early, late, events_per_user)
    named = {"user_id": user_ids[rows["user"]], "item_id": item_ids[rows["item"]]}
    extra = np.random.default_rng([seed, 1])  # a stream of its own, so that these columns leave the others as they are
    events = _events(extra, rows["rating"].to_numpy())
    titles = _titles(extra, cluster)
    tables = {
        "interactions": rows.select(pl.Series(k, v) for k, v in named.items()).hstack(
            [*rows.drop("user", "item").get_columns(), events]
        ),
        "users": _users(rng, early, user_ids),
        "items": _items(rng, cluster, item_ids).hstack([titles]),
    }
    with new_directory(out) as partial:
        for name, table in tables.items():
            table.write_parquet(partial / f"{name}.parquet")
    return {"users": users, "items": items, "rows": tables["interactions"].height, "clusters": CLUSTERS, "seed": seed}


def _interactions(
    rng: np.random.Generator, cluster: NDArray[Any], early: NDArray[Any], late: NDArray[Any], mean_events: int
) -> pl.DataFrame:
    """Draw each user's items without repetition by Gumbel top-k: log popularity, plus taste, which drifts."""
    items, users = len(cluster), len(early)
    popularity = -0.7 * np.log(rng.permutation(items) + 10.0)
    events = np.clip(rng.poisson(mean_events, users), 3, items // 3)
    affinity = np.eye(CLUSTERS) + 0.4 * np.eye(CLUSTERS)[(np.arange(CLUSTERS) + 1) % CLUSTERS]
    rows = []
    for first in range(0, users, 256):  # a block of users at a time bounds memory at 256 x items
        who = np.arange(first, min(first + 256, users))
        taken = np.zeros((len(who), items), bool)
        for half, likes in enumerate((early[who], late[who])):
            score = popularity + TASTE * affinity[likes][:, cluster] + rng.gumbel(size=(len(who), items))
            order = np.argsort(np.where(taken, -np.inf, score), axis=1)[:, ::-1]
            share = events[who] // 2 if half == 0 else events[who] - events[who] // 2
            chosen = np.arange(items) < share[:, None]
            row, place = np.nonzero(chosen)
            item = order[row, place]
            taken[row, item] = True
            rows.append((who[row], item, np.full(len(row), half), np.where(cluster[item] == likes[row], 5, 3)))
    user, item, half, weight = (np.concatenate(part) for part in zip(*rows, strict=True))
    when = (END - SPAN + ((half + rng.random(len(user))) * (SPAN / 2)).astype(np.int64)) // 1_000_000 * 1_000_000
    order = np.lexsort((item, user, when))
    weight = np.clip(weight - rng.integers(2, size=len(weight)), 1, 5)
    return pl.DataFrame(
        {
            "user": user[order],
            "item": item[order],
            "timestamp": pl.Series(when[order]).cast(pl.Datetime("us", "UTC")),
            "rating": weight[order].astype(np.float32),
        }
    )


def _users(rng: np.random.Generator, early: NDArray[Any], ids: NDArray[Any]) -> pl.DataFrame:
    """Give three users in four the segment of their first cluster, and all an age that leans on it."""
    told = rng.random(len(early)) < 0.75
    segment = np.where(told, early % len(SEGMENTS), rng.integers(len(SEGMENTS), size=len(early)))
    age = np.clip(20 + 2 * early + rng.integers(-6, 7, size=len(early)), 18, 80)
    return pl.DataFrame({"user_id": ids, "segment": np.array(SEGMENTS)[segment], "age": age.astype(np.int64)})


def _items(rng: np.random.Generator, cluster: NDArray[Any], ids: NDArray[Any]) -> pl.DataFrame:
    """Give each item the genre of its cluster, and every other one a second genre drawn at random."""
    second = rng.integers(CLUSTERS, size=len(cluster))
    two = (rng.random(len(cluster)) < 0.5) & (second != cluster)
    genres = [
        f"genre{a:02d} genre{b:02d}" if t else f"genre{a:02d}" for a, b, t in zip(cluster, second, two, strict=True)
    ]
    price = np.round(5 + 2 * cluster + 5 * rng.random(len(cluster)), 2)
    return pl.DataFrame({"item_id": ids, "genres": genres, "price": price})


def _events(rng: np.random.Generator, rating: NDArray[Any]) -> pl.Series:
    """Let a view of an item rated 4 or 5 end in a purchase six times in ten, of another once in ten."""
    bought = rng.random(len(rating)) < np.where(rating >= 4, 0.6, 0.1)
    return pl.Series("event", np.where(bought, "purchase", "view"))


def _titles(rng: np.random.Generator, cluster: NDArray[Any]) -> pl.Series:
    """Give each item two to four words of all clusters and, nine times in ten, one or two of its own between them."""
    items = len(cluster)
    own = cluster[:, None] * OWN_WORDS + rng.integers(OWN_WORDS, size=(items, 2))
    noise = CLUSTERS * OWN_WORDS + rng.integers(NOISE_WORDS, size=(items, 4))
    numbers = np.concatenate([own, noise], axis=1)
    count = np.stack([np.where(rng.random(items) < 0.9, rng.integers(1, 3, items), 0), rng.integers(2, 5, items)], 1)
    shown = np.concatenate([np.arange(2) < count[:, :1], np.arange(4) < count[:, 1:]], axis=1)
    order = rng.permuted(np.tile(np.arange(6), (items, 1)), axis=1)
    words = np.array([_word(n) for n in range(CLUSTERS * OWN_WORDS + NOISE_WORDS)])
    return pl.Series(
        "title", [" ".join(words[n[o][s[o]]]).title() for n, o, s in zip(numbers, order, shown, strict=True)]
    )


def _word(number: int) -> str:
    """Return a word of two syllables for each number below 6400."""
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    return syllables[number % 80] + syllables[(number // 80 + 7 * number) % 80]
