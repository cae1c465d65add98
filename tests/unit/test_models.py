"""The encoders: tables against sums by hand, scores that depend on nothing but their own user and item."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from recdistill.models import encoders
from recdistill.models.encoders import MF, Group, TwoTower, hidden
from recdistill.models.lengths import unit
from recdistill.models.tables import PlainTable
from recdistill.types import Past

USERS, ITEMS, DIM, LENGTH = 7, 11, 6, 4
SIZES = {"num_users": USERS, "num_items": ITEMS, "dim": DIM}


def filled(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return model.eval()


def mf(space="dot", temperature=1.0):
    return filled(MF(PlainTable, **SIZES, space=space, temperature=temperature))


def two_tower(space="dot", temperature=1.0, layers=(), id_dropout=0.0):
    settings = {"hidden": layers, "id_dropout": id_dropout, "space": space, "temperature": temperature}
    return filled(TwoTower(PlainTable, **SIZES, **settings))


MODELS = {
    "mf": mf,
    "mf cosine": partial(mf, "cosine", 0.1),
    "two_tower": two_tower,
    "two_tower hidden": partial(two_tower, "cosine", 0.1, (8,)),
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
PEOPLE = torch.tensor([3, 0, 6, -1])
PAST = torch.tensor([[-1, -1, 2, 5], [-1, -1, -1, -1], [1, 2, 3, 4], [-1, 0, 10, 2]])
NO_ITEMS = torch.zeros(0, dtype=torch.int64)


def score(model, users, history, items):
    return model.score(users, Past(items=history), [Group(items)])[0]


# Tables


def test_a_table_gives_the_rows_asked():
    table = filled(PlainTable("item", 5, 3))
    found = table(torch.tensor([4, 0, 4]))
    assert found.tolist() == [table.weight[i].tolist() for i in (4, 0, 4)]


def test_a_table_sums_each_bag_and_an_empty_one_is_zero():
    table = filled(PlainTable("item", 5, 3))
    found = table(torch.tensor([1, 2, 2, 4]), torch.tensor([0, 3, 0, 1, 0]))
    weight = table.weight
    expected = [torch.zeros(3), weight[1] + 2 * weight[2], torch.zeros(3), weight[4], torch.zeros(3)]
    torch.testing.assert_close(found, torch.stack(expected))


# Scores


@every_model
def test_items_for_all_score_as_the_same_items_of_each_row(make):
    model, items = make(), torch.tensor([5, 0, 10])
    shared, each = model.score(PEOPLE, Past(items=PAST), [Group(items), Group(items.expand(4, -1))])
    torch.testing.assert_close(shared, each)
    assert shared.shape == (4, 3)


@every_model
def test_a_score_depends_on_its_user_and_item_alone(make):
    model, everything = make(), torch.arange(ITEMS)
    whole = score(model, PEOPLE, PAST, everything)
    for row in range(len(PEOPLE)):
        for item in (0, 4, 10):
            alone = score(model, PEOPLE[row : row + 1], PAST[row : row + 1], torch.tensor([item]))
            torch.testing.assert_close(alone[0, 0], whole[row, item])


@every_model
def test_groups_for_some_rows_are_those_rows_of_the_whole(make):
    model, items = make(), torch.tensor([5, 0, 10])
    each = torch.tensor([[1, 2], [3, -1]])
    first, second = model.score(PEOPLE, Past(items=PAST), [Group(items, slice(2)), Group(each, slice(2, None))])
    whole = score(model, PEOPLE, PAST, torch.arange(ITEMS))
    torch.testing.assert_close(first, whole[:2][:, items])
    torch.testing.assert_close(second[0], whole[2, [1, 2]])
    torch.testing.assert_close(second[1], torch.stack([whole[3, 3], torch.zeros(())]))  # no item, no score


@every_model
def test_scores_are_inner_products_of_the_vectors(make):
    model = make()
    left, right = model.vectors(PEOPLE, Past(items=PAST), torch.arange(ITEMS))
    if model.space == "cosine":
        left, right = (v / v.norm(dim=1, keepdim=True).clamp(min=1e-9) for v in (left, right))
    expected = left @ right.T / model.temperature
    torch.testing.assert_close(score(model, PEOPLE, PAST, torch.arange(ITEMS)), expected)


@pytest.mark.parametrize("rows", [(slice(None), slice(None)), (slice(2), slice(2, None)), (slice(1, 3), slice(2, 4))])
@every_model
def test_scoring_all_and_picking_is_scoring_what_is_asked(make, rows, monkeypatch):
    wide = [0, 4, -1, 3, 10, 9, 9, 2, 1, 5, 6]  # as many as the catalogue has, so that all of it is scored
    groups = [Group(torch.tensor(wide), rows[0]), Group(torch.tensor([[1, -1]]).expand(4, -1)[rows[1]], rows[1])]
    found, grads = [], []
    for most in (encoders.MOST_SCORES, 0):
        monkeypatch.setattr(encoders, "MOST_SCORES", most)
        model = make()
        model.item.weight.requires_grad_(True)
        scores = model.score(PEOPLE, Past(items=PAST), groups)
        sum((s * s).sum() for s in scores).backward()
        found.append(scores)
        grads.append(model.item.weight.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-3)


def test_mf_is_one_row_times_another():
    model = mf()
    expected = (model.user.weight[[3, 0]] * model.item.weight[[5, 9]]).sum(1)
    found = score(model, torch.tensor([3, 0]), PAST[:2], torch.tensor([[5], [9]]))[:, 0]
    torch.testing.assert_close(found, expected)


def test_cosine_scores_lie_within_one_over_the_temperature():
    model = mf("cosine", 0.1)
    found = score(model, torch.arange(USERS), torch.zeros(USERS, 0, dtype=torch.int64), torch.arange(ITEMS))
    assert found.abs().max() <= 10 * (1 + 1e-6)
    assert found.abs().max() > 1


def test_unit_leaves_dot_vectors_and_zeros_as_they_are():
    given = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert unit(given, "dot").tolist() == given.tolist()
    torch.testing.assert_close(unit(given, "cosine"), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


# The two-tower model's user side


def user_vector(model, user, history):
    return model.vectors(torch.tensor([user]), Past(items=torch.tensor([history])), NO_ITEMS)[0][0]


def test_a_known_user_is_its_row_plus_the_mean_of_its_history():
    model = two_tower()
    expected = model.user.weight[3] + (model.item.weight[2] + model.item.weight[5]) / 2
    torch.testing.assert_close(user_vector(model, 3, [-1, -1, 2, 5]), expected)


def test_an_unknown_user_is_the_mean_of_its_history():
    model = two_tower()
    torch.testing.assert_close(user_vector(model, -1, [-1, 0, 10, 2]), model.item.weight[[0, 10, 2]].mean(0))


def test_an_unknown_user_without_history_is_zero():
    model = two_tower()
    assert (user_vector(model, -1, [-1, -1, -1, -1]) == 0).all()
    cosine = score(two_tower("cosine", 0.1), torch.tensor([-1]), torch.full((1, 4), -1), torch.arange(ITEMS))
    assert (cosine == 0).all()


def test_hidden_layers_read_the_row_and_the_history_side_by_side():
    model = two_tower(layers=(8,))
    first, second = model.layers
    x = torch.cat([model.user.weight[3], (model.item.weight[2] + model.item.weight[5]) / 2])
    expected = second.weight @ torch.relu(first.weight @ x + first.bias) + second.bias
    torch.testing.assert_close(user_vector(model, 3, [-1, -1, 2, 5]), expected)


@pytest.mark.parametrize("layers", [(), (8,)])
def test_the_order_of_the_history_does_not_matter(layers):
    model = two_tower(layers=layers)
    torch.testing.assert_close(user_vector(model, 3, [1, 2, 3, 4]), user_vector(model, 3, [4, 2, 1, 3]))
    torch.testing.assert_close(user_vector(model, 3, [-1, -1, 3, 4]), user_vector(model, 3, [3, -1, 4, -1]))


def test_id_dropout_hides_ids_in_training_only():
    model = two_tower(id_dropout=0.5)
    users, history = torch.arange(USERS).repeat(20), torch.arange(20 * USERS).unsqueeze(1) % ITEMS
    whole, _ = model.vectors(users, Past(items=history), NO_ITEMS)
    mean = model.item.weight[history[:, 0]]
    torch.testing.assert_close(whole, model.user.weight[users] + mean)
    model.train()
    dropped, _ = model.vectors(users, Past(items=history), NO_ITEMS)
    hides = hidden(users, history, 0.5)
    assert 0 < hides.sum() < len(users)
    torch.testing.assert_close(dropped[hides], mean[hides])
    torch.testing.assert_close(dropped[~hides], whole[~hides])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_hidden_rows_are_the_share_asked_for(share):
    users = torch.arange(400).repeat_interleave(50)
    history = torch.arange(50).repeat(400).unsqueeze(1)
    assert hidden(users, history, share).double().mean().item() == pytest.approx(share, abs=0.01)
