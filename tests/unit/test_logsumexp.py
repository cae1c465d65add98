"""The fused log-sum-exp is autograd's own, in value and gradient, whatever is left out and however large scores are."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill.logsumexp import BLOCK, logsumexp_but, meetings


def naive(scores, out):
    return scores.masked_fill(out, -torch.inf).logsumexp(1)


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (3 * BLOCK // 512 + 1, 512), (2, 2 * BLOCK)])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_value_and_gradient_are_those_of_the_plain_formula(rows, columns, scale):
    generator = torch.Generator().manual_seed(rows)
    scores = (torch.randn(rows, columns, generator=generator, dtype=torch.float64) * scale).requires_grad_()
    out = torch.rand(rows, columns, generator=generator) < 0.05
    out[:, 0] = False
    weight = torch.rand(rows, generator=generator, dtype=torch.float64)
    found, wanted = logsumexp_but(scores, *out.nonzero(as_tuple=True)), naive(scores, out)
    torch.testing.assert_close(found, wanted)
    mine, theirs = (torch.autograd.grad(value @ weight, scores)[0] for value in (found, wanted))
    torch.testing.assert_close(mine, theirs)
    assert not mine[out].any()


def test_what_is_left_out_may_be_larger_than_anything_else_can_bear():
    scores = torch.tensor([[1e4, 1.0, 2.0]], requires_grad=True)
    found = logsumexp_but(scores, torch.tensor([0]), torch.tensor([0]))
    assert found.item() == pytest.approx(2.3132617)
    assert torch.autograd.grad(found.sum(), scores)[0].tolist() == [pytest.approx([0, 0.26894142, 0.7310586])]


def test_the_gradient_may_be_asked_for_twice():
    scores = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    found = logsumexp_but(scores, none, none).sum()
    first, second = (torch.autograd.grad(found, scores, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    torch.autograd.gradcheck(lambda x: logsumexp_but(x, none, none), scores)


def test_meetings_are_where_rows_and_columns_are_the_same_item():
    generator = torch.Generator().manual_seed(0)
    for wanted, drawn in ((30, 40), (0, 3), (3, 0)):
        w, d = (torch.randint(9, (n,), generator=generator) for n in (wanted, drawn))
        rows, columns = meetings(w, d)
        assert (rows.diff() >= 0).all()
        same = (d == w.unsqueeze(1)).nonzero().tolist()
        assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [tuple(pair) for pair in same]
        own = meetings(w, d.expand(len(w), -1))
        assert torch.stack(own, 1).tolist() == same
