"""The k-core against a brute force that takes one user or item out at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest

from recdistill.data.vocabulary import k_core, vocabulary


def core(pairs: list[tuple[int, int]], min_user: int, min_item: int) -> tuple[dict, dict, int]:
    """Return what is left of pairs of codes, read in two blocks: user -> rows, item -> rows, and the rounds."""
    table = np.array(pairs)
    blocks = [(block[:, 0], block[:, 1]) for block in np.array_split(table, 2)]
    users, items, rounds = k_core(lambda: blocks, *(np.bincount(c) for c in table.T), min_user, min_item)
    return *({int(c): int(n[c]) for c in np.flatnonzero(n)} for n in (users, items)), rounds


def brute(pairs: set[tuple[int, int]], min_user: int, min_item: int) -> set[tuple[int, int]]:
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        weak_users = [u for u in users if users[u] < min_user]
        weak_items = [i for i in items if items[i] < min_item]
        if weak_users:
            pairs = {(u, i) for u, i in pairs if u != weak_users[0]}
        elif weak_items:
            pairs = {(u, i) for u, i in pairs if i != weak_items[0]}
        else:
            return pairs


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("min_user", "min_item"), [(1, 1), (3, 2), (2, 4), (4, 4)])
def test_k_core_is_what_is_left_when_none_is_weak(seed, min_user, min_item):
    rng = np.random.default_rng(seed)
    users, items = rng.zipf(1.5, 150) % 40, rng.integers(30, size=150)
    pairs = {(int(u), int(i)) for u, i in zip(users, items, strict=True)}
    left = brute(pairs, min_user, min_item)
    found_users, found_items, rounds = core(sorted(pairs), min_user, min_item)
    assert found_users == Counter(u for u, _ in left)
    assert found_items == Counter(i for _, i in left)
    assert (rounds == 0) == (left == pairs)


def test_a_chain_falls_one_end_at_a_time():
    # user k holds items k and k+1: the items at both ends have one user only, and taking them weakens the next user
    assert core([(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)], 2, 2) == ({}, {}, 3)


def test_a_vocabulary_is_in_order_of_ids_not_of_counts():
    rows = pl.LazyFrame({"user": ["b", "a", "b", "10", "b", "9"]})
    assert vocabulary(rows, "user").collect().rows() == [("10", 1), ("9", 1), ("a", 1), ("b", 3)]
