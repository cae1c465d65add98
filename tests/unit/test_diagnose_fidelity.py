"""Agreement of lists and of chances: against the formulas written naively, and at their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recdistill.diagnose.fidelity import divergence, fidelity, overlap, rbo, top_agreement
from recdistill.diagnose.lists import found, places, top

NONE = np.full((1, 4), -1)


def some_lists(seed, n, k, items=30, short=True):
    rng = np.random.default_rng(seed)
    lists = np.stack([rng.permutation(items)[:k] for _ in range(n)])
    length = rng.integers(1, k + 1, n) if short else np.full(n, k)
    return np.where(np.arange(k) < length[:, None], lists, -1)


def naive_rbo(s, t, p):
    """Equation 32 of Webber et al., written with sets."""
    s, t = sorted(([i for i in x if i >= 0] for x in (s, t)), key=len)
    small, large = len(s), len(t)
    x = [len(set(s[:d]) & set(t[:d])) for d in range(large + 1)]
    total = sum(x[d] / d * p**d for d in range(1, large + 1))
    total += sum(x[small] * (d - small) / (small * d) * p**d for d in range(small + 1, large + 1))
    return (1 - p) / p * total + ((x[large] - x[small]) / large + x[small] / small) * p**large


@pytest.mark.parametrize("p", [0.1, 0.8, 0.98])
def test_rank_biased_overlap_is_the_papers_formula(p):
    student, teacher = some_lists(1, 80, 7, items=12), some_lists(2, 80, 10, items=12)
    expected = [naive_rbo(s, t, p) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    np.testing.assert_allclose(rbo(student, teacher, p), expected, atol=1e-14)
    np.testing.assert_allclose(rbo(teacher, student, p), expected, atol=1e-14)


def test_of_long_lists_extrapolation_does_not_matter():
    # Lists that agree from the second place on: the infinite sum of (d - 1) / d p^d is known.
    p, k = 0.9, 400
    same = np.arange(k)[None]
    other = same.copy()
    other[0, 0] = k
    exact = 1 - (1 - p) / p * sum(p**d / d for d in range(1, 2000))
    assert rbo(same, other, p)[0] == pytest.approx(exact, abs=1e-6)


def test_a_copy_agrees_with_itself_everywhere():
    lists = some_lists(3, 50, 10)
    for values in fidelity(lists, lists, k=5, persistence=0.9):
        np.testing.assert_allclose(values, 1.0, atol=1e-14)


def test_disjoint_lists_agree_nowhere():
    lists = some_lists(4, 50, 10)
    for values in fidelity(lists, np.where(lists >= 0, lists + 100, -1), k=5, persistence=0.9):
        assert (values == 0).all()


def test_a_list_that_begins_the_other_is_extrapolated_to_full_agreement():
    long = some_lists(5, 20, 10, short=False)
    assert rbo(long[:, :3], long, 0.9) == pytest.approx(np.ones(20))


def test_a_swap_at_the_top_costs_more_than_one_at_the_bottom():
    lists = np.arange(10)[None]
    high, low = lists.copy(), lists.copy()
    high[0, :2], low[0, -2:] = [1, 0], [9, 8]
    assert rbo(high, lists, 0.9)[0] < rbo(low, lists, 0.9)[0] < 1
    assert overlap(high, lists, 10)[0] == 1
    assert (top_agreement(high, lists)[0], top_agreement(low, lists)[0]) == (0, 1)


def test_who_has_no_teacher_has_no_fidelity_and_who_has_no_student_none_at_all():
    lists = np.array([[3, 1, 2, 0]])
    assert all(math.isnan(values[0]) for values in fidelity(lists, NONE, k=2, persistence=0.5))
    assert all(math.isnan(values[0]) for values in fidelity(NONE, NONE, k=2, persistence=0.5))
    assert all(values[0] == 0 for values in fidelity(NONE, lists, k=2, persistence=0.5))


def test_overlap_is_the_share_in_common():
    student, teacher = some_lists(6, 60, 8, items=12), some_lists(7, 60, 10, items=12)
    for k in (1, 3, 9):
        sets = [[{i for i in row[:k] if i >= 0} for row in x.tolist()] for x in (student, teacher)]
        expected = [len(a & b) / max(len(a), len(b)) for a, b in zip(*sets, strict=True)]
        np.testing.assert_allclose(overlap(student, teacher, k), expected)


@pytest.mark.parametrize("persistence", [0.0, 1.0, 1.5])
def test_a_persistence_that_is_no_chance_is_refused(persistence):
    with pytest.raises(ValueError, match="persistence"):
        rbo(NONE, NONE, persistence)


def test_divergence_is_the_kl_of_the_masked_softmaxes():
    rng = np.random.default_rng(8)
    student, teacher, mask = rng.normal(size=(20, 9)), 3 * rng.normal(size=(20, 9)), rng.random((20, 9)) < 0.7
    mask[:, 0] = True
    p, q = (
        np.where(mask, np.exp(x), 0) / np.where(mask, np.exp(x), 0).sum(1, keepdims=True) for x in (teacher, student)
    )
    expected = np.where(mask, p * np.log(np.where(mask, p, 1) / np.where(mask, q, 1)), 0).sum(1)
    np.testing.assert_allclose(divergence(student, teacher, mask), expected, atol=1e-14)
    shifted = np.where(mask, student + rng.normal(size=(20, 1)), np.nan)  # what is masked may be anything
    np.testing.assert_allclose(divergence(shifted, teacher, mask), expected, atol=1e-12)


def test_divergence_is_safe_where_chances_underflow():
    far = np.array([[0.0, -2000.0], [5.0, 5.0], [0.0, -np.inf], [0.0, 0.0]])
    near = np.array([[0.0, -1000.0], [5.0, 5.0], [0.0, 0.0], [0.0, -np.inf]])
    assert divergence(near, far).tolist() == [0, 0, pytest.approx(math.log(2)), math.inf]
    assert math.isnan(divergence(near, far, np.zeros((4, 2), bool))[0])


def test_a_student_that_begins_at_its_teacher_has_nothing_to_learn():
    teacher = 2 * torch.randn(6, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    assert divergence(teacher.numpy(), teacher.numpy()).max() == 0
    student = teacher.clone().requires_grad_(True)
    p = teacher.softmax(1)
    loss = (p * (p.log() - student.log_softmax(1))).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(
        float(divergence(student.detach().numpy(), teacher.numpy()).sum()), abs=1e-12
    )
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-12


def test_places_and_finds_by_brute_force():
    lists, others = some_lists(10, 40, 6, items=9), some_lists(11, 40, 5, items=9)
    expected = [
        [b.index(i) if i >= 0 and i in b else 5 for i in a]
        for a, b in zip(lists.tolist(), others.tolist(), strict=True)
    ]
    assert places(lists, others).tolist() == expected
    rows, items = np.divmod(np.arange(40 * 9), 9)
    assert found(lists, rows, items).tolist() == [i in lists[r] for r, i in zip(rows, items, strict=True)]
    assert places(lists, np.full((40, 3), -1)).tolist() == np.full((40, 6), 3).tolist()


def test_the_top_is_by_value_and_only_of_what_is_there():
    values = np.array([[1.0, 3.0, 3.0, np.nan], [-np.inf, 0.0, 1.0, 2.0]])
    assert top(values, 3).tolist() == [[1, 2, 0], [3, 2, 1]]
    assert top(values, 3, np.array([[True, True, False, True], [True, True, False, False]])).tolist() == [
        [1, 0, -1],
        [1, -1, -1],
    ]
