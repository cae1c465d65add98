"""The ranker: its fields against a slow loop, and scores that read features and the order of the history."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recdistill.models.encoders import Group
from recdistill.models.fields import Fields
from recdistill.models.ranker import Ranker
from recdistill.models.tables import PlainTable
from recdistill.types import Features, Past

USERS, ITEMS, DIM, LENGTH = 7, 11, 8, 4
RNG = np.random.default_rng(0)
GENRES = [[1], [], [2, 3, 1], [0], [3], [], [2, 2], [1, 3], [], [3, 2], []]
ITEM_FEATURES = Features(
    sizes={"brand": 5, "genre": 4},
    categorical={"brand": RNG.integers(0, 5, ITEMS)},
    multi={
        "genre": (
            np.concatenate([[0], np.cumsum([len(g) for g in GENRES])]),
            np.array([code for genres in GENRES for code in genres]),
        )
    },
    numeric={"price": RNG.normal(size=ITEMS).astype(np.float32), "age": RNG.normal(size=ITEMS).astype(np.float32)},
)
USER_FEATURES = Features(sizes={"city": 3}, categorical={"city": RNG.integers(0, 3, USERS)})
PEOPLE = torch.tensor([3, 0, 6])
PAST = torch.tensor([[-1, -1, 2, 5], [-1, -1, -1, -1], [1, 2, 3, 4]])


def filled(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return module.eval()


def ranker(user_features=USER_FEATURES, item_features=ITEM_FEATURES, **settings):
    sizes = {"num_users": USERS, "num_items": ITEMS, "dim": DIM, "heads": 2, "history": LENGTH}
    shape = {"cross_layers": 2, "cross_rank": 5, "hidden": (16,), "clock": None} | settings
    return filled(Ranker(PlainTable, **sizes, user_features=user_features, item_features=item_features, **shape))


def score(model, users, history, items):
    with torch.no_grad():
        return model.score(users, Past(items=history), [Group(items)])[0]


def vectors(fields, rows):
    bags, lengths = fields.bags(rows)
    return fields.assemble(fields.table(bags, lengths), rows)


def slowly(fields, features, num_rows, row):
    """Return an entity's vector, field by field."""
    weight, base, parts = fields.table.weight, num_rows, [fields.table.weight[row]]
    for column, codes in features.categorical.items():
        parts.append(weight[base + int(codes[row])])
        base += features.sizes[column]
    for column, (offsets, codes) in features.multi.items():
        mine = codes[offsets[row] : offsets[row + 1]]
        mean = sum((weight[base + int(code)] for code in mine), torch.zeros(fields.dim)) / max(len(mine), 1)
        parts.append(mean)
        base += features.sizes[column]
    parts.append(torch.tensor([float(values[row]) for values in features.numeric.values()]))
    assert base == len(weight)
    return torch.cat(parts)


def test_fields_are_the_slow_loop_over_columns():
    fields = filled(Fields(PlainTable, "item", ITEMS, ITEM_FEATURES, DIM))
    rows = torch.tensor([10, 0, 2, 2, 5, 6, 1, 9, 3, 4, 7, 8])
    expected = torch.stack([slowly(fields, ITEM_FEATURES, ITEMS, row) for row in rows.tolist()])
    torch.testing.assert_close(vectors(fields, rows), expected)
    assert fields.size == expected.shape[1] == 3 * DIM + 2


def test_fields_without_columns_are_the_id_alone():
    fields = filled(Fields(PlainTable, "user", USERS, Features(), DIM))
    rows = torch.tensor([4, 0, 6])
    torch.testing.assert_close(vectors(fields, rows), fields.table.weight[rows])


def test_no_entity_is_empty_bags_between_the_others():
    fields = filled(Fields(PlainTable, "item", ITEMS, ITEM_FEATURES, DIM))
    found = vectors(fields, torch.tensor([-1, 2, -1, 7]))
    assert (found[[0, 2], : 3 * DIM] == 0).all()
    torch.testing.assert_close(found[[1, 3]], vectors(fields, torch.tensor([2, 7])))


def test_items_for_all_score_as_the_same_items_of_each_row():
    model, items = ranker(), torch.tensor([5, 0, 10])
    shared, each = model.score(PEOPLE, Past(items=PAST), [Group(items), Group(items.expand(3, -1))])
    torch.testing.assert_close(shared, each)
    assert shared.shape == (3, 3)


def test_a_score_depends_on_its_user_and_item_alone():
    model = ranker()
    whole = score(model, PEOPLE, PAST, torch.arange(ITEMS))
    for row in range(len(PEOPLE)):
        for item in (0, 4, 10):
            alone = score(model, PEOPLE[row : row + 1], PAST[row : row + 1], torch.tensor([item]))
            torch.testing.assert_close(alone[0, 0], whole[row, item], rtol=1e-4, atol=1e-5)


def test_an_empty_place_among_the_items_leaves_the_others_alone():
    model = ranker()
    found = score(model, PEOPLE, PAST, torch.tensor([[3, -1, 4]] * 3))
    torch.testing.assert_close(found[:, [0, 2]], score(model, PEOPLE, PAST, torch.tensor([3, 4])), rtol=1e-4, atol=1e-5)
    assert found.isfinite().all()


def test_an_empty_history_is_finite_with_a_finite_gradient():
    model = ranker()
    model.head.weight.grad = None
    value = model.score(torch.tensor([2]), Past(items=torch.full((1, LENGTH), -1)), [Group(torch.arange(ITEMS))])[0]
    value.sum().backward()
    assert value.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_history_is_read_in_order():
    model, items = ranker(), torch.arange(ITEMS)
    forward = score(model, PEOPLE[2:], PAST[2:], items)
    assert (forward - score(model, PEOPLE[2:], PAST[2:].flip(1), items)).abs().max() > 1e-4


@pytest.mark.parametrize("change", ["brand", "genre", "price"])
def test_a_feature_of_an_item_changes_the_scores_of_that_item_alone(change):
    features = {
        "brand": replace(ITEM_FEATURES, categorical={"brand": (ITEM_FEATURES.categorical["brand"] + at(4)) % 5}),
        "genre": replace(ITEM_FEATURES, multi={"genre": (ITEM_FEATURES.multi["genre"][0], other_genre())}),
        "price": replace(ITEM_FEATURES, numeric=ITEM_FEATURES.numeric | {"price": raised_price()}),
    }[change]
    empty, items = torch.full((3, LENGTH), -1), torch.arange(ITEMS)
    gap = score(ranker(item_features=features), PEOPLE, empty, items) - score(ranker(), PEOPLE, empty, items)
    assert (gap[:, 4].abs() > 1e-5).all()
    others = torch.arange(ITEMS) != 4
    assert gap[:, others].abs().max() < 1e-6


def at(item):
    return (np.arange(ITEMS) == item).astype(np.int64)


def other_genre():
    offsets, codes = ITEM_FEATURES.multi["genre"]
    codes = codes.copy()
    codes[offsets[4]] = 1
    return codes


def raised_price():
    return ITEM_FEATURES.numeric["price"] + at(4).astype(np.float32)


def test_a_feature_of_a_user_changes_the_scores_of_that_user_alone():
    codes = USER_FEATURES.categorical["city"].copy()
    codes[3] = (codes[3] + 1) % 3
    changed = ranker(user_features=replace(USER_FEATURES, categorical={"city": codes}))
    gap = score(changed, PEOPLE, PAST, torch.arange(ITEMS)) - score(ranker(), PEOPLE, PAST, torch.arange(ITEMS))
    assert (gap[0].abs() > 1e-5).all()
    assert gap[1:].abs().max() < 1e-6
