"""Labels and teacher as one distribution, and the weight that takes most noise out of its gradient."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill.blend import best_weight, blend
from recdistill.distill.losses import softmax_kl
from recdistill.types import Candidates

ROWS, ITEMS = 6, 8


def rows(seed, count=ROWS):
    return torch.randn(count, ITEMS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def candidates(teacher, taken):
    return Candidates(items=torch.arange(ITEMS).expand(teacher.shape), teacher=teacher, ranked=ITEMS, taken=taken)


def taken(count=ROWS, own=(1, 4)):
    found = torch.zeros(count, ITEMS, dtype=torch.bool)
    found[:, list(own)] = True
    return found


def test_its_ends_are_the_labels_and_the_teacher_and_rows_may_have_their_own_weight():
    given = candidates(rows(2), taken())
    torch.testing.assert_close(torch.softmax(blend(given, teacher=1.0).teacher, 1), torch.softmax(given.teacher, 1))
    labels = torch.softmax(blend(given, teacher=0.0).teacher, 1)
    torch.testing.assert_close(labels, taken().double() / 2)
    each = torch.linspace(0, 1, ROWS).double().unsqueeze(1)
    found = torch.softmax(blend(given, teacher=each).teacher, 1)
    torch.testing.assert_close(found, (1 - each) * labels + each * torch.softmax(given.teacher, 1))


def test_the_gradient_is_that_of_both_cross_entropies():
    given, student = candidates(rows(2), taken()), rows(1).requires_grad_()
    softmax_kl(student, blend(given, teacher=0.7), temperature=1.0).sum().backward()
    q, p, y = torch.softmax(student.detach(), 1), torch.softmax(given.teacher, 1), taken().double() / 2
    torch.testing.assert_close(student.grad, (q - y) - 0.7 * (p - y))


def test_who_took_nothing_is_taught_the_teacher_and_what_is_no_item_nothing():
    given = candidates(rows(2), taken(own=()))
    torch.testing.assert_close(torch.softmax(blend(given, teacher=0.3).teacher, 1), torch.softmax(given.teacher, 1))
    assert best_weight(rows(1), given) == 0
    teacher = rows(2)
    teacher[:, 5:] = -torch.inf
    found = blend(candidates(teacher, taken()), teacher=0.3).teacher
    assert torch.isneginf(found[:, 5:]).all()
    assert torch.isfinite(found[:, :5]).all()


def planted(spread, count=4000):
    """Return a student at the truth, and lists of one item drawn from it, with a teacher `spread` from the truth."""
    generator = torch.Generator().manual_seed(3)
    truth = rows(4, count)
    drawn = torch.multinomial(torch.softmax(truth, 1), 1, generator=generator)
    own = torch.zeros(count, ITEMS, dtype=torch.bool).scatter_(1, drawn, True)
    return truth, candidates(truth + spread * rows(5, count), own)


def noise(student, given, weight):
    q, p = torch.softmax(student, 1), torch.softmax(given.teacher, 1)
    y = given.taken.double()
    return ((q - y) - weight * (p - y)).square().sum(1).mean()


def test_the_weight_is_where_the_noise_is_least():
    student, given = planted(0.4)
    found = best_weight(student, given)
    grid = torch.linspace(0, 1, 201).double()
    least = grid[torch.stack([noise(student, given, w) for w in grid]).argmin()]
    assert found.item() == pytest.approx(least.item(), abs=6e-3)
    assert noise(student, given, found) < noise(student, given, 0.0)


def test_a_teacher_that_knows_the_truth_is_trusted_wholly_and_a_worse_one_less():
    exact = best_weight(*planted(0.0))
    assert exact.item() == pytest.approx(1.0)
    assert best_weight(*planted(0.5)) < exact
    assert best_weight(*planted(2.0)) < best_weight(*planted(0.5))
