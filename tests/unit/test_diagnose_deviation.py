"""Confidence and directions: lines that are known, a spectrum written naively, and gradient descent's closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recdistill.diagnose.chances import log_odds, log_softmax
from recdistill.diagnose.deviation import exaggeration, spectrum_of_scores, spectrum_of_vectors, top_odds
from recdistill.types import Vectors


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_a_copy_is_as_sure_as_its_teacher():
    scores = 3 * draw(1, 200, 12)
    line = exaggeration(*top_odds(scores, scores))
    assert line[:3] == pytest.approx((1, 0, 1), abs=1e-9)
    assert line.users == 200


def test_of_two_items_a_sharpened_student_has_its_factor_as_slope():
    # Of two items the log-odds are the difference of scores, so a factor is exactly a slope.
    teacher = draw(2, 300, 2)
    line = exaggeration(*top_odds(1.7 * teacher + 0.4, teacher))
    assert line[:3] == pytest.approx((1.7, 0, 1.7), abs=1e-9)


def test_the_line_is_least_squares_and_the_unsure_are_the_lowest_tenth():
    teacher, student = 2 * draw(3, 400, 6), draw(4, 400, 6)
    x, y = top_odds(student, teacher)
    p, q = (np.exp(s) / np.exp(s).sum(1, keepdims=True) for s in (teacher, student))
    at = np.arange(400), teacher.argmax(1)
    np.testing.assert_allclose(x, np.log(p[at] / (1 - p[at])))
    np.testing.assert_allclose(y, np.log(q[at] / (1 - q[at])))
    line = exaggeration(x, y)
    assert (line.slope, line.intercept) == pytest.approx(tuple(np.polyfit(x, y, 1)))
    low = np.argsort(x)[:40]
    assert line.unsure == pytest.approx(np.polyfit(x[low], y[low], 1)[0])


def test_the_log_odds_of_what_is_nearly_sure_are_exact():
    scores = np.array([[500.0, 0.0, 0.0], [0.0, 0.0, -np.inf], [3.0, 1.0, 1.0]])
    mask = np.array([[True, True, True], [True, True, True], [True, False, False]])
    odds = log_odds(scores, np.zeros(3, np.int64), mask)
    assert odds.tolist() == [pytest.approx(500 - math.log(2), abs=1e-12), 0, math.inf]
    assert exaggeration(odds, odds).users == 2  # who has one candidate says nothing


def test_teachers_that_are_all_as_sure_have_no_slope():
    line = exaggeration(np.ones(5), np.arange(5.0))
    assert math.isnan(line.slope)
    assert math.isnan(exaggeration(np.zeros(0), np.zeros(0)).intercept)


def test_masked_items_change_nothing():
    student, teacher = draw(5, 30, 8), draw(6, 30, 8)
    mask = np.tile(np.arange(8) < 5, (30, 1))
    for a, b in zip(top_odds(student, teacher, mask), top_odds(student[:, :5], teacher[:, :5]), strict=True):
        np.testing.assert_allclose(a, b)


def naive_spectrum(student, teacher, counts, k):
    s, t = student - student.mean(1, keepdims=True), teacher - teacher.mean(1, keepdims=True)
    found = []
    for v in np.linalg.svd(t)[2][:k]:
        v = -v if (t @ v).sum() < 0 else v
        apart, energy = ((s - t) @ v) @ ((s - t) @ v), (t @ v) @ (t @ v)
        correlation = np.corrcoef(v, np.log1p(counts))[0, 1]
        found.append((energy / (t**2).sum(), apart / ((s - t) ** 2).sum(), (s @ v) @ (t @ v) / energy, correlation))
    return np.array(found).T


@pytest.fixture
def models():
    teacher = Vectors(users=draw(7, 70, 6).astype(np.float32), items=(draw(8, 40, 6) + 0.3).astype(np.float32))
    student = Vectors(users=draw(9, 70, 4).astype(np.float32), items=draw(10, 40, 4).astype(np.float32))
    return student, teacher, np.random.default_rng(11).integers(0, 50, 40)


def dense(vectors):
    return vectors.users.astype(np.float64) @ vectors.items.astype(np.float64).T


@pytest.mark.parametrize("block", [65_536, 16])
def test_the_spectrum_is_the_same_from_vectors_from_scores_and_written_naively(models, monkeypatch, block):
    monkeypatch.setattr("recdistill.diagnose.deviation.BLOCK", block)
    student, teacher, counts = models
    expected = naive_spectrum(dense(student), dense(teacher), counts, 5)
    np.testing.assert_allclose(spectrum_of_scores(dense(student), dense(teacher), counts, k=5), expected, atol=1e-9)
    np.testing.assert_allclose(spectrum_of_vectors(student, teacher, counts, k=5), expected, atol=1e-9)


def test_a_teacher_has_no_more_directions_than_dimensions(models):
    student, teacher, counts = models
    for found in (
        spectrum_of_vectors(student, teacher, counts, k=30),
        spectrum_of_scores(dense(student), dense(teacher), counts, k=30),
    ):
        assert len(found.teacher) == 6
        assert found.teacher.sum() == pytest.approx(1)
        assert found.residual.sum() < 1


def test_what_a_student_adds_to_all_items_of_a_user_is_no_residual(models):
    _, teacher, counts = models
    scores = dense(teacher)
    moved = spectrum_of_scores(scores + draw(12, 70, 1), scores + draw(13, 70, 1), counts, k=3)
    np.testing.assert_allclose(moved.gain, 1)
    same = spectrum_of_vectors(teacher, teacher, counts, k=3)
    assert np.isnan(same.residual).all()
    np.testing.assert_allclose(same.gain, 1)


def test_a_residual_along_popularity_is_found_on_the_direction_that_is_popular():
    rng = np.random.default_rng(14)
    counts = rng.integers(1, 1000, 60)
    popular = np.log1p(counts) - np.log1p(counts).mean()
    other = draw(15, 60)
    other -= other.mean() + popular * (other @ popular) / (popular @ popular)
    by_user = draw(16, 80)
    by_user -= by_user.mean()  # so that no user's taste leans on popularity
    teacher = 3 * np.outer(np.ones(80), popular) + np.outer(by_user, other)
    student = teacher + 0.5 * np.outer(np.ones(80), popular)
    found = spectrum_of_scores(student, teacher, counts, k=2)
    np.testing.assert_allclose(found.popularity[0], 1)
    np.testing.assert_allclose(found.residual, [1, 0], atol=1e-12)
    np.testing.assert_allclose(found.gain, [3.5 / 3, 1])


def test_scores_that_are_not_all_there_are_refused():
    scores = np.array([[1.0, -np.inf]])
    with pytest.raises(ValueError, match="unmasked"):
        spectrum_of_scores(scores, np.zeros((1, 2)), np.ones(2, np.int64), k=1)


def test_a_student_of_gradient_descent_is_more_skewed_to_the_top_than_its_teacher():
    # Least squares from zero: teacher 1 - (1 - lr e)^k1 along each eigendirection, student that times its own factor.
    rng = np.random.default_rng(17)
    basis = np.linalg.qr(rng.normal(size=(30, 3)) - 0.0)[0]
    basis = np.linalg.qr(basis - basis.mean(0))[0]  # item directions, orthogonal to what all items share
    energy, rate, first, second = np.array([4.0, 1.0, 0.2]), 0.01, 60, 200
    users = np.linalg.qr(rng.normal(size=(50, 3)))[0] * np.sqrt(energy)

    def descend(target, steps):
        weights = np.zeros((3, 30))
        for _ in range(steps):
            weights = weights + rate * users.T @ (target - users @ weights)
        return users @ weights

    teacher = descend(users @ basis.T, first)
    student = descend(teacher, second)
    found = spectrum_of_scores(student, teacher, np.arange(30), k=3)
    np.testing.assert_allclose(found.gain, 1 - (1 - rate * energy) ** second, atol=1e-9)
    assert (np.diff(found.gain) < 0).all()


def test_log_chances_sum_to_one_and_leave_out_what_is_masked():
    scores = 700 * draw(18, 5, 7)
    mask = np.random.default_rng(19).random((5, 7)) < 0.6
    mask[0] = False
    logs = log_softmax(scores, mask)
    assert (logs[~mask] == -np.inf).all()
    np.testing.assert_allclose(np.exp(logs).sum(1), [0, 1, 1, 1, 1])
