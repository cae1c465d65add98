"""The trade of precision for recall: the toy in which it is known, and a catalogue in which lists show it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recdistill.diagnose.chances import log_softmax
from recdistill.diagnose.frontier import likelihood, point, teacher_chance, trade
from recdistill.types import Interactions


def entropy(scores):
    logs = log_softmax(scores)
    return -(np.exp(logs) * logs).sum(1)


def test_a_sharper_teacher_gives_precision_and_takes_recall():
    # Four modes of unequal weight, and a student of one mode, fitted to the teacher with weights to the power of beta.
    x = np.linspace(-6, 6, 601)
    modes = np.exp(-((x - np.array([[-4], [-1.3], [1.3], [4]])) ** 2) / 0.5)
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    truth = np.log(weights @ modes)[None]
    points = []
    for beta in (1, 2, 4, 8, 16):
        taught = weights**beta @ modes
        taught /= taught.sum()
        mean = taught @ x
        student = -((x - mean) ** 2) / (2 * taught @ (x - mean) ** 2)  # the normal of least forward KL
        points.append(trade(student[None], truth))
    precision, recall = np.array(points)[..., 0].T
    assert precision[-1] > precision[0]
    assert (np.diff(recall) < 0).all()


def test_a_power_of_chances_is_a_factor_of_scores_and_sharpens():
    scores = np.random.default_rng(0).normal(size=(20, 9))
    power = np.exp(log_softmax(scores)) ** 2
    np.testing.assert_allclose(np.exp(log_softmax(2 * scores)), power / power.sum(1, keepdims=True))
    falling = [entropy(beta * scores).mean() for beta in (0.5, 1, 2, 4, 8)]
    assert (np.diff(falling) < 0).all()


def test_of_itself_both_sides_are_the_negative_entropy_and_recall_is_at_its_best():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(20, 9))
    same = trade(scores, scores)
    np.testing.assert_allclose(same.precision, -entropy(scores))
    np.testing.assert_allclose(same.recall, -entropy(scores))
    assert (trade(rng.normal(size=(20, 9)), scores).recall < same.recall).all()


def test_what_has_no_chance_costs_only_where_it_is_shown():
    open_, closed = np.zeros((1, 2)), np.array([[0.0, -np.inf]])
    assert trade(open_, closed) == (-math.inf, pytest.approx(-math.log(2)))
    assert trade(closed, open_) == (pytest.approx(-math.log(2)), -math.inf)


def test_the_teachers_chance_is_the_mean_over_what_is_shown():
    teacher = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.2, 0.2, 0.6]])) + 3
    shown = np.array([[0, 2, 1], [1, -1, -1], [-1, -1, -1]])
    found = teacher_chance(shown, teacher, 2)
    assert found.tolist()[:2] == pytest.approx([(math.log(0.5) + math.log(0.25)) / 2, math.log(0.2)])
    assert math.isnan(found[2])


def test_the_likelihood_is_of_what_is_held_out_and_could_be_told():
    student = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.9, 0.0001], [0.2, 0.2, 0.6]]))
    student[1, 2] = -np.inf
    found = likelihood(student, np.array([0, 0, 1, 1]), np.array([0, 1, 2, 0]))
    assert found.tolist()[:2] == pytest.approx([(math.log(0.5) + math.log(0.25)) / 2, math.log(0.1)])
    assert math.isnan(found[2])


def test_students_of_sharper_teachers_stand_further_along_the_frontier():
    # Each of two groups of users likes its own half of a catalogue; a student shows what its teacher's chances draw.
    rng = np.random.default_rng(2)
    n, items, k = 200, 40, 5
    scores = rng.normal(size=(1, items)) + np.where(np.arange(n)[:, None] % 2 == np.arange(items) % 2, 1.0, 0.0)
    taken = np.argsort(-(scores + rng.gumbel(size=(n, items))), axis=1)[:, :6]
    train, truth = (
        Interactions(indptr=np.arange(n + 1) * 3, items=np.sort(part, 1).ravel())
        for part in (taken[:, :3], taken[:, 3:])
    )
    rows = np.repeat(np.arange(n), 3)
    found = []
    for beta in (0.5, 1.0, 2.0, 4.0):
        lists = np.argsort(-(beta * scores + rng.gumbel(size=(n, items))), axis=1)[:, :k]
        chance, likely = teacher_chance(lists, scores, k), likelihood(beta * scores, rows, truth.items)
        found.append(point(lists, chance, likely, train, truth, np.arange(n), num_items=items, k=k))
    assert (np.diff([p.teacher_chance for p in found]) > 0).all()
    assert (np.diff([p.coverage for p in found]) <= 0).all()
    assert found[-1].tail_recall < found[0].tail_recall
    assert found[-1].likelihood < found[1].likelihood
    assert 0 < found[0].relevance < 1
