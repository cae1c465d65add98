"""The graph of what is taken together against brute force on small logs, and the filter over it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.distill import graph
from recdistill.types import Interactions

USERS, ITEMS = 30, 22
sides = pytest.mark.parametrize("side", ["users", "items"])


def log(seed, users=USERS, items=ITEMS, share=0.2):
    taken = np.random.default_rng(seed).random((users, items)) < share
    taken[3], taken[:, 5] = False, False  # a user and an item without any
    user, item = taken.nonzero()
    starts = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=users))])
    return taken, Interactions(indptr=starts, items=item)


def brute_force(taken, neighbours):
    """The dense normalised adjacency of the first `neighbours` of every row, with the counts."""
    counts = taken.astype(int) @ taken.astype(int).T
    np.fill_diagonal(counts, 0)
    adjacency = np.zeros(counts.shape)
    for i, row in enumerate(counts):
        first = sorted((-c, j) for j, c in enumerate(row) if c > 0)[:neighbours]
        for _, j in first:
            adjacency[i, j] = adjacency[j, i] = 1
    degree = adjacency.sum(1).clip(min=1)
    return adjacency / np.sqrt(degree[:, None] * degree[None]), counts


def dense(neighbours, weights):
    found = np.zeros((len(neighbours), len(neighbours)))
    row, place = (neighbours >= 0).nonzero()
    found[row, neighbours[row, place]] = weights[row, place]
    return found


def torch_rows(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@sides
@pytest.mark.parametrize("neighbours", [1, 3, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_graph_is_that_of_brute_force(side, neighbours, seed):
    taken, train = log(seed)
    expected, counts = brute_force(taken if side == "users" else taken.T, neighbours)
    found, weights = graph.co_taken(train, num_items=ITEMS, neighbours=neighbours, side=side)
    assert found.shape == weights.shape == (len(expected), 2 * neighbours)
    assert (found.dtype, weights.dtype) == (np.int64, np.float32)
    for i, row in enumerate(expected):
        joined = sorted((-counts[i, j], j) for j in row.nonzero()[0])[: 2 * neighbours]
        kept = [j for _, j in joined]
        assert found[i].tolist() == kept + [-1] * (2 * neighbours - len(kept))
        scale = row.sum() / row[kept].sum() if kept else 1.0
        np.testing.assert_allclose(weights[i, : len(kept)], row[kept] * scale, rtol=1e-6)
        assert not weights[i, len(kept) :].any()


def test_a_row_that_many_choose_is_cut_and_keeps_its_sum():
    taken = np.eye(40, dtype=bool)
    taken[:, 0] = True  # everyone took item 0, and one of their own
    starts = np.concatenate([[0], np.cumsum(taken.sum(1))])
    train = Interactions(indptr=starts, items=taken.nonzero()[1])
    expected, _ = brute_force(taken.T, 2)
    found, weights = graph.co_taken(train, num_items=40, neighbours=2, side="items")
    assert found[0].tolist() == [1, 2, 3, 4]
    assert weights[0].sum() == pytest.approx(expected[0].sum(), rel=1e-6)


def test_an_empty_log_joins_nothing():
    train = Interactions(indptr=np.zeros(4, dtype=np.int64), items=np.zeros(0, dtype=np.int64))
    for side, n in (("users", 3), ("items", 5)):
        found, weights = graph.co_taken(train, num_items=5, neighbours=2, side=side)
        assert found.tolist() == [[-1] * 4] * n
        assert not weights.any()


@sides
def test_smoothing_a_table_is_the_product_with_the_dense_filter(side):
    _, train = log(2)
    found, weights = graph.co_taken(train, num_items=ITEMS, neighbours=3, side=side)
    vectors = np.random.default_rng(0).normal(size=(len(found), 4)).astype(np.float32)
    expected = 0.3 * dense(found, weights) @ vectors + 0.7 * vectors
    smoothed = graph.smooth_all(vectors, found, weights, alpha=0.3)
    assert smoothed.dtype == np.float32
    np.testing.assert_allclose(smoothed, expected, atol=1e-6)


@sides
def test_a_steps_rows_are_smoothed_as_the_table_is(side):
    _, train = log(2)
    found, weights = graph.co_taken(train, num_items=ITEMS, neighbours=3, side=side)
    vectors = np.random.default_rng(0).normal(size=(len(found), 4)).astype(np.float32)
    rows = np.array([7, 3, 5, 0])
    around = torch.from_numpy(vectors[found[rows].clip(min=0)])
    own, weight = torch.from_numpy(vectors[rows]), torch.from_numpy(weights[rows])
    smoothed = graph.smooth(own, around, weight, alpha=0.3, keep=1.0)
    torch.testing.assert_close(
        smoothed, torch.from_numpy(graph.smooth_all(vectors, found, weights, alpha=0.3)[rows]), atol=1e-6, rtol=0
    )


def test_smoothing_is_linear_and_without_a_share_of_neighbours_it_is_nothing():
    own, around, weights = torch_rows(0, 6, 3), torch_rows(1, 6, 4, 3), torch_rows(2, 6, 4).abs()
    other, others = torch_rows(3, 6, 3), torch_rows(4, 6, 4, 3)
    parts = [graph.smooth(a, b, weights, alpha=0.6, keep=1.0) for a, b in ((own, around), (other, others))]
    both = graph.smooth(2 * own + other, 2 * around + others, weights, alpha=0.6, keep=1.0)
    torch.testing.assert_close(both, 2 * parts[0] + parts[1])
    torch.testing.assert_close(graph.smooth(own, around, weights, alpha=1e-12, keep=0.5), own)


def test_dropped_edges_keep_the_mean_and_depend_on_the_row_alone():
    own, around = torch_rows(0, 20_000, 3), torch.ones(20_000, 4, 3, dtype=torch.float64)
    weights = torch.full((20_000, 4), 0.25, dtype=torch.float64)
    found = graph.smooth(own, around, weights, alpha=1.0, keep=0.4)
    assert found.mean().item() == pytest.approx(1.0, abs=0.01)
    shares = (found[:, 0] * 4 * 0.4).round().long().bincount(minlength=5) / len(found)
    torch.testing.assert_close(shares, torch.tensor([0.1296, 0.3456, 0.3456, 0.1536, 0.0256]), atol=0.01, rtol=0)
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(1))
    again = graph.smooth(own[order], around, weights, alpha=1.0, keep=0.4)
    torch.testing.assert_close(again, found[order])


def test_gradients_reach_a_row_and_its_neighbours():
    own, around = torch_rows(0, 5, 3).requires_grad_(True), torch_rows(1, 5, 4, 3).requires_grad_(True)
    weights = torch_rows(2, 5, 4).abs()
    graph.smooth(own, around, weights, alpha=0.6, keep=1.0).sum().backward()
    torch.testing.assert_close(own.grad, torch.full((5, 3), 0.4, dtype=torch.float64))
    torch.testing.assert_close(around.grad, (0.6 * weights).unsqueeze(2).expand(5, 4, 3))
