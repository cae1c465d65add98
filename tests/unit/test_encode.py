"""One lookup serves all: the same scores and vectors whether pairs are looked up or everything is scored and picked."""

from __future__ import annotations

import pytest
import torch

from recdistill.models import encoders
from recdistill.models.encoders import MF, Group, TwoTower, encode
from recdistill.models.lengths import unit
from recdistill.models.tables import PlainTable
from recdistill.types import Past

USERS, ITEMS, DIM = 7, 12, 4
ASKED = torch.tensor([3, 0, 6, 2, 2, 5])  # four of the batch, two of lists; 2 comes twice
PAST = Past(items=torch.tensor([[-1, 4], [1, 11], [-1, -1], [0, 0], [5, 9], [-1, 3]]))
GROUPS = [
    Group(torch.tensor([[3], [1], [11], [0]]), slice(0, 4)),
    Group(torch.tensor([2, 7, 2, -1, 10]), slice(0, 4)),
    Group(torch.tensor([[1, -1, 8, 5], [9, 9, -1, 4]]), slice(4, 6)),
]
CROSSING = [Group(torch.tensor([2, 7, 1, 5, 8, 0, 3]), slice(0, 3)), Group(torch.arange(ITEMS), slice(1, 5))]
OTHERS = [torch.tensor([5, -1, 5]), torch.arange(ITEMS), torch.tensor([0])]


def model(kind, space):
    made = {
        "mf": lambda: MF(PlainTable, num_users=USERS, num_items=ITEMS, dim=DIM, space=space, temperature=0.5),
        "two_tower": lambda: TwoTower(
            PlainTable,
            num_users=USERS,
            num_items=ITEMS,
            dim=DIM,
            hidden=(6,),
            id_dropout=0.0,
            space=space,
            temperature=0.5,
        ),
    }[kind]()
    generator = torch.Generator().manual_seed(2)
    for weight in made.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
        weight.requires_grad_()
    return made


def both(monkeypatch, made, groups, others=()):
    """Return what is found by looking pairs up, and by scoring everything."""
    monkeypatch.setattr(encoders, "MOST_SCORES", 0)
    pairs = encode(made, ASKED, PAST, groups, others)
    monkeypatch.setattr(encoders, "MOST_SCORES", 2**26)
    whole = encode(made, ASKED, PAST, groups, others)
    assert len(whole.found) == ITEMS
    assert len(pairs.found) == sum(g.items.numel() for g in groups) + sum(map(len, others))
    return pairs, whole


CASES = pytest.mark.parametrize(
    ("kind", "space"), [("mf", "dot"), ("mf", "cosine"), ("two_tower", "dot"), ("two_tower", "cosine")]
)


@CASES
@pytest.mark.parametrize("groups", [GROUPS, CROSSING], ids=["tiles", "crossing"])
def test_scores_are_inner_products_of_each_groups_own_rows(monkeypatch, kind, space, groups):
    made = model(kind, space)
    users, items = made.vectors(ASKED, PAST, torch.arange(ITEMS))
    table = unit(users, space) @ unit(items, space).T / 0.5
    for found in both(monkeypatch, made, groups):
        for group, scores in zip(groups, found.scores, strict=True):
            rows = list(range(len(ASKED)))[group.rows]
            for at, row in enumerate(rows):
                wanted = group.items if group.items.dim() == 1 else group.items[at]
                expected = [table[row, i].item() if i >= 0 else 0.0 for i in wanted.tolist()]
                assert scores[at].tolist() == pytest.approx(expected, abs=1e-5)


@CASES
def test_other_vectors_come_in_the_order_they_were_asked_for(monkeypatch, kind, space):
    made = model(kind, space)
    items = unit(made.vectors(ASKED, PAST, torch.arange(ITEMS))[1], space)
    for found in both(monkeypatch, made, GROUPS, OTHERS):
        assert len(found.others) == 3
        for wanted, got in zip(OTHERS, found.others, strict=True):
            expected = items[wanted.clamp(min=0)] * (wanted >= 0).unsqueeze(1)
            torch.testing.assert_close(got, expected)


@CASES
def test_both_ways_give_the_same_gradients(monkeypatch, kind, space):
    made, gradients = model(kind, space), []
    for found in both(monkeypatch, made, GROUPS, OTHERS):
        total = sum((part * torch.arange(part.numel()).view(part.shape).cos()).sum() for part in found.scores)
        total = total + sum((part.square() * 0.3 + part).sum() for part in found.others) + found.left.sum()
        gradients.append(torch.autograd.grad(total, list(made.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@CASES
def test_everybodys_vectors_are_there_though_groups_ask_for_some(monkeypatch, kind, space):
    made = model(kind, space)
    users, _ = made.vectors(ASKED, PAST, torch.arange(ITEMS))
    for found in both(monkeypatch, made, GROUPS):
        torch.testing.assert_close(found.left, unit(users, space))
        torch.testing.assert_close(unit(made.head(found.shared), space), found.left)


def test_what_the_head_reads_is_before_its_last_layer():
    made = model("two_tower", "dot")
    found = encode(made, ASKED, PAST, GROUPS)
    assert found.shared.shape == (len(ASKED), 6)
    torch.testing.assert_close(found.left, made.layers[-1](found.shared))
    plain = encode(model("mf", "dot"), ASKED, PAST, GROUPS)
    assert torch.equal(plain.shared, plain.left)


@pytest.mark.parametrize("length", [1.0, 1e-4, 1e4])
def test_vectors_of_length_one_and_their_gradient_are_those_of_the_formula(length) -> None:
    given = length * torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    slope = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    one, other = given.clone().requires_grad_(), given.clone().requires_grad_()
    expected = one / one.norm(dim=1, keepdim=True)
    torch.testing.assert_close(unit(other, "cosine"), expected)
    expected.backward(slope)
    unit(other, "cosine").backward(slope)
    torch.testing.assert_close(other.grad, one.grad, atol=1e-12 / length, rtol=1e-9)
    assert unit(given, "dot") is given


def test_a_vector_of_zeros_stays_zero_and_half_precision_is_measured_in_full() -> None:
    nothing = torch.zeros(2, 3, requires_grad=True)
    unit(nothing, "cosine").sum().backward()
    assert not unit(nothing, "cosine").any()
    assert nothing.grad is not None
    assert torch.isfinite(nothing.grad).all()
    short = torch.full((1, 4), 0.1, dtype=torch.bfloat16, requires_grad=True)
    found = unit(short, "cosine")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full((1, 4), 0.5))
    found.sum().backward()
    assert short.grad is not None
    assert short.grad.dtype == torch.bfloat16
