"""A list against the whole rest of the catalogue: the same as one row at a time in float64, with its gradients."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from recdistill.distill import losses
from recdistill.distill.catalogue import against_rest
from recdistill.types import Candidates

USERS, ITEMS, DIM = 4, 9, 3
LISTED = torch.tensor([[2, 5, -1], [0, 1, 3], [-1, -1, -1], [8, -1, -1]])
SEEN = {0: [0, 7], 1: [], 2: [3], 3: [0, 1, 2, 3, 4, 5, 6, 7]}  # user 3 has seen all but the one that is listed
ROWS = torch.tensor([row for row, items in SEEN.items() for _ in items])
ITEMS_SEEN = torch.tensor([item for items in SEEN.values() for item in items])


def vectors(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    sides = (torch.randn(rows, DIM, generator=generator, dtype=torch.float64) * scale for rows in (USERS, ITEMS))
    return tuple(side.requires_grad_() for side in sides)


def naive(left, right):
    """Return what is expected, number by number, as a graph of float64 scalars."""
    rows = []
    for user in range(USERS):
        score = [(left[user] * right[item]).sum() for item in range(ITEMS)]
        listed = [score[i] if i >= 0 else torch.zeros((), dtype=torch.float64) for i in LISTED[user].tolist()]
        rest = [score[i] for i in range(ITEMS) if i not in LISTED[user].tolist() and i not in SEEN[user]]
        rows.append(torch.stack([*listed, torch.stack(rest).logsumexp(0) if rest else torch.tensor(-torch.inf)]))
    return torch.stack(rows)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_scores_and_rest_are_those_of_one_row_at_a_time(scale):
    left, right = vectors(scale)
    found = against_rest(left, right, LISTED, ROWS, ITEMS_SEEN)
    assert found.shape == (USERS, 4)
    torch.testing.assert_close(found, naive(left, right), rtol=1e-12, atol=1e-12)
    assert torch.isneginf(found[3, 3])


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_gradient_is_that_of_one_row_at_a_time(scale):
    left, right = vectors(scale)
    weights = torch.randn(USERS, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights[3, 3] = 0.0  # nothing is left there
    known = torch.isfinite(naive(left, right))
    found, expected = (
        torch.autograd.grad((made.masked_fill(~known, 0.0) * weights).sum(), (left, right))
        for made in (against_rest(left, right, LISTED, ROWS, ITEMS_SEEN), naive(left, right))
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_gradient_passes_gradcheck():
    some = slice(0, 3)  # with a finite rest

    def of_some(left, right):
        return against_rest(left, right, LISTED[some], ROWS[ROWS < 3], ITEMS_SEEN[ROWS < 3])

    left, right = vectors()
    assert torch.autograd.gradcheck(of_some, (left[some].detach().requires_grad_(), right))


def test_scores_beyond_the_range_of_exponentials_are_no_problem():
    left, right = torch.tensor([[1e4]]), torch.tensor([[1.0], [-1.0], [0.9], [0.9]])
    for sign in (1, -1):
        given = (sign * left).requires_grad_()
        found = against_rest(given, right, torch.tensor([[0]]), torch.tensor([0]), torch.tensor([1]))
        assert found[0, 0].item() == sign * 1e4
        assert found[0, 1].item() == pytest.approx(sign * 9e3 + log(2), rel=1e-6)
        found.sum().backward()
        assert given.grad.item() == pytest.approx(1.9)


@pytest.mark.parametrize("loss", ["plackett_luce", "independent", "list_ce"])
def test_a_user_who_has_seen_all_the_rest_teaches_the_order_of_the_list_and_no_nan(loss):
    left, right = (side.detach().float().requires_grad_() for side in vectors())
    items = torch.tensor([[8, 7]])
    rows, seen = torch.zeros(7, dtype=torch.int64), torch.arange(7)
    student = against_rest(left[:1], right, items, rows, seen)
    candidates = Candidates(
        items=torch.cat([items, torch.zeros(1, 1, dtype=torch.int64)], dim=1),
        teacher=torch.tensor([[1.0, 0.0, -torch.inf]]),
        ranked=2,
        seen=(rows, seen),
    )
    settings = {"temperature": 1.0} if loss == "list_ce" else {}
    value = getattr(losses, loss)(student, candidates, **settings)
    s = student[0, :2].tolist()
    order = log(sum(map(exp, s)))
    p = exp(1) / (1 + exp(1))
    expected = {
        "plackett_luce": (order - s[0]) / 2,
        "independent": 0.0,
        "list_ce": order - p * s[0] - (1 - p) * s[1],
    }[loss]
    assert value.item() == pytest.approx(expected, rel=1e-5, abs=1e-7)
    value.sum().backward()
    for grad in (left.grad, right.grad):
        assert torch.isfinite(grad).all()
    assert not right.grad[:7].any()
