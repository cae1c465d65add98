"""The chain rule of KL over parts of a list, and the hinge on centred scores."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill.grouped import grouped_kl, hinge_mse
from recdistill.distill.losses import softmax_kl
from recdistill.types import Candidates

ROWS, ITEMS = 5, 9


def rows(seed, scale=2.0):
    return torch.randn(ROWS, ITEMS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def candidates(teacher, parts=None, items=None):
    items = torch.arange(ITEMS).expand(ROWS, ITEMS) if items is None else items
    return Candidates(items=items, teacher=teacher, ranked=ITEMS, parts=parts)


THIRDS = (torch.arange(ITEMS) % 3).expand(ROWS, ITEMS)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_with_the_masses_as_weights_it_is_the_plain_kl(temperature):
    student, teacher = rows(1), rows(2)
    found = grouped_kl(student, candidates(teacher, THIRDS), temperature=temperature, parts=3)
    torch.testing.assert_close(found, softmax_kl(student, candidates(teacher), temperature=temperature))


def test_so_is_its_gradient_and_padding_and_empty_parts_change_nothing():
    teacher = rows(2)
    items = torch.arange(ITEMS).expand(ROWS, ITEMS).clone()
    items[:, 7:], items[2] = -1, -1
    one, other = rows(1).requires_grad_(), rows(1).requires_grad_()
    grouped = grouped_kl(one, candidates(teacher, THIRDS, items), temperature=1.0, parts=5)
    plain = softmax_kl(other, candidates(teacher, None, items), temperature=1.0)
    torch.testing.assert_close(grouped, plain)
    assert grouped[2] == 0
    grouped.sum().backward()
    plain.sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_without_the_between_part_a_bias_that_is_constant_in_each_part_teaches_nothing():
    student, teacher = rows(1), rows(2)
    shifted = teacher + torch.randn(ROWS, 3, dtype=torch.float64).gather(1, THIRDS)
    only = {"temperature": 1.0, "parts": 3, "between": 0.0, "within": (1.0, 1.0, 1.0)}
    before, after = (grouped_kl(student, candidates(t, THIRDS), **only) for t in (teacher, shifted))
    torch.testing.assert_close(before, after)
    plain = [softmax_kl(student, candidates(t), temperature=1.0) for t in (teacher, shifted)]
    assert not torch.allclose(*plain)


def test_parts_taken_and_not_give_decoupled_distillation():
    student, teacher = rows(1), rows(2)
    parts = torch.zeros(ROWS, ITEMS, dtype=torch.int64)
    parts[:, 0] = 1
    p, q = torch.softmax(teacher, 1), torch.softmax(student, 1)
    sides = [torch.stack([x[:, 0], 1 - x[:, 0]], 1) for x in (p, q)]
    target = (sides[0] * (sides[0] / sides[1]).log()).sum(1)
    inside = [x[:, 1:] / (1 - x[:, :1]) for x in (p, q)]
    others = (inside[0] * (inside[0] / inside[1]).log()).sum(1)
    torch.testing.assert_close(
        softmax_kl(student, candidates(teacher), temperature=1.0), target + (1 - p[:, 0]) * others
    )
    found = grouped_kl(student, candidates(teacher, parts), temperature=1.0, parts=2, within=(4.0, 7.0))
    torch.testing.assert_close(found, target + 4 * others)


def test_subclass_kl_is_that_of_the_classes_and_what_is_within():
    student, teacher = rows(1)[:, :6], rows(2)[:, :6]
    classes = torch.arange(6).div(3, rounding_mode="floor").expand(ROWS, 6)
    items = torch.arange(6).expand(ROWS, 6)
    given = Candidates(items=items, teacher=teacher, ranked=6, parts=classes)
    torch.testing.assert_close(
        grouped_kl(student, given, temperature=1.0, parts=2), softmax_kl(student, given, temperature=1.0)
    )
    summed = torch.softmax(teacher, 1).view(ROWS, 2, 3).sum(2)
    torch.testing.assert_close(summed, torch.softmax(teacher.view(ROWS, 2, 3).logsumexp(2), 1))


def test_between_classes_alone_it_is_the_kl_of_summed_subclasses():
    """A class has the logsumexp of its subclasses as its score, as summed chances say (Mueller et al., 2020)."""
    student, teacher = rows(1)[:, :6], rows(2)[:, :6]
    classes = torch.arange(6).div(3, rounding_mode="floor").expand(ROWS, 6)
    given = Candidates(items=torch.arange(6).expand(ROWS, 6), teacher=teacher, ranked=6, parts=classes)
    found = grouped_kl(student, given, temperature=1.0, parts=2, within=(0.0, 0.0))
    summed = [scores.view(ROWS, 2, 3).logsumexp(2) for scores in (student, teacher)]
    coarse = Candidates(items=torch.arange(2).expand(ROWS, 2), teacher=summed[1], ranked=2)
    torch.testing.assert_close(found, softmax_kl(summed[0], coarse, temperature=1.0))
    inside = grouped_kl(student, given, temperature=1.0, parts=2, between=0.0)
    torch.testing.assert_close(found + inside, softmax_kl(student, given, temperature=1.0))


def test_it_is_zero_at_equality_and_gradcheck_holds():
    teacher = rows(2)
    given = candidates(teacher, THIRDS)
    torch.testing.assert_close(grouped_kl(teacher, given, temperature=2.0, parts=3), torch.zeros(ROWS).double())
    student = rows(1).requires_grad_()
    weights = {"parts": 3, "between": 0.3, "within": (0.5, 2.0, 0.0)}
    assert torch.autograd.gradcheck(lambda s: grouped_kl(s, given, temperature=1.5, **weights), student)


def test_far_apart_scores_overflow_nothing():
    student = (rows(1) * 1e4).requires_grad_()
    value = grouped_kl(student, candidates(rows(2) * 1e4, THIRDS), temperature=0.1, parts=3)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(student.grad).all()


def test_parts_must_be_named():
    with pytest.raises(ValueError, match="not cut into parts"):
        grouped_kl(rows(1), candidates(rows(2)), temperature=1.0, parts=2)


def test_inside_the_margin_the_hinge_has_no_gradient_and_without_one_it_is_the_squared_distance():
    teacher = rows(2)
    near = (0.5 * teacher + 0.01).requires_grad_()
    hinge_mse(near, candidates(teacher), margin=1.0, dynamic=0.5).sum().backward()
    assert (near.grad == 0).all()
    student = rows(1)
    apart = (student - student.mean(1, keepdim=True)) - 0.5 * (teacher - teacher.mean(1, keepdim=True))
    torch.testing.assert_close(hinge_mse(student, candidates(teacher), margin=0.0, dynamic=0.5), apart.square().mean(1))


def test_the_hinge_is_blind_to_an_offset_of_a_row():
    student, teacher = rows(1), rows(2)
    given, shifted = candidates(teacher), candidates(teacher - 5.0)
    torch.testing.assert_close(hinge_mse(student, given, margin=0.1), hinge_mse(student + 3.0, shifted, margin=0.1))


def test_the_hinge_averages_over_what_there_is():
    student, teacher = rows(1), rows(2)
    items = torch.arange(ITEMS).expand(ROWS, ITEMS).clone()
    items[:, 4:] = -1
    cut = Candidates(items=items[:, :4], teacher=teacher[:, :4], ranked=4)
    torch.testing.assert_close(
        hinge_mse(student, candidates(teacher, None, items), margin=0.2), hinge_mse(student[:, :4], cut, margin=0.2)
    )
