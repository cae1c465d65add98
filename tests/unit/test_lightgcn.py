"""LightGCN against the dense matrices of its paper, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.models.encoders import Group
from recdistill.models.lightgcn import Graph, LightGCN, log_popularity
from recdistill.models.tables import PlainTable
from recdistill.types import Interactions, Past

USERS, ITEMS, DIM = 5, 4, 8
TAKEN = [[0, 1, 2], [1], [0, 3], [], [2, 3, 1]]  # user 3 took nothing
TRAIN = Interactions(
    indptr=np.concatenate([[0], np.cumsum([len(t) for t in TAKEN])]), items=np.concatenate(TAKEN).astype(np.int64)
)
NOTHING = Past(items=torch.zeros(3, 0, dtype=torch.int64))


def model(layers, space="dot", temperature=1.0):
    made = LightGCN(
        PlainTable,
        num_users=USERS,
        num_items=ITEMS,
        train=TRAIN,
        dim=DIM,
        layers=layers,
        space=space,
        temperature=temperature,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return made.eval()


def dense(made, layers):
    """Return the vectors of all by the paper's matrices: the mean over l of (D^-1/2 A D^-1/2)^l E."""
    taken = np.zeros((USERS, ITEMS))
    for user, items in enumerate(TAKEN):
        taken[user, items] = 1
    whole = np.block([[np.zeros((USERS, USERS)), taken], [taken.T, np.zeros((ITEMS, ITEMS))]])
    degree = whole.sum(1)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    step = scale[:, None] * whole * scale
    first = np.concatenate([made.user.weight.double().numpy(), made.item.weight.double().numpy()])
    found = sum(np.linalg.matrix_power(step, layer) @ first for layer in range(layers + 1)) / (layers + 1)
    return found[:USERS], found[USERS:]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_vectors_are_those_of_the_papers_matrices(layers):
    made = model(layers)
    users, items = dense(made, layers)
    asked, wanted = torch.tensor([3, 0, 4]), torch.tensor([1, 3, 1, 0])
    left, right = made.vectors(asked, NOTHING, wanted)
    np.testing.assert_allclose(left.numpy(), users[asked], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(right.numpy(), items[wanted], rtol=1e-5, atol=1e-6)


def test_a_user_without_interactions_keeps_its_share_of_its_own_row():
    made = model(2)
    left, _ = made.vectors(torch.tensor([3]), NOTHING, torch.tensor([0]))
    torch.testing.assert_close(left[0], made.user.weight[3] / 3)


def test_nobody_and_nothing_are_zeros():
    left, right = model(2).vectors(torch.tensor([-1, 0]), NOTHING, torch.tensor([-1]))
    assert not left[0].any()
    assert left[1].any()
    assert not right.any()


def test_the_gradient_is_that_of_the_dense_product():
    graph = Graph(TRAIN, ITEMS)
    items = torch.randn(ITEMS, DIM, requires_grad=True)
    users = torch.randn(USERS, DIM, requires_grad=True)
    weight = torch.randn(USERS, DIM)
    (graph.gather_items(items) * weight).sum().backward()
    matrix = graph.gather_items(torch.eye(ITEMS))
    torch.testing.assert_close(items.grad, matrix.T @ weight)
    (graph.gather_users(users) * weight[:ITEMS]).sum().backward()
    torch.testing.assert_close(users.grad, matrix @ weight[:ITEMS])


def test_scores_are_cosines_over_the_temperature():
    made = model(2, "cosine", 0.2)
    users, items = dense(made, 2)
    score = made.score(torch.tensor([0, 1, 4]), NOTHING, [Group(torch.tensor([2, 0]))])[0]
    left, right = users[[0, 1, 4]], items[[2, 0]]
    left, right = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (left, right))
    np.testing.assert_allclose(score.numpy(), left @ right.T / 0.2, rtol=1e-4)


def test_a_prior_is_the_share_of_popularity_that_a_score_starts_from():
    plain, told = model(2, "cosine", 0.2), model(2, "cosine", 0.2)
    told.prior = 0.5 * log_popularity(TRAIN, ITEMS)
    asked = [Group(torch.tensor([2, 0])), Group(torch.tensor([[1, 3], [0, -1], [2, 2]]))]
    bare, scores = (m.score(torch.tensor([0, 1, 4]), NOTHING, asked) for m in (plain, told))
    taken = torch.tensor([2.0, 3, 2, 2]) / 9  # of nine interactions
    for group, before, after in zip(asked, bare, scores, strict=True):
        torch.testing.assert_close(after, before + 0.5 * taken.log()[group.items.clamp(min=0)])
    users, items, space = told.all_vectors()
    assert space == "dot"
    torch.testing.assert_close((users @ items.T)[[0, 1, 4]][:, [2, 0]], scores[0])


def test_popularity_of_nothing_is_half_an_interaction():
    found = log_popularity(Interactions(indptr=np.array([0, 3]), items=np.array([0, 0, 2])), 3)
    torch.testing.assert_close(found.exp() * 3.5, torch.tensor([2.0, 0.5, 1.0]))


@pytest.mark.parametrize("prior", [None, 0.5])
@pytest.mark.parametrize("space", ["dot", "cosine"])
def test_vectors_of_all_have_the_scores_for_inner_products(space, prior):
    made = model(2, space, 0.2)
    made.prior = None if prior is None else prior * log_popularity(TRAIN, ITEMS)
    known = torch.tensor([0, 1, 2, 4])
    score = made.score(known, NOTHING, [Group(torch.arange(ITEMS))])[0]
    users, items, found = made.all_vectors()
    assert found == ("cosine" if space == "cosine" and prior is None else "dot")
    scale = 0.2 if found == "cosine" else 1.0
    torch.testing.assert_close((users @ items.T / scale)[known], score)
    alone = torch.zeros(ITEMS) if prior is None else made.prior
    torch.testing.assert_close((users @ items.T)[3], alone)  # who took nothing is told what is popular
