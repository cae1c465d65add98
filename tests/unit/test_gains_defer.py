"""Asking the teacher under a budget: features by hand, thresholds within the budget, a planted advantage found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recdistill.gains.defer import advantage, asked, fit_gate, judge, list_features, reranked, threshold
from recdistill.types import Interactions

BUDGETS = [0.0, 0.1, 0.29, 0.5, 1 - 0.9, 1.0]


def planted(n: int = 4000, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, advantages that a line of the second and third tells, and who is fitted."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, 4)) * [1, 5, 0.1, 100] + [2, 0, 3, 50]
    gains = 0.2 + 0.3 * features[:, 1] - 8 * (features[:, 2] - 3) + noise * rng.standard_normal(n)
    return features, gains, np.arange(n) % 2 == 0


def test_features_are_what_they_are_by_hand() -> None:
    scores = np.array([[2.0, 1.0, 0.5], [3.0, -np.inf, -np.inf], [-np.inf] * 3], np.float32)
    items = np.array([[0, 2, 1], [1, -1, -1], [-1, -1, -1]])
    found = list_features(scores, items, np.array([4, 0, 1]), np.array([10.0, 20.0, 60.0], np.float32))
    p = np.exp([2.0, 1.0, 0.5]) / np.exp([2.0, 1.0, 0.5]).sum()
    np.testing.assert_allclose(found[0], [-(p * np.log(p)).sum(), 1.0, math.log(5), 30.0])
    np.testing.assert_allclose(found[1], [0, 0, 0, 20])
    np.testing.assert_allclose(found[2], [0, 0, math.log(2), 0])


def test_entropy_ends_at_the_logarithm_of_the_length_and_no_level_moves_it() -> None:
    items, history, popularity = np.tile(np.arange(6), (3, 1)), np.zeros(3, np.int64), np.ones(6, np.float32)
    flat = list_features(np.full((3, 6), 1e4, np.float32), items, history, popularity)
    np.testing.assert_allclose(flat[:, 0], math.log(6))
    scores = np.sort(np.random.default_rng(0).standard_normal((3, 6)))[:, ::-1]
    moved = [list_features(scores + by, items, history, popularity) for by in (0.0, 5.0)]
    np.testing.assert_allclose(*moved)
    one = list_features(scores[:, :1], items[:, :1], history, popularity)
    assert not one[:, :2].any()


def test_reranking_orders_by_the_teacher_and_keeps_equals() -> None:
    items, teacher = np.array([[5, 3, 8, -1], [1, 2, 4, 6]]), np.array([[0.1, 2.0, 0.5, 9.0], [1.0, 1.0, 3.0, 1.0]])
    np.testing.assert_array_equal(reranked(items, teacher.astype(np.float32)), [[3, 8, 5, -1], [4, 1, 2, 6]])
    many = np.random.default_rng(0).permutation(200)[None]
    np.testing.assert_array_equal(reranked(many, np.zeros((1, 200), np.float32)), many)
    halves = np.concatenate([many[:, 1::2], many[:, ::2]], axis=1)
    np.testing.assert_array_equal(reranked(many, (np.arange(200) % 2).astype(np.float32)[None]), halves)


def test_the_advantage_is_the_difference_of_the_metrics() -> None:
    truth = Interactions(indptr=np.array([0, 1, 1, 3]), items=np.array([8, 3, 5]))
    items, users = np.array([[5, 3, 8], [3, 8, 5]]), np.array([0, 2])
    teacher = np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 1.0]], np.float32)
    np.testing.assert_allclose(advantage(items, teacher, truth, users, k=3, metric="mrr"), [1 - 1 / 3, -0.5])
    dcg = 1 + 1 / math.log2(3)
    np.testing.assert_allclose(advantage(items, teacher, truth, users, k=2), [1, 1 / math.log2(3) / dcg - 1 / dcg])
    with pytest.raises(ValueError, match="user 1 has no truth"):
        advantage(items, teacher, truth, np.array([0, 1]), k=3)


def test_the_gate_is_ridge_regression_by_hand() -> None:
    features, gains, _ = planted(300)
    x = (features - features.mean(0)) / features.std(0)
    for ridge in (0.0, 0.2):
        by_hand = np.linalg.solve(x.T @ x + ridge * 300 * np.eye(4), x.T @ gains)
        np.testing.assert_allclose(fit_gate(features, gains, ridge=ridge)(features), x @ by_hand + gains.mean())


def test_units_of_features_do_not_matter_nor_one_that_never_varies() -> None:
    features, gains, _ = planted(300)
    told = fit_gate(features, gains)(features)
    other = features * [1e-3, 7, 100, 1e4] + [5, 0, -3, 1e3]
    np.testing.assert_allclose(fit_gate(other, gains)(other), told, rtol=1e-6, atol=1e-9)
    still = np.concatenate([features, np.full((300, 1), 0.1)], axis=1)
    gate = fit_gate(still, gains)
    assert gate.weights[4] == 0
    np.testing.assert_allclose(gate(still), told)


@pytest.mark.parametrize("n", [1, 7, 10, 100, 999])
def test_no_more_are_asked_for_than_the_budget_allows(n: int) -> None:
    signal = np.random.default_rng(n).standard_normal(n)
    tied = np.round(signal)
    for i in range(n + 1):
        assert (signal > threshold(signal, i / n)).sum() == i
        below = max(float(np.nextafter(i / n, -1)), 0.0)
        assert (signal > threshold(signal, below)).sum() == max(i - 1, 0)
    for budget in [*BUDGETS, *(i / n for i in range(n + 1))]:
        rate = (signal > threshold(signal, budget)).mean()
        assert rate <= budget
        assert rate > budget - 1 / n - 1e-12
        assert (tied > threshold(tied, budget)).mean() <= budget
    assert (tied > threshold(tied, 1.0)).all()
    with pytest.raises(ValueError, match="share"):
        threshold(signal, 1.1)


def test_the_threshold_takes_the_largest_and_beats_chance() -> None:
    gains = np.exp(np.random.default_rng(0).standard_normal(2000)) - 1
    rates, found = asked(gains, gains, [0.1])
    above = gains > threshold(gains, 0.1)
    assert rates[0] == 0.1
    assert gains[above].sum() == pytest.approx(np.sort(gains)[-200:].sum())
    assert found[0] == pytest.approx(np.sort(gains)[-200:].sum() / 2000)
    assert found[0] > 0.1 * gains.mean()


def test_a_budget_of_nothing_is_the_student_and_of_one_the_cascade() -> None:
    features, gains, fitted = planted()
    curve = judge(features, gains, fitted, budgets=BUDGETS)
    everybody = gains[~fitted].mean()
    assert (curve.rate <= curve.budget).all()
    assert (curve.rate[0], curve.gain[0], curve.random[0], curve.entropy[0], curve.oracle[0]) == (0, 0, 0, 0, 0)
    assert curve.rate[-1] == 1
    assert [curve.gain[-1], curve.entropy[-1], curve.random[-1]] == pytest.approx([everybody] * 3)
    assert curve.oracle[-1] == pytest.approx(np.maximum(gains[~fitted], 0).mean())


def test_a_planted_advantage_is_found_where_entropy_tells_nothing() -> None:
    features, gains, fitted = planted()
    curve = judge(features, gains, fitted, budgets=[0.1, 0.2, 0.5])
    assert (curve.gain > 0.85 * curve.oracle).all()
    assert (curve.gain <= curve.oracle).all()
    assert (np.abs(curve.entropy - curve.random) < 0.2 * curve.oracle).all()
    assert (curve.gain > gains[~fitted].mean()).all()  # asking for all asks for those who lose by it


def test_where_it_tells_everything_entropy_alone_is_the_gate() -> None:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((2000, 4))
    curve = judge(features, features[:, 0] * 0.5, np.arange(2000) < 1000, budgets=[0.1, 0.4], ridge=0.0)
    np.testing.assert_allclose(curve.gain, curve.oracle)
    np.testing.assert_allclose(curve.entropy, curve.oracle)


def test_who_is_judged_is_not_fitted() -> None:
    features, gains, fitted = planted(400)
    other = np.where(fitted, gains, -gains)
    one, two = (judge(features, g, fitted, budgets=[0.3]) for g in (gains, other))
    assert one.rate == two.rate
    assert one.gain == pytest.approx(-two.gain)


def test_an_empty_part_is_refused() -> None:
    features, gains, _ = planted(10)
    with pytest.raises(ValueError, match="judged"):
        judge(features, gains, np.ones(10, np.bool_))
    with pytest.raises(ValueError, match="fitted"):
        judge(features, gains, np.zeros(10, np.bool_))
