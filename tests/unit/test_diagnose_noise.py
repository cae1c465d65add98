"""The teacher as a control variate: gradients against autograd, and what the best weight promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recdistill.diagnose.noise import Moments, gradients, moments, noise, together

B, L, D = 60, 12, 5


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    vectors, users = rng.normal(size=(L, D)), rng.normal(size=(B, D))
    truth = users @ vectors.T
    taken = truth + rng.gumbel(size=(B, L)) > np.sort(truth + rng.gumbel(size=(B, L)), 1)[:, -3:-2]
    return truth, truth + 0.25 * rng.normal(size=(B, L)), taken, vectors


def second_moment(a, b, weight):
    return ((a - weight * b) ** 2).sum()


@pytest.mark.parametrize("shared", [True, False])
def test_the_gradient_of_a_distilled_row_is_a_less_the_weight_times_b(batch, shared):
    student, teacher, taken, vectors = batch
    rng = np.random.default_rng(1)
    vectors = vectors if shared else rng.normal(size=(B, L, D))
    mask = rng.random((B, L)) < 0.8
    kept = taken & mask
    a, b = gradients(student, teacher, taken, vectors, mask)
    users = torch.from_numpy(rng.normal(size=(B, D))).requires_grad_(True)
    each = torch.from_numpy(np.broadcast_to(vectors, (B, L, D)).copy())
    # The user vector moves the scores by its products with the items; they begin where the student's are.
    scores = torch.from_numpy(student) + (each * (users - users.detach()).unsqueeze(1)).sum(2)
    hidden = torch.from_numpy(~mask)
    log_q = scores.masked_fill(hidden, -1e30).log_softmax(1)
    p = torch.from_numpy(teacher).masked_fill(hidden, -1e30).softmax(1)
    y = torch.from_numpy(kept / np.maximum(kept.sum(1, keepdims=True), 1))
    rows = torch.from_numpy(kept.any(1))
    loss = -((0.7 * p + 0.3 * y) * log_q).sum(1)[rows].sum()
    (gradient,) = torch.autograd.grad(loss, users)
    np.testing.assert_allclose(a - 0.7 * b, gradient.numpy(), atol=1e-12)
    assert (a[~kept.any(1)] == 0).all()


def test_the_best_weight_leaves_one_less_rho2_of_the_noise(batch):
    a, b = gradients(*batch)
    found = noise(moments(*batch), 0.4)
    without = second_moment(a, b, 0)
    grid = np.linspace(0, 2, 2001)
    assert abs(grid[np.argmin([second_moment(a, b, w) for w in grid])] - found.best) <= 5e-4
    assert second_moment(a, b, found.best) == pytest.approx((1 - found.rho2) * without)
    assert found.ratio == pytest.approx(second_moment(a, b, 0.4) / without)
    assert noise(moments(*batch), found.best).ratio == pytest.approx(1 - found.rho2)
    assert 0 < found.rho2 < 1


def test_too_much_of_a_teacher_is_worse_than_none(batch):
    best = noise(moments(*batch), 0).best
    assert noise(moments(*batch), 2 * best).ratio == pytest.approx(1)
    assert noise(moments(*batch), 2.2 * best).ratio > 1


def test_a_bad_teacher_takes_away_less(batch):
    student, teacher, taken, vectors = batch
    stranger = np.random.default_rng(2).permutation(teacher)
    assert noise(moments(student, stranger, taken, vectors), 1).rho2 < noise(moments(*batch), 1).rho2


def test_the_students_own_copy_takes_all_of_it_away(batch):
    student, _, taken, vectors = batch
    found = noise(moments(student, student, taken, vectors), 1)
    assert (found.rho2, found.best, found.ratio) == pytest.approx((1, 1, 0), abs=1e-12)


def test_batches_add_up(batch):
    parts = [moments(*(x[rows] for x in batch[:3]), batch[3]) for rows in (slice(0, 7), slice(7, 8), slice(8, None))]
    assert together(parts) == pytest.approx(moments(*batch))


def test_rows_without_anything_taken_do_not_count(batch):
    student, teacher, taken, vectors = batch
    emptied = taken.copy()
    emptied[10:] = False
    assert moments(student, teacher, emptied, vectors) == pytest.approx(
        moments(student[:10], teacher[:10], taken[:10], vectors)
    )


def test_nothing_to_divide_by_is_said():
    nothing = noise(Moments(0.0, 0.0, 0.0, 0), 1.0)
    assert math.isnan(nothing.rho2)
    assert math.isnan(nothing.best)
    assert math.isnan(nothing.ratio)
    silent = noise(Moments(0.0, 0.0, 2.0, 1), 1.0)  # a teacher that says exactly what was taken
    assert silent.ratio == 1
    assert math.isnan(silent.rho2)
