"""Scores of a row's own items, and their gradients, are those of the plain formula."""

from __future__ import annotations

import pytest
import torch

from recdistill.models import inner
from recdistill.models.inner import own_scores


def plain(queries, items, cosine):
    items = torch.nn.functional.normalize(items, dim=-1) if cosine else items
    return torch.einsum("bd,bkd->bk", queries, items)


def drawn(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)), requires_grad=True)


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize(("rows", "count", "dim"), [(3, 1, 1), (5, 7, 12), (4, 3, 64), (0, 3, 8), (2, 0, 8)])
def test_scores_and_gradients_are_those_of_the_formula(rows, count, dim, cosine):
    queries, items = drawn(rows, dim), drawn(rows, count, dim)
    found, wanted = own_scores(queries, items, cosine=cosine), plain(queries, items, cosine)
    torch.testing.assert_close(found, wanted)
    weight = torch.rand_like(wanted)
    mine, theirs = (torch.autograd.grad((value * weight).sum(), (queries, items)) for value in (found, wanted))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("cosine", [True, False])
def test_float32_is_as_near_to_float64_as_the_formula_in_float32(cosine):
    queries, items = drawn(50, 64, dtype=torch.float32), drawn(50, 20, 64, dtype=torch.float32)
    true = plain(queries.double(), items.double(), cosine)
    mine, theirs = (
        (found.double() - true).abs().max()
        for found in (own_scores(queries, items, cosine=cosine), plain(queries, items, cosine))
    )
    assert mine <= 2 * theirs


def test_threads_change_nothing(monkeypatch):
    queries, items = drawn(33, 16, dtype=torch.float32), drawn(33, 9, 16, dtype=torch.float32)
    one = own_scores(queries, items, cosine=True)
    alone = torch.autograd.grad(one.square().sum(), (queries, items))
    monkeypatch.setattr(inner, "LEAST_SHARED", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    several = own_scores(queries, items, cosine=True)
    assert torch.equal(one, several)
    together = torch.autograd.grad(several.square().sum(), (queries, items))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_no_item_scores_nothing_and_nothing_becomes_nan():
    queries, items = drawn(2, 8, dtype=torch.float32), torch.zeros(2, 3, 8, requires_grad=True)
    found = own_scores(queries, items, cosine=True)
    assert not found.any()
    assert torch.isfinite(torch.autograd.grad(found.sum(), items)[0]).all()


def test_views_and_gradients_that_are_expanded_are_read_as_they_are():
    queries, items = drawn(6, 24)[:, ::2][:4], drawn(4, 12, 5).transpose(1, 2)
    found = own_scores(queries, items, cosine=False)
    torch.testing.assert_close(found, plain(queries, items, cosine=False))
    assert torch.autograd.grad(found.sum(), queries)[0].shape == queries.shape
