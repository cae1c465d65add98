"""Gates on a history: those of ones are none, and the gradient by them is that of differences."""

from __future__ import annotations

import pytest
import torch

from recdistill.data.sequences import cut
from recdistill.models.encoders import Group, TwoTower
from recdistill.models.gates import confidence, gate_gradients
from recdistill.models.ranker import Ranker
from recdistill.models.sequence import SequenceEncoder
from recdistill.models.tables import PlainTable
from recdistill.types import Features, Past

USERS, ITEMS, DIM, LENGTH = 5, 12, 4, 4
SIZES = {"num_users": USERS, "num_items": ITEMS, "dim": DIM}
SPACE = {"id_dropout": 0.0, "space": "cosine", "temperature": 0.3}
RANKER = {"clock": None, "user_features": Features(), "item_features": Features(), "heads": 2, "history": LENGTH}
PEOPLE = torch.tensor([3, 0, -1])
HISTORY = torch.tensor([[-1, -1, 2, 5], [-1, -1, -1, -1], [1, 2, 3, 4]])
LISTED = torch.tensor([[7, 0, 9, 1], [8, 9, 0, -1], [6, 11, 10, 7]])


def model(kind: str):
    made = {
        "sum": lambda: TwoTower(PlainTable, **SIZES, **SPACE, hidden=()),
        "deep": lambda: TwoTower(PlainTable, **SIZES, **SPACE, hidden=(6,)),
        "sequence": lambda: SequenceEncoder(PlainTable, **SIZES, **SPACE, layers=2, heads=2, history=LENGTH),
        "ranker": lambda: Ranker(PlainTable, **SIZES, **RANKER, cross_layers=1, cross_rank=3, hidden=(8,)),
    }[kind]().double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return made.eval().requires_grad_(False)


def scores(made, gates):
    times = torch.where(HISTORY >= 0, 10**12 * torch.arange(LENGTH), 0)
    return made.score(PEOPLE, Past(items=HISTORY, times=times, gates=gates), [Group(LISTED)])[0]


@pytest.mark.parametrize("kind", ["sum", "deep", "sequence", "ranker"])
def test_gates_of_ones_are_none(kind: str) -> None:
    made = model(kind)
    ones = torch.ones(HISTORY.shape, dtype=torch.float64)
    torch.testing.assert_close(scores(made, ones), scores(made, None), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["sum", "deep", "sequence", "ranker"])
def test_every_item_of_a_history_has_a_gate_whose_gradient_is_that_of_differences(kind: str) -> None:
    made, known, step = model(kind), HISTORY >= 0, 1e-6

    def sure(gates):
        first = torch.zeros(LISTED.shape, dtype=torch.bool)
        first[:, 0] = True
        return confidence(scores(made, gates), listed=LISTED >= 0, positives=first)

    found = gate_gradients(sure, known, torch.float64)
    wanted = torch.zeros_like(found)
    for j in range(LENGTH):
        away = torch.zeros(HISTORY.shape, dtype=torch.float64)
        away[:, j] = step
        wanted[:, j] = (sure(1 + away) - sure(1 - away)) / (2 * step)
    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=0)
    assert (found[known].abs() > 1e-6).all()  # no norm undoes a gate
    assert not found[~known].any()


def test_without_an_item_a_pool_is_as_with_its_gate_shut_over_as_many() -> None:
    made, gates = model("sum"), torch.ones(HISTORY.shape, dtype=torch.float64)
    gates[2] = torch.tensor([0, 4 / 3, 4 / 3, 4 / 3])
    shut = made.vectors(PEOPLE, Past(items=HISTORY, gates=gates), LISTED[:, 0])[0]
    gone = made.vectors(PEOPLE, Past(items=HISTORY.where(HISTORY != 1, -1)), LISTED[:, 0])[0]
    torch.testing.assert_close(shut, gone)


def test_some_rows_of_a_past_keep_their_gates() -> None:
    past = Past(items=HISTORY, gates=torch.arange(12.0).view(3, 4))
    assert torch.equal(cut(past, slice(1, 3)).gates, past.gates[1:])  # pyrefly: ignore
    assert torch.equal(past.to("cpu").gates, past.gates)  # pyrefly: ignore
