"""Scores of several groups from one table of vectors, and their gradients, are those of the plain formula."""

from __future__ import annotations

import pytest
import torch

from recdistill.models import inner
from recdistill.models.together import scores_together

SPANS = ((0, 5, 1), (0, 5, 3), (2, 4, 7))


def plain(users, items, cosine, temperature):
    at, found = 0, []
    if cosine:
        users, items = (torch.nn.functional.normalize(side, dim=-1) for side in (users, items))
    for start, stop, count in SPANS:
        each = items[at : at + (stop - start) * count].view(stop - start, count, -1)
        found.append(torch.einsum("bd,bkd->bk", users[start:stop], each) / temperature)
        at += (stop - start) * count
    return found


def drawn(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)), requires_grad=True)


def both(users, items, cosine, temperature=0.2):
    found = scores_together(users, items, SPANS, cosine=cosine, temperature=temperature)
    gradients = torch.autograd.grad(sum((one.square() * (i + 1)).sum() for i, one in enumerate(found)), (users, items))
    return found, gradients


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("dim", [1, 12, 64])
def test_scores_and_gradients_are_those_of_the_formula(dim, cosine):
    users, items = drawn(6, dim), drawn(5 + 15 + 14, dim)
    found, mine = both(users, items, cosine)
    wanted = plain(users, items, cosine, 0.2)
    torch.testing.assert_close(found, wanted)
    theirs = torch.autograd.grad(sum((one.square() * (i + 1)).sum() for i, one in enumerate(wanted)), (users, items))
    torch.testing.assert_close(mine, theirs)
    assert not mine[0][5].any(), "a user that no group has learns nothing"


@pytest.mark.parametrize("cosine", [True, False])
def test_float32_is_as_near_to_float64_as_the_formula_in_float32(cosine):
    users, items = drawn(6, 64, dtype=torch.float32), drawn(34, 64, dtype=torch.float32)
    true = plain(users.double(), items.double(), cosine, 0.2)
    ours = scores_together(users, items, SPANS, cosine=cosine, temperature=0.2)
    theirs = plain(users, items, cosine, 0.2)
    mine, its = (max((a.double() - b).abs().max() for a, b in zip(one, true, strict=True)) for one in (ours, theirs))
    assert mine <= 2 * its + 1e-7


def test_threads_change_nothing(monkeypatch):
    users, items = drawn(6, 16, dtype=torch.float32), drawn(34, 16, dtype=torch.float32)
    alone = both(users, items, True)
    monkeypatch.setattr(inner, "LEAST_SHARED", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = both(users, items, True)
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_vector_of_zeros_scores_nothing_and_nothing_becomes_nan():
    users, items = torch.zeros(6, 8, requires_grad=True), torch.zeros(34, 8, requires_grad=True)
    found, gradients = both(users, items, True)
    assert not any(one.any() for one in found)
    assert all(torch.isfinite(one).all() for one in gradients)


def test_a_group_that_nothing_is_asked_of_pushes_nothing():
    users, items = drawn(6, 8), drawn(34, 8)
    first, *_ = scores_together(users, items, SPANS, cosine=True, temperature=1.0)
    _, to_items = torch.autograd.grad(first.sum(), (users, items))
    assert to_items[:5].any()
    assert not to_items[5:].any()
