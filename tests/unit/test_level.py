"""What `level: free` leaves out of a comparison, and how learning rates fall."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill.compose import make_term
from recdistill.distill.spec import ListTermSpec
from recdistill.distill.spec_draws import Top
from recdistill.distill.spec_lists import LogitMSE, SoftBCE
from recdistill.train import constant, cosine
from recdistill.types import Candidates

ITEMS = torch.tensor([[3, 1, 2, -1], [5, 4, 0, 7]])
TEACHER = torch.tensor([[2.0, 1.0, -1.0, -torch.inf], [0.5, 0.0, -3.0, -torch.inf]])
SHIFT = torch.tensor([[5.0], [-7.0]])


def value(student, level, loss):
    made = make_term(ListTermSpec(weight=1.0, draw=(Top(k=4),), loss=loss(level=level)), 0)
    return made.value(student, Candidates(items=ITEMS, teacher=TEACHER, ranked=4), 1.0)


@pytest.mark.parametrize("loss", [SoftBCE, LogitMSE])
def test_a_free_level_is_no_part_of_the_comparison(loss):
    student = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    assert value(student + SHIFT, "free", loss) == pytest.approx(float(value(student, "free", loss)), abs=1e-5)
    assert value(student + SHIFT, "given", loss) != pytest.approx(float(value(student, "given", loss)), abs=1e-2)


def test_a_student_that_differs_by_a_users_level_alone_is_right():
    assert float(value(TEACHER.nan_to_num(neginf=9.0) + SHIFT, "free", LogitMSE)) == pytest.approx(0.0, abs=1e-9)


def test_a_free_level_has_a_gradient_that_adds_up_to_nothing():
    student = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    value(student, "free", SoftBCE).backward()
    assert student.grad.sum(1).abs().max() < 1e-6
    assert student.grad.abs().max() > 1e-3


def test_rates_stay_or_fall_along_half_a_wave():
    assert [constant(share) for share in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]
    assert [cosine(share) for share in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
