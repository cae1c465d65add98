"""List losses that compare items one by one or in pairs, against their formulas written as loops."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.distill import losses
from recdistill.types import Candidates


def rows(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def candidates(teacher, ranked=None, items=None):
    items = torch.arange(teacher.numel()).view(teacher.shape) if items is None else items
    return Candidates(items=items, teacher=teacher, ranked=teacher.shape[1] if ranked is None else ranked)


def gradient(loss, student):
    student = student.detach().clone().requires_grad_(True)
    loss(student).sum().backward()
    return student.grad


def log_sigmoid(x):
    return -math.log(1 + math.exp(-x))


def test_normalised_ce_closed_form():
    student, teacher = rows(0, 3, 5), rows(1, 3, 5)
    p, q = (x.sigmoid() / x.sigmoid().sum(1, keepdim=True) for x in (teacher, student))
    torch.testing.assert_close(losses.normalised_ce(student, candidates(teacher)), -(p * q.log()).sum(1))


def test_the_calibrated_student_is_among_the_minimisers_of_normalised_ce_but_not_of_a_softmax():
    teacher = rows(2, 4, 6)
    given = candidates(teacher)
    assert gradient(lambda s: losses.normalised_ce(s, given), teacher).abs().max() < 1e-12
    least = losses.normalised_ce(teacher, given)
    for seed in range(20):
        other = teacher + 0.3 * rows(10 + seed, 4, 6)
        assert (losses.normalised_ce(other, given) > least).all()
    # A softmax rests at any level: there the loss says nothing of calibration, here another level costs.
    assert (losses.normalised_ce(teacher + 1, given) - least > 1e-4).all()
    halved = torch.logit(teacher.sigmoid() / 2)  # chances in proportion give the same distribution
    torch.testing.assert_close(losses.normalised_ce(halved, given), least)


def test_logit_and_margin_mse_closed_forms():
    student, teacher = rows(3, 3, 5), rows(4, 3, 5)
    given = candidates(teacher)
    points, margins = [], []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        points.append(sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / 5)
        margins.append(sum(((s[0] - s[j]) - (t[0] - t[j])) ** 2 for j in range(1, 5)) / 4)
    assert losses.logit_mse(student, given).tolist() == pytest.approx(points, rel=1e-12)
    assert losses.margin_mse(student, given).tolist() == pytest.approx(margins, rel=1e-12)


def test_margin_mse_rests_at_the_teacher_up_to_a_constant_and_keeps_the_sign():
    teacher = torch.tensor([[2.0, 1.0, -1.0]])
    assert losses.margin_mse(teacher - 4, candidates(teacher)).item() == 0
    assert losses.margin_mse(-teacher, candidates(teacher)).item() == pytest.approx((2**2 + 6**2) / 2)


def test_margin_mse_says_nothing_where_the_first_item_is_not_known():
    teacher = torch.tensor([[-torch.inf, 1.0, 2.0], [0.0, 1.0, 2.0]])
    given = candidates(teacher, items=torch.tensor([[4, 1, 2], [-1, 1, 2]]))
    student = torch.tensor([[5.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    assert losses.margin_mse(student, given).tolist() == [0, 0]
    assert (gradient(lambda s: losses.margin_mse(s, given), student) == 0).all()


def test_pairwise_is_the_mean_over_whole_pairs():
    student = rows(5, 2, 6)
    items = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, -1, 3, 4, 5]])
    given = candidates(student, items=items)
    s = student.tolist()
    expected = [-sum(log_sigmoid(s[0][j] - s[0][j + 1]) for j in (0, 2, 4)) / 3]
    expected += [-sum(log_sigmoid(s[1][j] - s[1][j + 1]) for j in (0, 4)) / 2]
    assert losses.pairwise(student, given).tolist() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(RuntimeError):
        losses.pairwise(student[:, :5], candidates(student[:, :5]))


# RD


def slow_hard_bce(scores, items, ranked, decay, sharpness, dynamic, num_items):
    listed = [s for s, i in zip(scores[:ranked], items[:ranked], strict=True) if i >= 0]
    rest = [s for s, i in zip(scores[ranked:], items[ranked:], strict=True) if i >= 0]
    weights = []
    for r, s in enumerate(listed):
        weight = math.exp(-r / decay)
        if dynamic:
            estimate = ((num_items - 1) * sum(x > s for x in rest)) // len(rest)
            weight *= math.tanh(max(sharpness * (estimate - r), 0))
        weights.append(weight)
    total = sum(weights)
    return -sum(w / total * log_sigmoid(s) for w, s in zip(weights, listed, strict=True)) if total else 0.0


@pytest.mark.parametrize("dynamic", [0.0, 1.0])
def test_hard_bce_is_the_loop_over_ranks(dynamic):
    student = (rows(6, 40, 25) * 4).round() / 4  # so that scores tie: an equal score is not above
    items = torch.arange(1000).view(40, 25).clone()
    items[rows(7, 40, 25) > 1] = -1
    settings = {"decay": 1.7, "sharpness": 0.02, "num_items": 117}
    expected = [
        slow_hard_bce(s, i, 8, dynamic=dynamic, **settings)
        for s, i in zip(student.tolist(), items.tolist(), strict=True)
    ]
    given = candidates(student, 8, items)
    assert losses.hard_bce(student, given, dynamic=dynamic, **settings).tolist() == pytest.approx(expected, rel=1e-9)
    as_tensor = losses.hard_bce(student, given, dynamic=torch.tensor(dynamic), **settings)
    assert as_tensor.tolist() == pytest.approx(expected, rel=1e-9)


def test_hard_bce_sends_no_gradient_through_its_weights_or_to_the_unranked():
    student = rows(8, 5, 12)
    given = candidates(student, 4)
    settings = {"decay": 2.0, "sharpness": 0.1, "dynamic": 1.0, "num_items": 100}
    found = gradient(lambda s: losses.hard_bce(s, given, **settings), student)
    assert (found[:, 4:] == 0).all()
    share = found[:, :4] / -torch.sigmoid(-student[:, :4])  # the derivative of -log sigmoid, taken away: the weights
    assert (share >= 0).all()
    totals = share.sum(1)
    assert (((totals - 1).abs() < 1e-12) | (totals == 0)).all()


def test_hard_bce_lets_a_row_rest_whose_items_all_stand_high_and_one_without_draws():
    student = torch.tensor([[5.0, 4.0, 1.0, 0.0], [0.0, 1.0, 5.0, 4.0], [0.0, 1.0, 0.0, 0.0]])
    items = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, -1, -1]])
    settings = {"decay": 1.0, "sharpness": 0.1, "num_items": 100}
    found = losses.hard_bce(student, candidates(student, 2, items), dynamic=1.0, **settings)
    assert found[0] == 0
    assert found[1] > 0
    assert found[2] == 0
    assert (losses.hard_bce(student, candidates(student, 2, items), dynamic=0.0, **settings) > 0).all()


def test_hard_bce_weighs_an_item_far_down_the_list_where_it_alone_stands_too_low():
    student = torch.full((1, 302), 5.0)
    student[0, 299], student[0, 300:] = -2.0, 0.0
    given = candidates(student, 300)
    found = losses.hard_bce(student, given, decay=1.0, sharpness=0.1, dynamic=1.0, num_items=10_000)
    assert found.item() == pytest.approx(-log_sigmoid(-2.0), rel=1e-5)  # exp(-299) is 0 in float32
