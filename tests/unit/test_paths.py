"""Path consistency: by brute force along the order, and where it is nothing."""

from __future__ import annotations

import torch

from recdistill.distill.paths import path
from recdistill.types import Candidates

ROWS, ITEMS = 40, 7


def rows(seed):
    return torch.randn(ROWS, ITEMS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def given(teacher):
    return Candidates(items=torch.arange(ROWS * ITEMS).view(ROWS, ITEMS), teacher=teacher, ranked=3)


def chances(scores, order):
    """Log-chances of each of `order` among those that are left, one after the other."""
    left, found = list(range(len(scores))), []
    for item in order:
        found.append(scores[item] - torch.logsumexp(scores[left], 0))
        left.remove(item)
    return torch.stack(found)


def test_of_a_sure_student_it_is_brute_force_along_its_own_order():
    student, teacher = rows(1) * 1e3, rows(2)  # so sure that no noise changes the order
    found = path(student, given(teacher), length=4, temperature=2.0)
    for row in range(ROWS):
        order = student[row].argsort(descending=True).tolist()[:4]
        gap = chances(student[row] / 2, order) - chances(teacher[row] / 2, order)
        torch.testing.assert_close(found[row], gap.square().mean())


def test_it_is_nothing_if_and_only_if_both_agree_up_to_an_offset():
    teacher = rows(2)
    assert path(teacher + 5.0, given(teacher), length=ITEMS, temperature=1.0).max() < 1e-20
    assert path(rows(1), given(teacher), length=ITEMS, temperature=1.0).min() > 1e-6


def test_the_first_item_of_the_path_has_the_students_chance():
    """Along one place the loss is of one item, so a list of two values tells which was drawn."""
    many = 20_000
    items = torch.arange(many * 2).view(many, 2)
    student = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(many, 2)
    teacher = torch.tensor([[-2.0, 0.0]], dtype=torch.float64).expand(many, 2)
    found = path(student, Candidates(items=items, teacher=teacher, ranked=2), length=1, temperature=1.0)
    first = (chances(student[0], [0]) - chances(teacher[0], [0])).square()
    share = torch.isclose(found, first).double().mean()
    p = torch.softmax(student[0], 0)[0]
    assert abs(share - p) < 5 * (p * (1 - p) / many) ** 0.5


def test_gradients_hold():
    student = rows(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: path(s, given(rows(2)), length=3, temperature=1.0), student)
