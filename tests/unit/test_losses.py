"""List losses against float64 references written as loops, their invariances, and what padding must not do."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from recdistill.distill import losses, task_losses
from recdistill.types import Candidates

KL = partial(losses.softmax_kl, temperature=1.7)
BCE = partial(losses.soft_bce, temperature=2.0, shift=0.4)
LOSSES = {"softmax_kl": KL, "soft_bce": BCE, "plackett_luce": losses.plackett_luce}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def rows(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def candidates(teacher, ranked=None, items=None):
    items = torch.arange(teacher.shape[1]).expand(teacher.shape) if items is None else items
    return Candidates(items=items, teacher=teacher, ranked=teacher.shape[1] if ranked is None else ranked)


def gradient(loss, student):
    student = student.detach().clone().requires_grad_(True)
    loss(student).sum().backward()
    return student.grad


def numeric_gradient(loss, student, step=1e-6):
    grad = torch.zeros_like(student)
    for at in range(student.numel()):
        nudge = torch.zeros_like(student).view(-1)
        nudge[at] = step
        nudge = nudge.view(student.shape)
        grad.view(-1)[at] = (loss(student + nudge) - loss(student - nudge)).sum() / (2 * step)
    return grad


def slow_plackett_luce(scores, ranked):
    """The likelihood of choosing the ranked items one after another from all that are left."""
    total = 0.0
    for place in range(ranked):
        left = scores[place:]
        total -= scores[place] - math.log(sum(math.exp(s) for s in left))
    return total / ranked


# Plackett-Luce


@pytest.mark.parametrize("ranked", [1, 3, 5, 7])
def test_plackett_luce_is_the_loop_over_places(ranked):
    student = rows(0, 6, 7)
    expected = [slow_plackett_luce(row.tolist(), ranked) for row in student]
    found = losses.plackett_luce(student, candidates(rows(1, 6, 7), ranked))
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_plackett_luce_of_one_ranked_item_is_the_cross_entropy():
    student = rows(2, 4, 5)
    expected = student.logsumexp(1) - student[:, 0]
    torch.testing.assert_close(losses.plackett_luce(student, candidates(student, 1)), expected)


@every_loss
def test_the_gradient_is_that_of_finite_differences(loss):
    student, given = rows(3, 3, 6), candidates(rows(4, 3, 6), 4)
    found = gradient(lambda s: loss(s, given), student)
    torch.testing.assert_close(found, numeric_gradient(lambda s: loss(s, given), student), atol=1e-8, rtol=1e-6)


def test_plackett_luce_ignores_the_order_of_the_unranked_and_reads_that_of_the_ranked():
    student, given = rows(5, 4, 7), candidates(rows(6, 4, 7), 3)
    before = losses.plackett_luce(student, given)
    torch.testing.assert_close(losses.plackett_luce(student[:, [0, 1, 2, 6, 4, 3, 5]], given), before)
    swapped = losses.plackett_luce(student[:, [1, 0, 2, 3, 4, 5, 6]], given)
    assert ((swapped - before).abs() > 1e-6).all()


def test_plackett_luce_is_least_for_the_teachers_order():
    falling = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    right = losses.plackett_luce(falling, candidates(falling))
    for order in ([1, 0, 2, 3], [0, 2, 1, 3], [3, 2, 1, 0]):
        assert losses.plackett_luce(falling[:, order], candidates(falling)) > right


# Softmax KL


def test_kl_is_the_forward_direction():
    teacher, student = [4.0, 0.0, -1.0], [0.5, 0.0, 0.5]
    p = [math.exp(t / 2) for t in teacher]
    q = [math.exp(s / 2) for s in student]
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    forward = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    backward = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    found = losses.softmax_kl(torch.tensor([student]), candidates(torch.tensor([teacher])), temperature=2.0)
    assert found.item() == pytest.approx(forward, rel=1e-5)
    assert abs(forward - backward) > 0.05


def test_kl_is_zero_at_equality_up_to_a_constant_and_positive_elsewhere():
    teacher = rows(7, 50, 6)
    assert KL(teacher + 3.0, candidates(teacher)).abs().max() < 1e-12
    assert (KL(rows(8, 50, 6), candidates(teacher)) > 0).all()


def test_kl_gradient_is_the_difference_of_the_softmaxes_over_temperature():
    student, teacher = rows(9, 3, 5), rows(10, 3, 5)
    expected = ((student / 1.7).softmax(1) - (teacher / 1.7).softmax(1)) / 1.7
    torch.testing.assert_close(gradient(lambda s: KL(s, candidates(teacher)), student), expected)


def test_kl_at_a_high_temperature_is_the_centred_squared_difference():
    student, teacher = rows(11, 4, 5), rows(12, 4, 5)
    hot = 1e4
    gap = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    found = losses.softmax_kl(student, candidates(teacher), temperature=hot) * hot**2
    torch.testing.assert_close(found, (gap**2).mean(1) / 2, rtol=1e-3, atol=1e-6)


def test_kl_at_a_low_temperature_asks_for_the_best_item_alone():
    student, teacher = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[9.0, 5.0, 1.0]])
    found = losses.softmax_kl(student, candidates(teacher), temperature=0.05) * 0.05
    assert found.item() == pytest.approx(1.0, abs=1e-4)  # the largest student score less that of the teacher's best


# Soft BCE


def test_soft_bce_closed_form():
    student, teacher = rows(13, 3, 4), rows(14, 3, 4)
    expected = []
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        total = 0.0
        for s, t in zip(s_row, t_row, strict=True):
            y, p = 1 / (1 + math.exp(-(t + 0.4) / 2)), 1 / (1 + math.exp(-s))
            total -= y * math.log(p) + (1 - y) * math.log(1 - p)
        expected.append(total / 4)
    assert BCE(student, candidates(teacher)).tolist() == pytest.approx(expected, rel=1e-12)


def test_soft_bce_rests_where_the_sigmoids_agree():
    teacher = rows(15, 3, 4)
    assert gradient(lambda s: BCE(s, candidates(teacher)), (teacher + 0.4) / 2).abs().max() < 1e-12
    assert gradient(lambda s: BCE(s, candidates(teacher)), teacher).abs().max() > 1e-3


# What all of them do, and do not


@pytest.mark.parametrize("name", ["softmax_kl", "plackett_luce"])
def test_a_constant_added_to_a_users_scores_changes_nothing(name):
    student, given = rows(16, 5, 6), candidates(rows(17, 5, 6), 4)
    shift = torch.tensor([[-3.0], [0.5], [2.0], [10.0], [-7.0]], dtype=torch.float64)
    torch.testing.assert_close(LOSSES[name](student + shift, given), LOSSES[name](student, given))


def test_soft_bce_reads_the_level_of_the_scores():
    student, given = rows(16, 5, 6), candidates(rows(17, 5, 6))
    assert ((BCE(student + 1, given) - BCE(student, given)).abs() > 1e-3).all()


@every_loss
def test_padding_changes_neither_value_nor_gradient(loss):
    student, teacher = rows(18, 3, 6).float(), rows(19, 3, 6).float()
    plain = partial(loss, candidates=candidates(teacher, 4))
    wide = [0, 1, 2, 3, 6, 7, 4, 5, 8]  # two padded places among the ranked, one among the rest
    real = torch.tensor([place < 6 for place in wide])
    source = torch.tensor([min(place, 5) for place in wide])
    items = torch.where(real, source, -1).expand(3, -1)
    padded_teacher = teacher[:, source].masked_fill(~real, -torch.inf)
    padded = partial(loss, candidates=Candidates(items=items, teacher=padded_teacher, ranked=6))
    torch.testing.assert_close(padded(student[:, source]), plain(student))
    found, expected = gradient(padded, student[:, source]), gradient(plain, student)
    assert (found[:, ~real] == 0).all()
    torch.testing.assert_close(found[:, real], expected[:, source[real]])


@every_loss
def test_a_row_without_items_gives_zero_and_no_gradient(loss):
    items = torch.tensor([[0, 1, 2], [-1, -1, -1]])
    teacher = torch.tensor([[2.0, 1.0, 0.5], [-torch.inf] * 3])
    given = Candidates(items=items, teacher=teacher, ranked=2)
    student = torch.tensor([[0.3, 0.2, 0.9], [5.0, 1.0, 2.0]])
    value = loss(student, given)
    assert value[1] == 0
    assert value[0] > 0
    grad = gradient(lambda s: loss(s, given), student)
    assert (grad[1] == 0).all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("name", ["softmax_kl", "soft_bce"])
def test_items_the_teacher_has_not_scored_take_no_part_in_pointwise_and_kl(name):
    student, teacher = rows(20, 3, 6), rows(21, 3, 4)
    unknown = torch.full((3, 2), -torch.inf, dtype=torch.float64)
    given = candidates(torch.cat([teacher, unknown], 1), 4)
    expected = LOSSES[name](student[:, :4], candidates(teacher))
    torch.testing.assert_close(LOSSES[name](student, given), expected)
    assert (gradient(lambda s: LOSSES[name](s, given), student)[:, 4:] == 0).all()


@every_loss
def test_a_row_does_not_depend_on_its_batch(loss):
    student, teacher = rows(22, 5, 6), rows(23, 5, 6)
    whole = loss(student, candidates(teacher, 4))
    alone = [loss(student[i : i + 1], candidates(teacher[i : i + 1], 4)) for i in range(5)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=1e-14, atol=0)


@every_loss
def test_huge_scores_stay_finite(loss):
    sign = torch.tensor([[1e4, -1e4, 0.0, 1e4, -1e4], [-1e4, 1e4, 1e4, -1e4, 0.0]])
    given = candidates(sign.flip(1), 3)
    assert loss(sign, given).isfinite().all()
    assert gradient(lambda s: loss(s, given), sign).isfinite().all()


# Task losses


def test_bpr_closed_form():
    found = task_losses.bpr(torch.tensor([1.0, -2.0]), torch.tensor([[0.0, 3.0], [-2.0, 1.0]]))
    expected = [(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2]
    expected += [(math.log(2) + math.log(1 + math.exp(3))) / 2]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_sampled_softmax_over_the_whole_catalogue_is_the_cross_entropy():
    scores, positive = rows(24, 4, 9), torch.tensor([0, 3, 8, 3])
    collides = (torch.arange(9) == positive.unsqueeze(1)).nonzero(as_tuple=True)
    chosen = scores.gather(1, positive.unsqueeze(1))[:, 0]
    found = task_losses.sampled_softmax(chosen, scores, collides, log_share=0.0)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(scores, positive, reduction="none"))


def test_full_softmax_is_the_cross_entropy():
    scores, positive = rows(24, 4, 9), torch.tensor([0, 3, 8, 3])
    found = task_losses.full_softmax(scores.gather(1, positive.unsqueeze(1))[:, 0], scores)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(scores, positive, reduction="none"))


def test_the_log_share_makes_the_denominator_an_estimate_of_the_whole():
    scores = rows(25, 1, 40)[0]
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randint(40, (20_000, 10), generator=generator)
    share = math.log(10 / 40)
    positive = scores[:1].expand(20_000)
    found = task_losses.sampled_softmax(positive, scores[drawn], (drawn == 0).nonzero(as_tuple=True), log_share=share)
    # exp(loss) is the sampled denominator over exp(s+); its mean is the full one.
    assert found.exp().mean().item() == pytest.approx(float((scores - scores[0]).exp().sum()), rel=0.02)
    uncorrected = task_losses.sampled_softmax(
        positive, scores[drawn], (drawn == 0).nonzero(as_tuple=True), log_share=0.0
    )
    assert (uncorrected < found).all()


def test_sampled_softmax_with_nothing_but_collisions_is_zero():
    student = torch.tensor([3.0], requires_grad=True)
    found = task_losses.sampled_softmax(
        student, torch.full((1, 4), 3.0), torch.ones(1, 4).nonzero(as_tuple=True), log_share=-2.0
    )
    found.sum().backward()
    assert found.item() == 0
    assert student.grad is not None
    assert student.grad.item() == 0
