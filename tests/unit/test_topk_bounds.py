"""What a fast product gets wrong must not reach a list: scores closer than its rounding, crowds, long vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill import topk
from recdistill.errors import DataError
from recdistill.topk import exact_topk

BOTH = pytest.mark.parametrize("precision", ["fp32", "bf16"])


def true_scores(users, items):
    """Return what a list is ordered by: float64 sums, rounded to float32."""
    return np.einsum("ud,id->ui", users.astype(np.float64), items.astype(np.float64)).astype(np.float32)


def by_lexsort(users, items, k):
    scores = true_scores(users, items)
    order = np.stack([np.lexsort((np.arange(len(items)), -row))[:k] for row in scores])
    return order, np.take_along_axis(scores, order, 1)


def check(users, items, k, precision):
    found = exact_topk(users, items, k, precision=precision)
    expected, scores = by_lexsort(users, items, k)
    np.testing.assert_array_equal(found.items.numpy(), expected)
    np.testing.assert_array_equal(found.scores.numpy(), scores)
    return found


def tail_by_sorting(users, items, k):
    scores = np.sort(users.astype(np.float64) @ items.astype(np.float64).T, axis=1)[:, : len(items) - k]
    high = scores.max(1, keepdims=True)
    return np.log(np.exp(scores - high).sum(1)) + high[:, 0]


@pytest.mark.parametrize("count", [300, 5000])
@BOTH
def test_scores_closer_than_bf16_can_tell_are_told_apart(count, precision):
    items = np.ones((count, 4), np.float32)
    items[:, 1] = 1 + np.random.default_rng(0).permutation(count).astype(np.float32) * 2.0**-22
    check(np.full((3, 4), 0.5, np.float32), items, 20, precision)


@BOTH
def test_scores_closer_than_a_float32_product_can_tell_are_told_apart(precision):
    """The terms cancel: 3,000 scores of about 1 are sums of terms of about 4,000."""
    rng = np.random.default_rng(1)
    users, items = np.full((2, 64), 64.0, np.float32), rng.normal(size=(3000, 64)).astype(np.float32) * 64
    items[:, 0] -= (items.astype(np.float64).sum(1)).astype(np.float32)
    items[:, 1] += rng.random(3000).astype(np.float32) / 64
    check(users, items, 100, precision)


@pytest.mark.parametrize("copies", [40, 9000])
@BOTH
def test_a_crowd_of_equal_items_comes_by_row(copies, precision):
    rng = np.random.default_rng(2)
    items = np.repeat(rng.normal(size=(3, 5)).astype(np.float32), copies, axis=0)[rng.permutation(3 * copies)]
    found = check(rng.normal(size=(6, 5)).astype(np.float32), items, 30, precision)
    assert (found.items.diff(dim=1) > 0).all()


@BOTH
def test_a_user_without_preference_gets_the_first_rows(precision):
    items = np.random.default_rng(3).normal(size=(20_000, 6)).astype(np.float32)
    found = exact_topk(np.zeros((2, 6), np.float32), items, 7, precision=precision)
    assert found.items.tolist() == [list(range(7))] * 2
    np.testing.assert_allclose(found.residual.numpy(), np.log(20_000 - 7), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e4, 1e15])
@BOTH
def test_vectors_of_any_length(scale, precision):
    rng = np.random.default_rng(4)
    lengths = np.exp(rng.normal(size=(2000, 1)) * 2)  # a few long items beside many short ones
    items = (rng.normal(size=(2000, 24)) * lengths).astype(np.float32)
    check((rng.normal(size=(12, 24)) * scale).astype(np.float32), items, 25, precision)


def test_no_score_is_further_off_than_the_bound_and_the_worst_comes_near_it():
    """Entries half-way between two bfloat16 values, all rounded the same way: the errors add up."""
    user = np.full((1, 64), 1 + 2.0**-8 + 2.0**-16, np.float32)
    items = np.concatenate([user, -user, np.random.default_rng(5).normal(size=(500, 64)).astype(np.float32)])
    work = topk._work(user, items, np.arange(1), 5, None, "bf16")
    left = torch.from_numpy(user)
    bound = topk._error(left, left.bfloat16(), work, work.rows).item()
    assert work.rounded is not None
    shown = left.bfloat16().double() @ work.rounded.double().T
    away = (shown - left.double() @ torch.from_numpy(items).double().T).abs()
    assert 0.2 * bound < away.max().item() < bound


@BOTH
def test_a_broken_bound_is_noticed(monkeypatch, precision):
    """As on hardware whose products are less exact than we believe: bf16 falls back, fp32 says so."""
    rng = np.random.default_rng(6)
    users, items = rng.normal(size=(4, 32)).astype(np.float32), rng.normal(size=(900, 32)).astype(np.float32)
    product = torch.mm

    def sloppy(left, right, *, out):
        product(left, right, out=out)
        return out.mul_(1.1) if precision == "fp32" or left.dtype == torch.bfloat16 else out

    monkeypatch.setattr(torch, "mm", sloppy)
    if precision == "bf16":
        check(users, items, 10, precision)
    else:
        with pytest.raises(DataError, match="4 users have scores beyond float32"):
            exact_topk(users, items, 10, precision=precision)


def clustered(seed, users, items, dim, temperature):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, dim))
    draw = lambda n: centres[rng.integers(0, 20, n)] + rng.normal(size=(n, dim))  # noqa: E731
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    return (unit(draw(users)) / temperature).astype(np.float32), unit(draw(items)).astype(np.float32)


@pytest.mark.parametrize(
    ("precision", "dim", "tolerance"),
    [("fp32", 64, 1e-5), ("fp32", 256, 1e-5), ("bf16", 64, 2e-3), ("bf16", 256, 2e-3)],
)
def test_the_residual_is_that_of_float64(precision, dim, tolerance):
    users, items = clustered(7, 50, 20_000, dim, 0.1)  # scores from -10 to 10
    found = check(users, items, 100, precision)
    np.testing.assert_allclose(found.residual.numpy(), tail_by_sorting(users, items, 100), rtol=0, atol=tolerance)


@pytest.mark.parametrize("gap", [20.0, 150.0])
@BOTH
def test_a_residual_beside_a_far_larger_list_keeps_its_digits(gap, precision):
    """It is summed by itself: total minus list would have nothing left."""
    rng = np.random.default_rng(8)
    items = np.concatenate([rng.integers(-4, 5, (3000, 2)) / 8, np.full((5, 2), gap)]).astype(np.float32)
    users = np.ones((2, 2), np.float32)
    found = exact_topk(users, items, 5, precision=precision)
    assert found.items.tolist() == [[3000, 3001, 3002, 3003, 3004]] * 2
    expected = np.log(np.exp(items[:3000].astype(np.float64).sum(1)).sum())
    np.testing.assert_allclose(found.residual.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("side", "row"), [("user", 3), ("item", 9000)])
def test_a_vector_that_is_not_finite_is_named(side, row, bad):
    vectors = {"user": np.ones((6, 2), np.float32), "item": np.ones((9001, 2), np.float32)}
    vectors[side][row, 1] = bad
    with pytest.raises(DataError, match=f"{side} row {row}: vectors of {side}s that are not finite"):
        exact_topk(vectors["user"], vectors["item"], 2, rows=np.array([5, 3, 1]))


def test_scores_beyond_float32_are_an_error():
    with pytest.raises(DataError, match="user row 1: 1 users have scores beyond float32"):
        exact_topk(np.array([[1.0], [1e18]], np.float32), np.full((3, 1), 1e18, np.float32) * 1e3, 1)


@BOTH
def test_a_memory_map_and_strided_vectors_are_read_as_they_are(tmp_path, precision):
    users, items = clustered(9, 8, 700, 16, 1.0)
    np.save(tmp_path / "items.npy", items)
    expected = exact_topk(users, items, 9, precision=precision)
    for same in (
        np.load(tmp_path / "items.npy", mmap_mode="r"),
        np.asfortranarray(items),
        np.stack([items] * 2)[::2][0],
    ):
        found = exact_topk(np.asfortranarray(users), same, 9, precision=precision)
        assert torch.equal(found.items, expected.items)
        assert torch.equal(found.residual, expected.residual)
