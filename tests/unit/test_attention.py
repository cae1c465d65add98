"""The student's gradients by gates on its history, in a step: against finite differences of the student itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from recdistill.distill.compose import make_term
from recdistill.distill.objective import Objective
from recdistill.distill.spec import GatesTermSpec
from recdistill.models.encoders import Group, TwoTower
from recdistill.models.tables import PlainTable
from recdistill.types import Batch, Lesson, Past

USERS, ITEMS, DIM, TEMPERATURE = 6, 14, 4, 0.5
HISTORY = torch.tensor([[9, 10, 11], [-1, 12, 10], [13, 11, 9], [-1, -1, 12]])  # none of which is listed
LISTED = torch.tensor([[3, 8, 1, 0], [0, 6, 5, -1], [2, 4, 7, 8], [1, 2, -1, -1]])
NAME = "0.gates"
BATCH = Batch(
    users=torch.tensor([0, 3]),
    positives=torch.tensor([7, 2]),
    negatives=torch.tensor([1, 5]),
    past=Past(items=torch.tensor([[1, 2, 3], [4, -1, -1]])),
    count=2.0,
    list_users=torch.tensor([1, 2, 5, 4]),
    list_past=Past(items=HISTORY),
)
SHAPES = [(space, hidden) for space in ("dot", "cosine") for hidden in ((), (5,))]


def student(space="cosine", hidden=()):
    torch.manual_seed(0)
    settings = {"dim": DIM, "hidden": hidden, "id_dropout": 0.0, "space": space, "temperature": TEMPERATURE}
    made = TwoTower(PlainTable, num_users=USERS, num_items=ITEMS, **settings).double()
    for table in (made.user, made.item):
        table.weight.data.normal_()
        table.weight.requires_grad_(True)
    return made


def taught(seed=3, width=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(LISTED), width, dtype=torch.float64, generator=generator)


def value(model, teacher, *, negatives=BATCH.negatives, rows=slice(None), **more):
    objective = Objective(
        model, loss="softmax", num_items=ITEMS, terms=[make_term(GatesTermSpec(weight=1.0), 0)], **more
    )
    past = Past(items=BATCH.list_past.items[rows])
    lesson = Lesson(gates=(LISTED[rows], teacher[rows]))
    return objective(
        replace(BATCH, negatives=negatives, list_users=BATCH.list_users[rows], list_past=past, lesson=lesson)
    )[NAME]


@torch.no_grad()
def confidences(model):
    """Return the chance of the first item of each row's list, as the model that serves scores it."""
    scores = model.score(BATCH.list_users, BATCH.list_past, [Group(LISTED.clamp(min=0))])[0]
    return scores.masked_fill(LISTED < 0, -torch.inf).softmax(1)[:, 0]


def differences(model, step=1e-6):
    """Return what each item of a history does to the confidence: its row is scaled, which only the history reads."""
    found = torch.zeros(HISTORY.shape, dtype=torch.float64)
    for row, column in (HISTORY >= 0).nonzero().tolist():
        item, ends = model.item.weight.data[HISTORY[row, column]], []
        kept = item.clone()
        for sign in (1, -1):
            item.copy_(kept * (1 + sign * step))
            ends.append(confidences(model)[row])
        item.copy_(kept)
        found[row, column] = (ends[0] - ends[1]) / (2 * step)
    return found


def apart(student, teacher):
    """Return 2 - 2 cos of each row, 0 for a history of one item."""
    each = 2 - 2 * cosine_similarity(student, teacher, 1)
    return torch.where((HISTORY >= 0).sum(1) > 1, each, 0.0)


@pytest.mark.parametrize(("space", "hidden"), SHAPES)
def test_it_is_two_less_twice_the_cosine_with_finite_differences_of_the_student(space, hidden):
    model, teacher = student(space, hidden), taught() * (HISTORY >= 0)
    wanted = apart(differences(model), teacher).mean()
    assert 0.2 < wanted < 3.8
    torch.testing.assert_close(value(model, teacher), wanted, atol=1e-7, rtol=0)


@pytest.mark.parametrize("times", [1.0, 1e-6, 300.0])
def test_a_student_that_looks_where_its_teacher_looks_is_at_no_distance(times):
    model = student("cosine", (5,))
    assert value(model, times * differences(model)) < 1e-12
    assert value(model, -times * differences(model)) > 2.9  # three of the four rows have more than one item


def test_of_the_longer_of_two_histories_the_latest_items_count():
    model, teacher = student(), taught() * (HISTORY >= 0)
    longer = torch.cat([taught(seed=9), teacher], dim=1)
    torch.testing.assert_close(value(model, longer), value(model, teacher))
    found = apart(differences(model)[:, 1:], teacher[:, 1:])
    torch.testing.assert_close(value(model, teacher[:, 1:]), found.mean(), atol=1e-7, rtol=0)


def test_one_item_in_sight_teaches_nothing():
    model = student()
    found = value(model, taught(width=1))
    assert found == 0
    found.backward()
    assert not model.item.weight.grad.any()


@pytest.mark.parametrize("everything", [False, True], ids=["asked", "whole"])
@pytest.mark.parametrize(("space", "hidden"), SHAPES)
def test_its_gradient_is_that_of_finite_differences_by_all_that_the_student_is(space, hidden, everything):
    model, teacher, step = student(space, hidden), taught(), 1e-5
    # With the whole catalogue as negatives everything is looked up once and picked; else what is asked for.
    negatives = torch.arange(ITEMS) if everything else BATCH.negatives
    value(model, teacher, negatives=negatives).backward()
    for seed, parameter in enumerate(model.parameters()):
        kept, along, ends = parameter.data.clone(), taught(seed, parameter.numel())[0].view(parameter.shape), []
        for sign in (1, -1):
            parameter.data.copy_(kept + sign * step * along)
            ends.append(value(model, teacher, negatives=negatives).item())
        parameter.data.copy_(kept)
        given = 0.0 if parameter.grad is None else (parameter.grad * along).sum().item()
        assert given == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7, rel=1e-5)
    assert model.item.weight.grad[LISTED[0]].any()
    assert model.item.weight.grad[HISTORY[0]].any()


def test_halves_on_two_ranks_add_up_to_the_whole():
    model, teacher = student("cosine", (5,)), taught()
    halves = [value(model, teacher, rows=rows) for rows in (slice(0, 2), slice(2, 4))]
    whole = value(model, teacher)
    torch.testing.assert_close(torch.stack(halves).mean(), whole)
    parameters = list(model.parameters())
    wanted = torch.autograd.grad(whole, parameters, allow_unused=True)
    found = torch.autograd.grad(torch.stack(halves).mean(), parameters, allow_unused=True)
    assert sum(one is not None for one in wanted) > 3
    for one, other in zip(wanted, found, strict=True):
        assert (one is None) == (other is None)  # a term takes part on every rank, whatever its rows
        if one is not None:
            torch.testing.assert_close(one, other)


def test_every_parameter_takes_part_though_nobody_has_anything_to_learn():
    model = student("cosine", (5,))
    value(model, torch.zeros(4, 3, dtype=torch.float64)).backward()
    assert all(layer.weight.grad is not None for layer in model.layers)
    assert not model.item.weight.grad.any()


def test_half_precision_of_products_changes_it_little():
    model, teacher = student("cosine", (5,)).float(), taught().float()
    found, wanted = value(model, teacher, bf16=True), value(model, teacher)
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0)
    found.backward()
    assert torch.isfinite(model.item.weight.grad).all()
