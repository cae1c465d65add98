"""Similarity of rows of inner products, and the rotation that takes the teacher nearest to the student."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill import align
from recdistill.errors import ConfigError

N, D = 30, 5


def rows(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(seed, d=D):
    return torch.linalg.qr(rows(seed, d, d))[0]


def test_similarity_is_the_papers_sum_over_pairs():
    student, teacher = rows(1, N, 3), rows(2, N, D)
    tables = [g / g.norm(dim=1, keepdim=True) for g in (student @ student.T, teacher @ teacher.T)]
    expected = (tables[0] - tables[1]).square().sum() / N**2
    torch.testing.assert_close(align.similarity(student, teacher).mean(), expected)


def test_similarity_does_not_see_a_turned_and_stretched_copy_and_sees_another_space():
    teacher = rows(2, N, D)
    assert align.similarity(3.7 * teacher @ orthogonal(3), teacher).max() < 1e-20
    assert align.similarity(rows(1, N, 3), teacher).mean() > 1e-3


def test_a_turned_copy_has_no_distance_after_the_turn_and_a_permutation_is_found_exactly():
    student = rows(1, N, D)
    module = align.build({"kind": "rotation"}, D, D)
    torch.testing.assert_close(module(student, student @ orthogonal(4), 0.0), torch.zeros(N).double())
    order = torch.tensor([3, 0, 4, 1, 2])
    turn = align.turn(student, student[:, order])
    torch.testing.assert_close(turn, torch.eye(D).double()[order], atol=1e-9, rtol=0)
    assert (student - student[:, order]).square().mean() > 0.1


def test_from_fewer_rows_than_dimensions_a_permutation_is_not_found_though_the_rows_are():
    few, order = rows(1, D - 2, D), torch.tensor([3, 0, 4, 1, 2])
    turn = align.turn(few, few[:, order])
    torch.testing.assert_close(few[:, order] @ turn, few)
    assert not torch.allclose(turn, torch.eye(D).double()[order], atol=1e-3)


def test_the_turn_keeps_lengths_and_no_other_is_nearer():
    student, teacher = rows(1, N, D), rows(2, N, D)
    best = align.turn(student, teacher)
    torch.testing.assert_close(best.T @ best, torch.eye(D).double())
    least = (student - teacher @ best).square().sum()
    assert all(least <= (student - teacher @ orthogonal(seed)).square().sum() for seed in range(20))


def test_a_wider_teacher_is_cut_to_its_principal_axes():
    student = rows(1, N, 3)
    wide = torch.cat([10 * student @ orthogonal(5, 3), 0.01 * rows(6, N, 4)], dim=1) @ orthogonal(7, 7)
    turn = align.turn(student, wide)
    torch.testing.assert_close(turn.T @ turn, torch.eye(3).double())
    torch.testing.assert_close(wide @ turn, 10 * student, atol=0.1, rtol=0)


def test_the_gradient_is_that_of_a_distance_to_what_stands_still():
    student, teacher = rows(1, N, D).requires_grad_(), rows(2, N, D)
    align.build({"kind": "rotation"}, D, D)(student, teacher, 0.0).sum().backward()
    still = teacher @ align.turn(student, teacher)
    torch.testing.assert_close(student.grad, 2 * (student - still).detach())
    # That is the gradient of the least distance itself, since at the best turn a small turn changes nothing.
    step = 1e-6 * rows(9, N, D)

    def least(moved):
        return (moved - teacher @ align.turn(moved, teacher)).square().sum()

    change = least(student.detach() + step) - least(student.detach() - step)
    assert change.item() == pytest.approx(2 * (student.grad * step).sum().item(), rel=1e-5)


def test_a_teacher_narrower_than_the_student_is_refused():
    with pytest.raises(ConfigError, match="cannot be turned"):
        align.turn(rows(1, N, D), rows(2, N, 3))
