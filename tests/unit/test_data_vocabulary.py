"""The k-core against a brute force that takes one user or item out at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest

from recdistill.data.vocabulary import k_core


def brute(pairs: set[tuple[int, str]], min_user: int, min_item: int) -> set[tuple[int, str]]:
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
    pairs = {(int(u), f"i{i}") for u, i in zip(users, items, strict=True)}
    rows = pl.DataFrame(sorted(pairs), schema=["user", "item"], orient="row").lazy()
    left = brute(pairs, min_user, min_item)
    found_users, found_items, rounds = k_core(rows, min_user, min_item)
    users_left, items_left = Counter(u for u, _ in left), Counter(i for _, i in left)
    assert found_users.rows() == sorted(users_left.items(), key=lambda r: r[0])
    assert found_items.rows() == sorted(items_left.items(), key=lambda r: r[0])
    assert (rounds == 0) == (left == pairs)


def test_a_chain_falls_one_end_at_a_time():
    # user k holds items k and k+1: the items at both ends have one user only, and taking them weakens the next user
    rows = pl.DataFrame({"user": [0, 0, 1, 1, 2, 2], "item": [0, 1, 1, 2, 2, 3]}).lazy()
    users, items, rounds = k_core(rows, 2, 2)
    assert users.is_empty()
    assert items.is_empty()
    assert rounds >= 2
