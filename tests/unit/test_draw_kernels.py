"""Membership of drawn items, compiled, against plain sets: for rows asked about few items and about many."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.distill.draw_kernels import FEW, among


@pytest.mark.parametrize("asked", [1, FEW, FEW + 1, 200])
@pytest.mark.parametrize("depth", [0, 3, 40])
@pytest.mark.parametrize("first", [0, 2**33])
def test_membership_is_that_of_a_set(asked, depth, first):
    rng = np.random.default_rng(asked + depth)
    num_items, rows = 60, 7
    lists = np.stack([rng.permutation(num_items)[:depth] for _ in range(rows)]) + first
    lists[::2, depth // 2 :] = -1
    users = np.array([4, 0, 9, 2, 7, 1, 3])  # the user 2 has nothing
    own = {int(user): set() if user == 2 else {int(i) + first for i in rng.integers(0, num_items, 8)} for user in users}
    catalogue = first + num_items
    keys = np.array(sorted(user * catalogue + item for user, items in own.items() for item in items))
    starts, ends = (np.searchsorted(keys, (users + more) * catalogue) for more in (0, 1))
    asks = np.repeat(np.arange(rows), asked)[: rows * asked - 1]
    items = rng.integers(0, num_items, len(asks)) + first
    found = np.zeros(len(asks), dtype=np.bool_)
    among(asks, items, lists, keys, starts, ends, users * catalogue, found)
    expected = [int(i) in own[int(users[r])] | set(lists[r].tolist()) for r, i in zip(asks, items, strict=True)]
    assert found.tolist() == expected
    among(asks, items, lists, keys, starts, starts, users * catalogue, found)
    assert found.tolist() == [int(i) in lists[r] for r, i in zip(asks, items, strict=True)]
