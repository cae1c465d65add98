"""Further heads: what the log declares of an interaction, what is refused, and that a head learns it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from recdistill.data.tasks import targets
from recdistill.distill.task_losses import told
from recdistill.errors import DataError
from recdistill.models.spec import TaskSpec
from recdistill.types import Dataset, Interactions

EMPTY = Interactions(indptr=np.zeros(3, np.int64), items=np.zeros(0, np.int64))


def dataset(*, weights=None, events=None):
    train = Interactions(
        indptr=np.array([0, 2, 5]),
        items=np.array([0, 1, 0, 2, 1]),
        weights=None if weights is None else np.array(weights, np.float32),
        events=None if events is None else np.array(events, np.int16),
    )
    ids = {"user_ids": pl.Series(["a", "b"]), "item_ids": pl.Series([7, 8, 9])}
    return Dataset(**ids, train=train, valid=EMPTY, test=EMPTY, events=("buy", "view"))


def test_targets_are_what_the_log_says_of_each_row():
    tasks = {"liked": TaskSpec(min_weight=4.0), "bought": TaskSpec(event="buy")}
    found = targets(dataset(weights=[5, 3.9, 4, np.nan, 1], events=[0, 1, -1, 1, 0]), tasks)
    assert found["liked"][[0, 1, 2, 4]].tolist() == [1, 0, 1, 0]
    assert found["bought"][[0, 1, 3, 4]].tolist() == [1, 0, 0, 1]
    assert torch.isnan(torch.stack([found["liked"][3], found["bought"][2]])).all()


@pytest.mark.parametrize(
    ("data", "task", "says"),
    [
        ({}, TaskSpec(min_weight=4.0), "no weights"),
        ({}, TaskSpec(event="buy"), "no event 'buy'"),
        ({"events": [0, 1, 0, 1, 0]}, TaskSpec(event="rent"), "buy, view"),
        ({"events": [1] * 5}, TaskSpec(event="view"), "the same of every"),
        ({"weights": [np.nan] * 5}, TaskSpec(min_weight=1.0), "the same of every"),
    ],
)
def test_a_task_that_cannot_be_learned_is_refused(data, task, says):
    with pytest.raises(DataError, match=says) as caught:
        targets(dataset(**data), {"head": task})
    assert "teacher.model.tasks.head" in str(caught.value)


@pytest.mark.parametrize("both", [{}, {"event": "buy", "min_weight": 1.0}])
def test_a_task_is_one_thing(both):
    with pytest.raises(ValidationError, match="either event or min_weight"):
        TaskSpec(**both)


def test_the_loss_is_cross_entropy_where_something_is_known():
    logits = torch.tensor([2.0, -1.0, 3.0], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1.0, 0.0, float("nan")], dtype=torch.float64)
    found = told(logits, target)
    p = 1 / (1 + np.exp(-np.array([2.0, -1.0])))
    assert found.tolist() == pytest.approx([-np.log(p[0]), -np.log(1 - p[1]), 0.0])
    found.sum().backward()
    assert logits.grad.tolist() == pytest.approx([p[0] - 1, p[1], 0.0])
