"""Rounding in training is that of serving, of FAISS and of a bundle's tables, and what learns does not notice it."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from recdistill.models.encoders import MF, Group, TwoTower, encode_widths
from recdistill.models.rounding import by_dimension, by_row, cutter, span_of, straight
from recdistill.models.tables import PlainTable
from recdistill.scoring import as_rounded, narrowed
from recdistill.serve_tables import rounded
from recdistill.types import Past, Vectors

USERS, ITEMS, DIM = 6, 40, 8
GENERATOR = torch.Generator().manual_seed(0)
VECTORS = torch.nn.functional.normalize(torch.randn(ITEMS, DIM, generator=GENERATOR))
ASKED, PAST = torch.tensor([3, 0, -1]), Past(items=torch.tensor([[-1, 4], [1, 11], [-1, -1]]))
GROUPS = [Group(torch.tensor([[3], [1], [0]])), Group(torch.tensor([2, 7, 2, 5])), Group(torch.arange(6).view(3, 2))]


def student(kind="mf", space="cosine", bits=8, nested=()):
    settings = {"num_users": USERS, "num_items": ITEMS, "dim": DIM, "space": space, "temperature": 0.5}
    more = {} if kind == "mf" else {"hidden": (), "id_dropout": 0.0}
    made = {"mf": MF, "two_tower": TwoTower}[kind](PlainTable, **settings, **more, bits=bits, nested=nested)
    generator = torch.Generator().manual_seed(1)
    for weight in made.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
        weight.requires_grad_()
    return made


@pytest.mark.parametrize(("factory", "bits"), [("SQ8", 8), ("SQ4", 4)])
def test_items_are_rounded_as_faiss_reads_them_again(factory, bits):
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(VECTORS.numpy())
    index.add(VECTORS.numpy())
    found, again = by_dimension(VECTORS, bits).numpy(), index.reconstruct_n(0, ITEMS)
    cell = np.ptp(VECTORS.numpy(), axis=0) / (2**bits - 1)
    np.testing.assert_allclose(found, again, atol=1e-6)
    assert (np.abs(found - VECTORS.numpy()) <= 0.51 * cell + 1e-6)[VECTORS.numpy() < VECTORS.numpy().max(0)].all()
    assert len(np.unique(found[:, 0])) <= 2**bits


def test_rows_of_users_are_rounded_as_a_bundle_reads_them_again():
    table = torch.cat([VECTORS, torch.zeros(1, DIM), torch.full((1, DIM), 0.3)])
    np.testing.assert_allclose(by_row(table).numpy(), rounded(table.numpy(), "int8"), atol=1e-6)


def test_a_dimension_that_says_nothing_stays_as_it_is():
    flat = torch.cat([VECTORS, torch.full((ITEMS, 1), 0.25)], dim=1)
    assert torch.equal(by_dimension(flat, 4)[:, DIM], flat[:, DIM])


def test_the_gradient_goes_straight_through():
    x, weights = VECTORS.clone().requires_grad_(), torch.randn(ITEMS, DIM, generator=GENERATOR)
    seen = straight(x, by_dimension(x.detach(), 4))
    assert torch.equal(seen, by_dimension(VECTORS, 4))
    (seen * weights).sum().backward()
    assert torch.equal(x.grad, weights)


def test_each_width_is_rounded_over_its_own_range_of_all_that_was_found():
    found = torch.randn(ITEMS, DIM, generator=GENERATOR)
    made = cutter(found, (3, DIM), "cosine", bits=4)(found[:5])
    for width, part in zip((3, DIM), made, strict=True):
        unit = torch.nn.functional.normalize(found[:, :width])
        torch.testing.assert_close(part, by_dimension(unit, 4)[:5])
        assert not torch.allclose(part, by_dimension(unit[:5], 4), atol=1e-3)
    assert [tuple(end.shape) for end in span_of(found)] == [(DIM,), (DIM,)]


@pytest.mark.parametrize("kind", ["mf", "two_tower"])
@pytest.mark.parametrize("nested", [(), (4,)], ids=["plain", "nested"])
def test_training_sees_what_serves_and_measuring_sees_what_learned(kind, nested):
    """In training scores are of rounded items and rows; otherwise, and without bits, of the vectors as they are."""
    rounding, plain = student(kind, bits=4, nested=nested), student(kind, bits=0, nested=nested)
    views = [encode_widths(one.train(), ASKED, PAST, GROUPS, widths=nested) for one in (rounding, plain)]
    wanted = torch.cat([group.items.reshape(-1) for group in GROUPS])
    for view, other in zip(*views, strict=True):
        width = view.left.shape[1]
        right = by_dimension(torch.nn.functional.normalize(plain.item.weight.detach()[wanted][:, :width]), 4)
        if kind == "mf":
            left = by_row(plain.user.weight.detach()[ASKED[:2]])[:, :width]
            torch.testing.assert_close(view.left[:2], torch.nn.functional.normalize(left))
        torch.testing.assert_close(view.scores[1], view.left @ right[3:7].T / 0.5)
        each = (view.left.unsqueeze(1) * right[7:].view(3, 2, -1)).sum(2) / 0.5
        torch.testing.assert_close(view.scores[2], each)
        assert not torch.allclose(view.scores[1], other.scores[1], atol=1e-3)
        torch.testing.assert_close(view.scores[1], other.scores[1], atol=0.5, rtol=0)
    views[0][0].scores[2].sum().backward()
    assert rounding.item.weight.grad.any()
    assert rounding.user.weight.grad.any()
    quiet = [encode_widths(one.eval(), ASKED, PAST, GROUPS, widths=nested)[-1] for one in (rounding, plain)]
    assert all(torch.equal(a, b) for a, b in zip(quiet[0].scores, quiet[1].scores, strict=True))


def test_a_student_that_serves_fewer_bits_is_measured_at_those():
    found = Vectors(users=VECTORS[:USERS].numpy(), items=VECTORS.numpy(), space="cosine")
    assert as_rounded(found, student(bits=0)) is found
    np.testing.assert_array_equal(as_rounded(found, student(bits=4)).items, by_dimension(VECTORS, 4).numpy())


def test_a_prefix_is_cut_to_a_length_of_its_own_in_cosine_space_alone():
    for space in ("cosine", "dot"):
        found = narrowed(Vectors(users=VECTORS[:USERS].numpy(), items=VECTORS.numpy(), space=space), 3)
        cut = VECTORS[:, :3]
        expected = torch.nn.functional.normalize(cut) if space == "cosine" else cut
        np.testing.assert_allclose(found.items, expected.numpy(), atol=1e-6)
        np.testing.assert_allclose(found.users, expected[:USERS].numpy(), atol=1e-6)
