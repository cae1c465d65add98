"""Negatives are exact and uniform, and an epoch's order is a permutation, kept or computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.negatives import owned, reject, settle
from recdistill.data.owners import owners_of
from recdistill.data.walk import walk
from recdistill.types import Interactions

ITEMS = 30
TAKEN = np.ones((2, ITEMS), bool)
TAKEN[0, ::2] = False
TAKEN[1, [7, 20]] = False  # a user of all but two items
TRAIN = Interactions(indptr=np.concatenate([[0], TAKEN.sum(1).cumsum()]), items=TAKEN.nonzero()[1])


def test_own_negatives_of_a_user_of_nearly_everything_are_not_its_items_either():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(ITEMS, (4000, 1), generator=generator)
    found = reject(torch.full((4000,), 1), drawn, owned(TRAIN, ITEMS), generator)
    assert set(found[:, 0].tolist()) == {7, 20}
    free = [int((found == item).sum()) for item in (7, 20)]
    assert abs(free[0] - free[1]) < 6 * 63  # six standard deviations of a fair coin


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 5), st.sampled_from([0.0, 0.3, 0.95, 1.0]))
def test_rejected_negatives_are_of_the_complement_alone_and_others_stay(seed, items, users, share):
    drawn = np.random.default_rng(seed)
    taken = drawn.random((users, items)) < share
    train = Interactions(indptr=np.concatenate([[0], taken.sum(1).cumsum()]), items=taken.nonzero()[1])
    rows = torch.from_numpy(drawn.integers(users, size=30))
    first = torch.from_numpy(drawn.integers(items, size=(30, 4)))
    found = reject(rows, first.clone(), owned(train, items), torch.Generator().manual_seed(seed))
    free = ~taken[rows.numpy()[:, None], first.numpy()]
    assert torch.equal(found[free], first[free])
    everything = taken.all(1)[rows.numpy()]
    assert not taken[rows.numpy()[:, None], found.numpy()][~everything].any()


def test_what_is_left_after_redraws_is_uniform_over_what_the_user_has_not():
    indptr, mine = np.array([0, 4]), np.array([0, 2, 3, 6], np.int32)
    items, share = np.zeros(4000, np.int64), (np.arange(4000) + 0.5) / 4000
    settle(np.zeros(4000, np.int64), items, 1, indptr, mine, 8, np.arange(4000), share)
    assert np.unique(items, return_counts=True)[0].tolist() == [1, 4, 5, 7]
    assert np.unique(items, return_counts=True)[1].tolist() == [1000] * 4


@pytest.mark.parametrize("total", [1, 2, 3, 16, 1000, 4097])
def test_a_computed_walk_is_a_permutation_too_and_another_each_epoch(total):
    take = walk(5, kept_rows=0)
    epochs = [torch.cat([take(1, epoch * total + i, 1, total) for i in range(total)]) for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(total)) for order in epochs)
    assert total < 16 or not torch.equal(*epochs)
    assert torch.equal(take(1, 0, total, total), walk(5, kept_rows=0)(1, 0, total, total))


def test_a_computed_walk_has_no_order_left():
    total = 100_000
    order = walk(1, kept_rows=0)(1, 0, total, total).double()
    following = torch.corrcoef(torch.stack([order[:-1], order[1:]]))[0, 1]
    along = torch.corrcoef(torch.stack([order, torch.arange(total).double()]))[0, 1]
    assert abs(following) < 5 / total**0.5
    assert abs(along) < 5 / total**0.5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0, 0, 1, 3, 70, 200]), min_size=1, max_size=30))
def test_owners_are_those_of_the_column_that_is_not_kept(counts):
    train = Interactions(indptr=np.concatenate([[0], np.cumsum(counts)]), items=np.zeros(sum(counts), np.int64))
    rows = torch.randperm(len(train))
    assert owners_of(train).of(rows).tolist() == train.users()[rows.numpy()].tolist()
