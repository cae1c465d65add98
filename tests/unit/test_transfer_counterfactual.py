"""Who teaches whom, by hand and at its limits."""

from __future__ import annotations

import numpy as np

from recdistill.transfer.counterfactual import quality_of, route

QUALITY = np.array([[0.2, 0.5, 0.3], [0.4, 0.1, 0.6]])


def test_everyone_learns_from_the_best_that_is_better():
    assert route(QUALITY).tolist() == [[1, -1, 1], [2, 2, -1]]


def test_no_teacher_is_weaker_than_its_student():
    quality = np.random.default_rng(0).random((50, 6))
    found = route(quality)
    for segment, row in enumerate(found):
        for student, teacher in enumerate(row):
            best = max(range(6), key=lambda m, s=segment: quality[s, m])
            assert teacher == (best if quality[segment, best] > quality[segment, student] else -1)


def test_who_is_best_everywhere_teaches_all_and_learns_nothing():
    quality = np.array([[0.9, 0.5, 0.3], [0.7, 0.1, 0.6]])
    found = route(quality)
    assert (found[:, 0] == -1).all()
    assert (found[:, 1:] == 0).all()


def test_equals_do_not_teach_each_other():
    assert route(np.full((2, 3), 0.4)).tolist() == [[-1] * 3] * 2
    assert route(np.array([[0.4, 0.6, 0.6]])).tolist() == [[1, -1, -1]]


def test_who_was_not_measured_neither_teaches_nor_learns():
    assert route(np.array([[np.nan, 0.2, 0.5], [np.nan] * 3, [np.nan, 0.2, np.nan]])).tolist() == [
        [-1, 2, -1],
        [-1, -1, -1],
        [-1, -1, -1],
    ]


def test_quality_is_the_mean_of_a_segment():
    values = np.array([[0.2, 1.0], [0.4, np.nan], [0.9, 0.5], [0.1, np.nan]])
    found = quality_of(values, np.array([0, 0, 2, 3]), 4)
    np.testing.assert_allclose(found, [[0.3, 1.0], [np.nan, np.nan], [0.9, 0.5], [0.1, np.nan]])
