"""What is inherited: by a copy all, by a stranger nothing; without an independent student it is not said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recdistill.diagnose.inherit import attribution_iou, diversity, error_overlap, iou, transfer_index


def lists(seed, n=200, k=6, items=20):
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(items)[:k] for _ in range(n)])


def test_a_copy_scores_one_and_nothing_more():
    one, two = lists(1), lists(2)
    assert (iou(one, one, 5) == 1).all()
    sets = [(set(a[:5]), set(b[:5])) for a, b in zip(one.tolist(), two.tolist(), strict=True)]
    np.testing.assert_allclose(iou(one, two, 5), [len(a & b) / len(a | b) for a, b in sets])
    np.testing.assert_allclose(iou(one, two, 5), iou(two, one, 5))
    assert math.isnan(iou(np.full((1, 2), -1), np.full((1, 2), -1), 2)[0])


def test_attributions_agree_by_their_largest_places():
    first = np.array([[0.9, 0.5, 0.1, 0.0], [0.2, 0.8, 9.0, 9.0]])
    second = np.array([[5.0, 0.0, 1.0, 0.2], [0.3, 0.1, 0.0, 7.0]])
    mask = np.array([[True] * 4, [True, True, False, False]])
    np.testing.assert_allclose(attribution_iou(first, second, 2, mask), [1 / 3, 1])
    np.testing.assert_allclose(attribution_iou(first, 7 * first, 2, mask), 1)


def test_diversity_is_what_pairs_do_not_share():
    same = lists(3)
    assert (diversity([same, same, same], 5) == 0).all()
    assert (diversity([same, same + 100], 5) == 1).all()
    np.testing.assert_allclose(diversity([same, same, same + 100], 5), 2 / 3)
    with pytest.raises(ValueError, match="two or more"):
        diversity([same], 5)


def test_models_that_drop_more_are_more_diverse():
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(300, 20))
    spread = [
        diversity([np.argsort(-(scores + noise * rng.normal(size=scores.shape)), axis=1) for _ in range(3)], 5).mean()
        for noise in (0.1, 0.5, 2.0)
    ]
    assert spread[0] < spread[1] < spread[2]


def test_errors_overlap_where_both_miss_the_same():
    #                held out: 0 and 1     2           4 and 5     nothing
    rows, items = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 2, 4, 5])
    first = np.array([[0, 9], [2, 9], [9, 8], [1, 2]])
    second = np.array([[1, 9], [2, -1], [9, 4], [1, 2]])
    overlap = error_overlap(first, second, rows, items, 1)
    assert overlap.tolist()[:1] + overlap.tolist()[2:3] == [0, 1]
    assert math.isnan(overlap[1])
    assert math.isnan(overlap[3])
    assert error_overlap(first, second, rows, items, 2)[2] == 0.5


def test_a_student_that_copies_inherits_and_one_that_does_not_does_not():
    rng = np.random.default_rng(5)
    teacher = rng.normal(size=(400, 30))

    def near(weight):
        return np.argsort(-(weight * teacher + rng.normal(size=teacher.shape)), axis=1)

    shown = np.argsort(-teacher, axis=1)
    distilled, independent, again = (iou(near(w), shown, 5) for w in (3, 0.5, 0.5))
    found = transfer_index(distilled, independent, times=300, seed=0)
    assert 0 < found.low < found.index < found.high
    assert found.index == pytest.approx(found.student - found.independent)
    nothing = transfer_index(again, independent, times=300, seed=0)
    assert nothing.low < 0 < nothing.high
    copy = transfer_index(iou(shown, shown, 5), independent, times=300, seed=0)
    assert copy.student == 1


def test_users_without_a_value_are_left_out_in_pairs():
    found = transfer_index(np.array([1.0, np.nan, 0.5]), np.array([0.5, 0.0, np.nan]), times=10, seed=0)
    assert (found.users, found.index, found.low, found.high) == (1, 0.5, 0.5, 0.5)


def test_without_an_independent_student_the_index_is_refused():
    with pytest.raises(ValueError, match="train the student without distillation"):
        transfer_index(np.ones(3), None, times=10, seed=0)
    with pytest.raises(ValueError, match="same users"):
        transfer_index(np.ones(1), np.array([np.nan]), times=10, seed=0)
