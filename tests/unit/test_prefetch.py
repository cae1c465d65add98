"""Batches drawn ahead are the batches that are drawn in place, in every order of asking, and no others are drawn."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.batches import Sampler, make_batches
from recdistill.data.prefetch import ahead, batches_ahead, mapped
from recdistill.data.sequences import Sequences
from recdistill.fit import fit
from recdistill.lessons import make_lessons
from recdistill.models.spec import TrainSpec, TwoTowerSpec
from recdistill.types import Dataset, Interactions, Past, quiet
from recdistill.world import World

USERS, ITEMS, EACH = 30, 40, 9
ROWS = np.stack([np.random.default_rng(user).permutation(ITEMS)[:EACH] for user in range(USERS)])


def csr(rows):
    indptr = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    return Interactions(indptr=indptr, items=rows.reshape(-1), times=np.arange(rows.size, dtype=np.int64))


DATASET = Dataset(
    user_ids=pl.Series(range(USERS)),
    item_ids=pl.Series(range(ITEMS)),
    train=csr(ROWS[:, :-2]),
    valid=csr(ROWS[:, -2:-1]),
    test=csr(ROWS[:, -1:]),
)
SAMPLER = Sampler(
    train=DATASET.train,
    num_items=ITEMS,
    sequences=Sequences.of(DATASET.train),
    batch=16,
    negatives=5,
    own_negatives=True,
    history=4,
    seed=3,
)


def numbers(batch):
    found = []
    mapped(batch, lambda tensor: found.append(tensor.tolist()))
    return found


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("steps", [[0, 1, 2, 3, 4, 5], [7, 8, 9], [0, 1, 5, 6, 2, 3], [2, 2, 9]])
def test_every_step_gets_its_own_batch(depth, steps) -> None:
    take, plain = batches_ahead(SAMPLER, World(rank=1, size=2), 10, depth), make_batches(SAMPLER, World(rank=1, size=2))
    for step in steps:
        assert take(step).step == step
        assert numbers(take(step)) == numbers(plain(step))


def test_as_many_are_drawn_ahead_as_is_said_and_none_after_the_last() -> None:
    drawn, reached = [], threading.Event()

    def batch(step):
        drawn.append(step)
        if step in (3, 5):
            reached.set()
        return step

    take = ahead(batch, 6, 3)
    assert take(0) == 0
    assert reached.wait(20)
    assert drawn == [0, 1, 2, 3]
    reached.clear()
    assert [take(step) for step in range(1, 6)] == [1, 2, 3, 4, 5]
    assert drawn == [0, 1, 2, 3, 4, 5]


def test_they_are_drawn_while_a_step_computes() -> None:
    """The second batch is drawn to its end before anybody asks for it."""
    done = threading.Event()
    take = ahead(lambda step: done.set() if step == 1 else step, 2, 1)
    take(0)
    assert done.wait(20)


def test_an_error_comes_at_the_step_whose_batch_it_hit() -> None:
    def batch(step):
        if step == 2:
            raise ValueError("the third")
        return step

    take = ahead(batch, 5, 2)
    assert [take(0), take(1)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        take(2)


def test_what_follows_the_student_is_not_drawn_ahead() -> None:
    asked = []
    lessons = make_lessons(DATASET, None, (), None, SAMPLER.sequences, 4, 10)
    assert not lessons.follows
    guide = SimpleNamespace(prepare=asked.append, kept=lambda: None)
    take = batches_ahead(replace(SAMPLER, lessons=replace(lessons, guide=guide)), World(), 10, 3)
    take(0)
    take(1)
    assert asked == [0, 1]


def test_every_tensor_of_a_value_is_changed() -> None:
    value = {"a": (torch.ones(2), Past(items=torch.ones(1, 1), times=None)), "b": 3}
    found = mapped(value, lambda tensor: tensor + 1)
    assert found["a"][0].tolist() == [2.0, 2.0]
    assert found["a"][1].items.tolist() == [[2.0]]
    assert found["b"] == 3


def test_a_training_that_draws_ahead_ends_in_the_same_bytes(tmp_path) -> None:
    settings = TrainSpec(epochs=3, batch=64, negatives=8)
    files = []
    for depth in (0, 2):
        out = tmp_path / str(depth)
        out.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
            spec = TwoTowerSpec(dim=4, history=4)
            fit(DATASET, spec, settings, out, name="m", world=World(), log=quiet, prefetch=depth)
        files.append({f.name: f.read_bytes() for f in out.iterdir()})
    assert files[0] == files[1]
    assert "weights.safetensors" in files[0]
