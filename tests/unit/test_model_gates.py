"""Gradients of history gates against finite differences in float64, and how two models' are compared."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity, embedding

from recdistill.models.encoders import TwoTower
from recdistill.models.gates import (
    confidence,
    direction,
    gate_distance,
    gate_gradients,
    linear_gradients,
    of_first,
    pool,
    tower_gradients,
)
from recdistill.models.tables import PlainTable
from recdistill.types import Past

B, L, K, ITEMS = 4, 6, 7, 20
HISTORY = torch.tensor([[3, 5, 7, 9, 1, 2], [4, 4, 8, -1, -1, -1], [-1, -1, -1, -1, -1, 11], [-1, 6, -1, 0, -1, 19]])
KNOWN = HISTORY >= 0
LISTED = torch.arange(K) < torch.tensor([[7], [5], [3], [7]])
POSITIVES = torch.zeros(B, K, dtype=torch.bool)
POSITIVES[0, [1, 4]] = POSITIVES[1, 0] = POSITIVES[2, [0, 2]] = True  # the last row has none


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Planted:
    """A pooled model of some width: an item table, vectors of users that have no gate, and what is listed."""

    def __init__(self, dim, seed=0):
        self.table, self.identity = normal(ITEMS, dim, seed=seed), normal(B, dim, seed=seed + 1)
        self.items = normal(B, K, dim, seed=seed + 2)
        self.first, self.second = normal(8, dim, seed=seed + 3), normal(dim, 8, seed=seed + 4)

    @property
    def vectors(self):
        return embedding(HISTORY.clamp(min=0), self.table)

    def linear(self, pooled):
        return pooled + self.identity

    def deep(self, pooled):
        return torch.tanh((pooled + self.identity) @ self.first.T) @ self.second.T

    def cosine(self, pooled):
        return direction(self.deep(pooled)) / 0.3


def sure_of(model, tower, gates, **which):
    """Return the confidence of each row by loops."""
    found = []
    for row in range(B):
        kept = [j for j in range(L) if KNOWN[row, j]]
        pooled = sum(gates[row, j] * model.vectors[row, j] for j in kept) / len(kept)
        everyone = torch.zeros_like(model.identity)
        everyone[row] = pooled
        scores = model.items[row] @ tower(everyone)[row]
        columns = [c for c in range(K) if which.get("listed", torch.ones(B, K))[row, c]]
        chances = dict(zip(columns, scores[columns].softmax(0), strict=True))
        meant = which.get("positives")
        found.append(
            max(chances.values()) if meant is None else sum(chances.get(c, 0.0) * meant[row, c] for c in range(K))
        )
    return torch.stack([torch.as_tensor(one, dtype=torch.float64) for one in found])


def differences(model, tower, step=1e-5, **which):
    found = torch.zeros(B, L, dtype=torch.float64)
    for j in range(L):
        up, down = torch.ones(B, L, dtype=torch.float64), torch.ones(B, L, dtype=torch.float64)
        up[:, j] += step
        down[:, j] -= step
        found[:, j] = (sure_of(model, tower, up, **which) - sure_of(model, tower, down, **which)) / (2 * step)
    return found


WHICH = [{}, {"listed": LISTED}, {"positives": POSITIVES}, {"listed": LISTED, "positives": POSITIVES}]


@pytest.mark.parametrize("which", WHICH, ids=lambda which: "-".join(which) or "all")
@pytest.mark.parametrize("kind", ["linear", "deep", "cosine"])
def test_gradients_are_finite_differences(kind, which):
    model = Planted(5)
    tower = getattr(model, kind)
    wanted = differences(model, tower, **which)
    found = tower_gradients(model.vectors, KNOWN, tower, model.items, **which)
    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=0)
    assert not found.requires_grad
    if kind == "linear":
        users = model.linear(pool(model.vectors, KNOWN))
        closed = linear_gradients(model.vectors, KNOWN, users, model.items, **which)
        torch.testing.assert_close(closed, found, atol=1e-12, rtol=0)


@pytest.mark.parametrize("which", WHICH, ids=lambda which: "-".join(which) or "all")
def test_gates_of_a_whole_model_have_the_same_gradient(which):
    model = Planted(5)

    def sure(gates):
        users = model.deep(pool(model.vectors, KNOWN, gates))
        return confidence((model.items @ users.unsqueeze(2)).squeeze(2), **which)

    wanted = tower_gradients(model.vectors, KNOWN, model.deep, model.items, **which)
    torch.testing.assert_close(gate_gradients(sure, KNOWN, torch.float64), wanted, atol=1e-12, rtol=0)


def test_models_that_are_compared_are_sure_of_the_first_item_of_a_list():
    scores, listed = normal(B, K), torch.where(LISTED, torch.arange(K), -1)
    listed[3] = -1
    chances = scores.masked_fill(listed < 0, -torch.inf).softmax(1)[:, 0]
    found = confidence(scores, **of_first(listed))
    torch.testing.assert_close(found[:3], chances[:3])
    assert found[3] == 0
    assert (found[:3] < confidence(scores, listed=listed >= 0)[:3]).any()


def test_a_model_of_any_width_has_one_number_an_item():
    narrow, wide = Planted(2), Planted(9, seed=50)
    found = [tower_gradients(m.vectors, KNOWN, m.deep, m.items) for m in (narrow, wide)]
    assert found[0].shape == found[1].shape == (B, L)
    assert all((one[~KNOWN] == 0).all() for one in found)
    assert gate_distance(*found).shape == (B,)


def test_the_pool_is_that_of_the_two_tower_student():
    model = TwoTower(
        PlainTable, num_users=3, num_items=ITEMS, dim=4, hidden=[6], id_dropout=0.0, space="dot", temperature=1.0
    )
    torch.nn.init.normal_(model.item.weight, generator=torch.Generator().manual_seed(1))
    pooled = pool(model.item.weight[HISTORY.clamp(min=0)], KNOWN)
    hidden = torch.relu(model.layers[0](torch.cat([torch.zeros(B, 4), pooled], 1)))
    wanted, _ = model.vectors(torch.full((B,), -1), Past(items=HISTORY), torch.zeros(0, dtype=torch.int64))
    torch.testing.assert_close(model.layers[1](hidden), wanted)


def test_nothing_listed_and_no_history_give_zeros():
    model = Planted(5)
    vectors = model.vectors.requires_grad_()
    nothing, nobody = torch.zeros(B, K, dtype=torch.bool), torch.zeros(B, L, dtype=torch.bool)
    for known, listed in ((KNOWN, nothing), (nobody, LISTED)):
        found = tower_gradients(vectors, known, model.deep, model.items, listed=listed, learn=True)
        assert (found == 0).all()
        (slope,) = torch.autograd.grad(gate_distance(found, found.detach() + KNOWN).sum(), vectors)
        assert torch.isfinite(slope).all()


def test_a_copy_of_any_scale_has_no_distance():
    a = normal(B, L)
    assert gate_distance(a, a).abs().max() == 0
    for scale in (5.0, 1e-30, 1e30):
        assert gate_distance(a.float(), (scale * a).float()).max() < 1e-12
    torch.testing.assert_close(gate_distance(a, -a), torch.full((B,), 4.0, dtype=torch.float64))


def test_the_distance_is_two_less_twice_the_cosine():
    a, b = normal(B, L), normal(B, L, seed=1)
    torch.testing.assert_close(gate_distance(a, b), 2 - 2 * cosine_similarity(a, b, 1))


def test_a_history_of_one_item_is_towards_or_against_and_teaches_nothing():
    a = normal(B, 1).requires_grad_()
    found = gate_distance(a, normal(B, 1, seed=1))
    assert set(found.tolist()) <= {0.0, 4.0}
    (slope,) = torch.autograd.grad(found.sum(), a)
    assert slope.abs().max() < 1e-12


def test_rows_of_zero_gradient_are_at_no_distance_and_teach_nothing():
    a, b = normal(B, L).requires_grad_(), normal(B, L, seed=1)
    zero = a * torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    found = gate_distance(zero, b * torch.tensor([[1.0], [1.0], [0.0], [0.0]]))
    assert (found > 0).tolist() == [True, False, False, False]
    (slope,) = torch.autograd.grad(found.sum(), a)
    assert torch.isfinite(slope).all()
    assert slope.ne(0).any(1).tolist() == [True, False, False, False]


def loss_of(table, identity, items, first, second, teacher):
    """Return the distance as a student learns by it: looked up, gated, added up, through its layers."""
    vectors = embedding(HISTORY.clamp(min=0), table)

    def tower(pooled):
        return direction(torch.tanh((pooled + identity) @ first.T) @ second.T)

    found = tower_gradients(vectors, KNOWN, tower, items, listed=LISTED, learn=True)
    return gate_distance(found, teacher)


def test_the_distance_can_be_differentiated_again_by_all_that_the_student_is():
    model, teacher = Planted(3), normal(B, L, seed=9) * KNOWN
    parts = [model.table, model.identity, model.items, model.first, model.second]
    parts = [part.clone().requires_grad_() for part in parts]
    assert torch.autograd.gradcheck(lambda *given: loss_of(*given, teacher), parts)


def test_the_closed_form_can_be_differentiated_twice_more():
    model, teacher = Planted(3), normal(B, L, seed=9) * KNOWN
    parts = [part.clone().requires_grad_() for part in (model.table, model.items)]

    def loss(table, items):
        vectors = embedding(HISTORY.clamp(min=0), table)
        users = pool(vectors, KNOWN) + model.identity
        return gate_distance(linear_gradients(vectors, KNOWN, users, items, listed=LISTED), teacher)

    assert torch.autograd.gradcheck(loss, parts)
    assert torch.autograd.gradgradcheck(loss, parts)


def test_directions_have_all_their_derivatives():
    rows = normal(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(direction, rows)
    assert torch.autograd.gradgradcheck(direction, rows)
    torch.testing.assert_close(direction(rows), rows / rows.norm(dim=1, keepdim=True))
    assert (direction(torch.zeros(2, 3)) == 0).all()


def test_a_student_learns_to_look_where_its_teacher_looks():
    taken = {"positives": torch.arange(K).expand(B, K) == 0}
    wide, narrow = Planted(9, seed=50), Planted(4)
    teacher = tower_gradients(wide.vectors, KNOWN, wide.deep, wide.items, **taken)
    parts = [part.requires_grad_() for part in (narrow.table, narrow.identity, narrow.first, narrow.second)]
    optimizer = torch.optim.Adam(parts, 0.05)
    distances = []
    for _ in range(60):
        found = tower_gradients(narrow.vectors, KNOWN, narrow.deep, narrow.items, learn=True, **taken)
        loss = gate_distance(found, teacher).mean()
        distances.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert distances[-1] < 0.05 * distances[0]
