"""exact_topk against a sort of float64 scores: ties, masks, blocks, residuals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill import topk
from recdistill.topk import blocks, exact_topk, pairs, select
from recdistill.types import Interactions

BOTH = pytest.mark.parametrize("precision", ["fp32", "bf16"])


def whole_numbers(seed, users=40, items=60, dim=3, high=2):
    """Vectors of small integers: every score is exact, and most of them tie."""
    rng = np.random.default_rng(seed)
    draw = lambda n: rng.integers(-high, high + 1, (n, dim)).astype(np.float32)  # noqa: E731
    return draw(users), draw(items)


def some_seen(seed, users, items, share=0.3):
    taken = np.random.default_rng(seed).random((users, items)) < share
    indptr = np.concatenate([[0], taken.sum(1).cumsum()])
    return Interactions(indptr=indptr, items=np.nonzero(taken)[1]), taken


def by_sorting(users, items, k, taken=None):
    """Return the same lists by a stable sort of every score, with the logsumexp of what is left."""
    scores = users.astype(np.float64) @ items.astype(np.float64).T
    if taken is not None:
        scores[taken] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")
    found = np.full((len(users), k), -1)
    best = np.full((len(users), k), -np.inf)
    residual = np.full(len(users), -np.inf)
    for u, row in enumerate(order):
        real = [i for i in row if np.isfinite(scores[u, i])]
        found[u, : len(real[:k])] = real[:k]
        best[u, : len(real[:k])] = scores[u, real[:k]]
        if real[k:]:
            tail = scores[u, real[k:]]
            residual[u] = tail.max() + np.log(np.exp(tail - tail.max()).sum())
    return found, best, residual


@pytest.mark.parametrize("k", [1, 2, 7, 59, 60, 75])
@pytest.mark.parametrize("masked", [False, True])
@BOTH
def test_it_is_the_stable_sort_of_tied_scores(k, masked, precision):
    users, items = whole_numbers(k)
    seen, taken = some_seen(1, 40, 60) if masked else (None, None)
    found = exact_topk(users, items, k, seen=seen, precision=precision)
    expected, best, residual = by_sorting(users, items, k, taken)
    assert found.items.dtype == torch.int64
    np.testing.assert_array_equal(found.items.numpy(), expected)
    np.testing.assert_array_equal(found.scores.numpy(), best)
    np.testing.assert_allclose(found.residual.numpy(), residual, rtol=1e-5)


def test_equal_scores_come_by_row():
    found = exact_topk(np.ones((2, 1), np.float32), np.ones((9, 1), np.float32), 4)
    assert found.items.tolist() == [[0, 1, 2, 3]] * 2


def test_a_tie_at_the_last_place_goes_to_the_lower_row():
    scores = torch.tensor([[1.0, 5.0, 1.0, 1.0, 7.0], [1.0, 5.0, 1.0, 2.0, 7.0]])
    assert select(scores, 3).items.tolist() == [[4, 1, 0], [4, 1, 3]]


@pytest.mark.parametrize("k", [10, 100, 129, 600, 1500])
@BOTH
def test_real_scores_agree_with_the_sort(k, precision):
    rng = np.random.default_rng(8)
    users, items = rng.normal(size=(30, 8)).astype(np.float32), rng.normal(size=(3000, 8)).astype(np.float32)
    seen, taken = some_seen(2, 30, 3000)
    found = exact_topk(users, items, k, seen=seen, precision=precision)
    expected, best, residual = by_sorting(users, items, k, taken)
    np.testing.assert_array_equal(found.items.numpy(), expected)
    np.testing.assert_array_equal(found.scores.numpy(), best.astype(np.float32))
    np.testing.assert_allclose(found.residual.numpy(), residual, rtol=1e-5 if precision == "fp32" else 5e-3)


@pytest.mark.parametrize(
    ("block", "tile", "room", "threads"), [(1, 8192, 10**8, 1), (7, 1, 10**8, 2), (512, 61, 1, 3), (40, 1024, 10**6, 2)]
)
@BOTH
def test_blocks_tiles_and_threads_change_no_list(monkeypatch, block, tile, room, threads, precision):
    rng = np.random.default_rng(4)
    users, items = rng.normal(size=(40, 16)).astype(np.float32), rng.normal(size=(2500, 16)).astype(np.float32)
    seen, _ = some_seen(3, 40, 2500)
    expected = exact_topk(users, items, 50, seen=seen)
    monkeypatch.setattr(topk, "USERS_PER_BLOCK", block)
    monkeypatch.setattr(topk, "ITEMS_PER_TILE", tile)
    monkeypatch.setattr(topk, "CANDIDATE_BYTES", room)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = exact_topk(users, items, 50, seen=seen, precision=precision)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found.items, expected.items)
    assert torch.equal(found.scores, expected.scores)
    torch.testing.assert_close(found.residual, expected.residual, rtol=0, atol=1e-5 if precision == "fp32" else 1e-2)


def test_chosen_rows_come_as_asked_with_their_own_masks():
    users, items = whole_numbers(5)
    seen, _ = some_seen(4, 40, 60)
    whole = exact_topk(users, items, 6, seen=seen)
    rows = np.array([7, 3, 3, 39, 0])
    found = exact_topk(users, items, 6, seen=seen, rows=rows)
    assert found.items.tolist() == whole.items[torch.from_numpy(rows)].tolist()


def test_nobody_asked_nobody_answered():
    users, items = whole_numbers(6)
    found = exact_topk(users, items, 4, rows=np.zeros(0, np.int64))
    assert found.items.shape == found.scores.shape == (0, 4)
    assert found.residual.shape == (0,)
    assert found.items.dtype == torch.int64


def test_a_user_who_has_seen_everything_gets_an_empty_list():
    users, items = whole_numbers(7, users=2, items=5)
    seen = Interactions(indptr=np.array([0, 5, 5]), items=np.arange(5))
    found = exact_topk(users, items, 3, seen=seen)
    assert found.items[0].tolist() == [-1, -1, -1]
    assert torch.isneginf(found.scores[0]).all()
    assert torch.isneginf(found.residual[0])
    assert (found.items[1] >= 0).all()


def test_the_whole_catalogue_leaves_no_residual():
    users, items = whole_numbers(9)
    assert torch.isneginf(exact_topk(users, items, 60).residual).all()


def test_list_and_residual_together_hold_all_the_mass():
    users, items = whole_numbers(10)
    found = exact_topk(users, items, 5)
    total = torch.logaddexp(found.scores.double().logsumexp(1), found.residual.double())
    expected = np.log(np.exp(users.astype(np.float64) @ items.T.astype(np.float64)).sum(1))
    np.testing.assert_allclose(total.numpy(), expected, rtol=1e-6)


def test_pairs_are_every_interaction_of_the_users_asked():
    seen = Interactions(indptr=np.array([0, 2, 2, 5]), items=np.array([4, 1, 0, 2, 3]))
    positions, items = pairs(seen, np.array([2, 1, 0, 2]))
    assert positions.tolist() == [0, 0, 0, 2, 2, 3, 3, 3]
    assert items.tolist() == [0, 2, 3, 4, 1, 0, 2, 3]


def test_blocks_cover_the_range_once():
    assert list(blocks(7, 3)) == [(0, 3), (3, 6), (6, 7)]
    assert list(blocks(0, 3)) == []
