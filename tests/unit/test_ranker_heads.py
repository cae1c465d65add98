"""The ranker's time and its further heads: what a score reads of them, and that training reaches each head alone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.distill.objective import Objective
from recdistill.fit import fit, load
from recdistill.models.clock import Clock
from recdistill.models.encoders import Group
from recdistill.models.ranker import Ranker
from recdistill.models.spec import RankerSpec, TaskSpec, TrainSpec
from recdistill.models.tables import PlainTable
from recdistill.types import Batch, Dataset, Features, Interactions, Past, quiet
from recdistill.world import World

pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:fbgemm_gpu\.")
USERS, ITEMS, LENGTH = 6, 12, 4
PEOPLE = torch.tensor([3, 0, 5])
ITEMS_BEFORE = torch.tensor([[-1, -1, 2, 5], [-1, -1, -1, -1], [1, 2, 3, 4]])
HOUR = 3_600_000_000
TIMES = torch.tensor([[0, 0, 50, 51], [0] * 4, [10, 20, 21, 22]]) * HOUR
CLOCK = Clock(0.0, 1e6)
EVERY = [Group(torch.arange(ITEMS))]


def ranker(clock=CLOCK, tasks=()):
    sizes = {"num_users": USERS, "num_items": ITEMS, "dim": 8, "heads": 2, "history": LENGTH}
    shape = {"cross_layers": 1, "cross_rank": 4, "hidden": (8,), "user_features": Features()}
    model = Ranker(PlainTable, **sizes, **shape, item_features=Features(), clock=clock, tasks=tasks)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def scores(model, times=TIMES, groups=EVERY):
    with torch.no_grad():
        return model.score(PEOPLE, Past(items=ITEMS_BEFORE, times=times), groups)[0]


def test_groups_of_some_rows_are_those_rows_of_the_whole():
    model, past = ranker(), Past(items=ITEMS_BEFORE, times=TIMES)
    each = torch.tensor([[0, 3], [11, 7]])
    asked = [Group(torch.arange(ITEMS), slice(1)), Group(each, slice(1, None)), Group(torch.tensor([4]), slice(1))]
    with torch.no_grad():
        first, second, third = model.score(PEOPLE, past, asked)
    whole = scores(model)
    torch.testing.assert_close(first, whole[:1])
    torch.testing.assert_close(second, whole[1:].gather(1, each))
    torch.testing.assert_close(third, whole[:1, 4:5])


def test_when_an_item_was_taken_changes_the_scores_of_who_took_it():
    later = TIMES.clone()
    later[2, :3] -= 9 * HOUR  # the age of all but the latest
    gap = (scores(ranker(), later) - scores(ranker())).abs()
    assert gap[2].min() > 1e-5
    assert not gap[:2].any()
    shifted = TIMES + HOUR * (TIMES > 0)  # another hour of the day, the same ages
    assert (scores(ranker(), shifted) - scores(ranker())).abs()[[0, 2]].min() > 1e-6
    blind = ranker(clock=None)
    assert torch.equal(scores(blind, later), scores(blind))


def test_a_score_is_the_first_head_and_the_chances_of_the_others():
    logits = torch.tensor([[[1.5, 0.0, -2.0]]], dtype=torch.float64)
    assert ranker(tasks=(0.0, 0.5)).blend(logits).item() == pytest.approx(1.5 + 0.5 * np.log(1 / (1 + np.exp(2))))
    assert ranker(tasks=(0.0, 0.0)).blend(logits).item() == 1.5


def batch(**tasks):
    nobody = Past(items=torch.zeros(0, LENGTH, dtype=torch.int64))
    return Batch(
        users=PEOPLE,
        positives=torch.tensor([1, 4, 6]),
        negatives=torch.tensor([[0, 2], [3, 5], [9, 11]]),
        past=Past(items=ITEMS_BEFORE, times=TIMES),
        count=3.0,
        tasks={name: torch.tensor(told) for name, told in tasks.items()},
        list_users=PEOPLE[:0],
        list_past=nobody,
    )


def test_each_head_learns_from_the_positive_and_from_its_own_targets():
    model = ranker(tasks=(0.0, 0.0))
    objective = Objective(model, loss="softmax", num_items=ITEMS, heads={"liked": 0.5, "bought": 2.0})
    nan = float("nan")
    found = objective(batch(liked=[1.0, 0.0, nan], bought=[nan, nan, 1.0]))
    with torch.no_grad():
        logits = model.judge(PEOPLE, Past(items=ITEMS_BEFORE, times=TIMES), [Group(torch.tensor([[1], [4], [6]]))])[0]
    p = torch.sigmoid(logits[:, 0].double()).numpy()
    assert found["task.liked"].item() == pytest.approx(-0.5 * (np.log(p[0, 1]) + np.log(1 - p[1, 1])) / 3, rel=1e-5)
    assert found["task.bought"].item() == pytest.approx(-2.0 * np.log(p[2, 2]) / 3, rel=1e-5)
    alone = Objective(ranker(), loss="softmax", num_items=ITEMS)(batch())
    assert set(alone) == {"task"}
    found["task.liked"].backward()
    assert model.head.weight.grad[[0, 2]].abs().sum() == 0
    assert model.head.weight.grad[1].abs().sum() > 0


def test_a_trained_head_tells_what_was_planted(tmp_path):
    """Items of odd rows are bought, the others viewed, whoever takes them."""
    rng = np.random.default_rng(0)
    people, things, each = 120, 30, 8
    items = np.stack([rng.choice(things, each, replace=False) for _ in range(people)])
    indptr, times = np.arange(people + 1) * each, np.tile(np.arange(each), people) * HOUR
    train = Interactions(indptr=indptr, items=items.ravel(), times=times, events=(items.ravel() % 2).astype(np.int16))
    nothing = Interactions(indptr=np.zeros(people + 1, np.int64), items=np.zeros(0, np.int64))
    ids = {"user_ids": pl.Series(range(people)), "item_ids": pl.Series(range(things))}
    dataset = Dataset(**ids, train=train, valid=nothing, test=nothing, events=("view", "buy"))
    tasks = {"bought": TaskSpec(event="buy", loss=1.0, score=1.0)}
    spec = RankerSpec(dim=8, heads=2, cross_layers=1, hidden=(8,), history=4, tasks=tasks)
    settings = TrainSpec(epochs=10, batch=120, negatives=4, lr=0.1, dense_lr=0.01, evaluate_every=10)
    fit(dataset, spec, settings, tmp_path, name="heads", world=World(), log=quiet)
    model = load(spec, dataset, tmp_path)
    past = Past(items=torch.from_numpy(items[:, -4:]), times=torch.from_numpy(times.reshape(people, each)[:, -4:]))
    with torch.no_grad():
        chance = torch.sigmoid(model.judge(torch.arange(people), past, [Group(torch.arange(things))])[0][..., 1])
    assert chance[:, 1::2].min() > 0.5 > chance[:, ::2].max()


def test_bfloat16_products_leave_losses_and_gradients_as_they_are_within_its_rounding():
    found = {}
    for bf16 in (False, True):
        model = ranker(tasks=(0.0,))
        losses = Objective(model, loss="softmax", num_items=ITEMS, heads={"liked": 1.0}, bf16=bf16)(
            batch(liked=[1.0, 0.0, 1.0])
        )
        assert all(value.dtype == torch.float32 for value in losses.values())
        sum(losses.values()).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found[bf16] = torch.stack(list(losses.values())).detach(), gradient
    torch.testing.assert_close(found[True][0], found[False][0], rtol=0.02, atol=0.02)
    assert torch.nn.functional.cosine_similarity(found[True][1], found[False][1], dim=0) > 0.999
    assert not torch.equal(found[True][1], found[False][1])
