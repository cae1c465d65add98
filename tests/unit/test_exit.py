"""A tower that may end a layer early: the hidden layer against the item vectors that serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recdistill.config import load_config
from recdistill.distill.compose import make_term
from recdistill.distill.objective import Objective, Widths
from recdistill.distill.spec import ListTermSpec
from recdistill.distill.spec_draws import Top
from recdistill.distill.spec_lists import SoftmaxKL
from recdistill.errors import ConfigError
from recdistill.models.encoders import TwoTower
from recdistill.models.lengths import unit
from recdistill.models.tables import PlainTable
from recdistill.types import Batch, Candidates, Lesson, Past

USERS, ITEMS, DIM = 6, 9, 4
NONE = torch.zeros(0, dtype=torch.int64)


def tower(space="cosine"):
    torch.manual_seed(0)
    settings = {"dim": DIM, "hidden": (DIM,), "id_dropout": 0.0, "space": space, "temperature": 0.5}
    made = TwoTower(PlainTable, num_users=USERS, num_items=ITEMS, **settings)
    for table in (made.user, made.item):
        table.weight.data.normal_()
        table.weight.requires_grad_(True)
    made.layers[0].bias.data.fill_(2.0)  # so that the rectifier lets most through
    return made


BATCH = Batch(
    users=torch.tensor([0, 3]),
    positives=torch.tensor([7, 2]),
    negatives=torch.tensor([1, 5]),
    past=Past(items=torch.tensor([[1, 2], [4, -1]])),
    count=2.0,
    list_users=torch.tensor([1, 2]),
    list_past=Past(items=torch.tensor([[3, -1], [0, 5]])),
)
GIVEN = Candidates(
    items=torch.tensor([[3, 8, 1], [0, 6, 5]]), teacher=torch.tensor([[2.0, 1.0, 0.0], [1.0, 0.5, 0.0]]), ranked=3
)


def term(early=True):
    return make_term(ListTermSpec(weight=1.0, draw=(Top(k=3),), loss=SoftmaxKL(), exit=early), 0)


def value(model, one):
    objective = Objective(model, loss="softmax", num_items=ITEMS, terms=[one], widths=Widths(DIM, DIM))
    return objective(
        Batch(**{f: getattr(BATCH, f) for f in BATCH.__slots__} | {"lesson": Lesson(candidates={one.name: GIVEN})})
    )[one.name]


@pytest.mark.parametrize("space", ["cosine", "dot"])
def test_it_compares_the_hidden_layer(space):
    model = tower(space)
    shared, items = model.trunk(BATCH.list_users, BATCH.list_past, torch.arange(ITEMS))
    left, right = unit(shared, space), unit(items, space)
    scores = (left.unsqueeze(1) * right[GIVEN.items]).sum(2) / 0.5
    expected = term().loss(scores, GIVEN).mean()
    torch.testing.assert_close(value(model, term()), expected)
    assert not torch.isclose(value(model, term(early=False)), expected)


def test_the_layer_behind_it_gets_no_gradient_and_those_before_it_do():
    model = tower()
    value(model, term()).backward()
    assert model.layers[1].weight.grad is None
    assert model.layers[0].weight.grad.any()
    assert model.user.weight.grad.any()
    assert model.item.weight.grad.any()


def together(model, *weights):
    """Return the losses of a term on the hidden layer and one on the last, of these weights, and all gradients."""
    spec = ListTermSpec(weight=1.0, draw=(Top(k=3),), loss=SoftmaxKL())
    layers = make_term(spec.model_copy(update={"exit": True}), 0), make_term(spec, 1)
    terms = [replace(one, weight=weight) for one, weight in zip(layers, weights, strict=True) if weight is not None]
    lesson = Lesson(candidates={one.name: GIVEN for one in terms})
    objective = Objective(model, loss="softmax", num_items=ITEMS, terms=terms, widths=Widths(DIM, DIM))
    found = objective(replace(BATCH, lesson=lesson))
    model.zero_grad()
    torch.stack([found[one.name] for one in terms]).sum().backward()
    return found, {name: weight.grad for name, weight in model.named_parameters()}


def test_blocks_of_which_the_last_alone_counts_are_plain_distillation():
    """The sum over blocks of w_k KL_k at w = (0, 1), in value and gradient, and linear in w (Yang et al., 2025)."""
    model = tower()
    (plain, slopes), (found, same) = together(model, None, 1.0), together(model, 0.0, 1.0)
    assert found["0.softmax_kl"] == 0
    assert torch.equal(found["1.softmax_kl"], plain["1.softmax_kl"])
    both, of_both = together(model, 0.5, 2.0)
    hidden, of_hidden = together(model, 1.0, None)
    torch.testing.assert_close(both["0.softmax_kl"], 0.5 * hidden["0.softmax_kl"])
    torch.testing.assert_close(both["1.softmax_kl"], 2.0 * plain["1.softmax_kl"])
    assert not torch.isclose(hidden["0.softmax_kl"], plain["1.softmax_kl"])  # the blocks say different things
    for name, slope in slopes.items():
        torch.testing.assert_close(same[name], slope)
        part = torch.zeros_like(slope) if of_hidden[name] is None else of_hidden[name]
        torch.testing.assert_close(of_both[name], 0.5 * part + 2.0 * slope)


GOOD = """\
name: tiny
log: {path: log.parquet, user: u, item: i, time: t}
teacher:
  model: {kind: mf, dim: 16}
  train: {epochs: 3}
labels: {depth: 50}
student:
  model: {kind: two_tower, dim: 8, hidden: [16, 8]}
  train: {epochs: 3}
distill:
  - {kind: list, weight: 1, exit: true, draw: [{kind: top, k: 5}], loss: {kind: softmax_kl}}
report: {k: [10]}
"""


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ([], ""),
        (["student.model.hidden=[16]"], "student.model.hidden that ends in 8"),
        (["student.model={kind: mf, dim: 8}"], "student.model.hidden that ends in 8"),
        (["distill.0.head={gradient: 1.0}"], "has no effect: with exit"),
    ],
)
def test_a_tower_without_such_a_layer_is_refused(tmp_path: Path, sets, reason):
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    if not reason:
        load_config(path, sets)
        return
    with pytest.raises(ConfigError) as caught:
        load_config(path, sets)
    assert any(reason in problem.reason for problem in caught.value.problems), caught.value
