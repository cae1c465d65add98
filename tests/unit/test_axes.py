"""A student in yesterday's axes: the same scores, and vectors that are nearer to those of yesterday."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.axes import nearest, served, toward, turned_weights
from recdistill.data.sequences import Sequences
from recdistill.errors import DataError
from recdistill.models.build import build
from recdistill.models.spec import MFSpec, TwoTowerSpec
from recdistill.models.tables import PlainTable
from recdistill.settle import settler
from recdistill.teaching import Teaching
from recdistill.types import Dataset, Interactions, Vectors

USERS, ITEMS, DIM = 30, 20, 4
SPECS = [
    MFSpec(dim=DIM, space="dot", temperature=0.5),
    MFSpec(dim=DIM, space="cosine"),
    TwoTowerSpec(dim=DIM, history=3, space="dot"),
    TwoTowerSpec(dim=DIM, history=3, hidden=(8,)),
    TwoTowerSpec(dim=DIM, history=3, hidden=(8, 6)),
]


def data() -> Dataset:
    rng = np.random.default_rng(0)
    items = np.concatenate([np.sort(rng.permutation(ITEMS - 2)[:3]) for _ in range(USERS)])
    log = Interactions(indptr=np.arange(USERS + 1) * 3, items=items, times=np.arange(3 * USERS))
    return Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=log, valid=log, test=log)


DATA = data()


def student(spec):
    """Return random weights of a model, and how its vectors are seen."""
    generator = torch.Generator().manual_seed(5)
    weights = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in build(spec, DATA, PlainTable, seed=1).state_dict().items()
    }
    return weights, partial(served, spec=spec, dataset=DATA, sequences=Sequences.of(DATA.train))


def rotated(seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((DIM, DIM)))[0]


def left(vectors: Vectors, **more):
    known = {"users": np.arange(USERS) % 5 > 0, "items": np.arange(ITEMS) < ITEMS - 2}
    rows = {side: np.where(there, np.arange(len(there)), -1) for side, there in known.items()}
    both = tuple(np.flatnonzero(rows[side] >= 0) for side in ("users", "items"))
    return SimpleNamespace(student=vectors, both=both, **rows, **more)


def cosine(now: Vectors, then: Vectors) -> float:
    a, b = (np.concatenate([v.users, v.items[: ITEMS - 2]]).astype(float) for v in (now, then))
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_turn_moves_vectors_and_no_score(spec) -> None:
    weights, look = student(spec)
    turn = rotated(2)
    now, moved = look(weights), look(turned_weights(weights, turn))
    np.testing.assert_allclose(moved.users, now.users @ turn, atol=1e-5)
    np.testing.assert_allclose(moved.items, now.items @ turn, atol=1e-5)
    np.testing.assert_allclose(moved.users @ moved.items.T, now.users @ now.items.T, atol=1e-5)
    assert np.abs(moved.users - now.users).max() > 0.1


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_student_that_only_turned_over_night_is_turned_back(spec) -> None:
    weights, look = student(spec)
    now, turn = look(weights), rotated(3)
    yesterday = left(Vectors(users=now.users @ turn, items=now.items @ turn, space=now.space))
    found = look(toward(weights, yesterday, look))
    np.testing.assert_allclose(found.users, yesterday.student.users, atol=1e-4)
    np.testing.assert_allclose(found.items, yesterday.student.items, atol=1e-4)


def test_a_student_of_another_day_comes_nearer_and_says_the_same() -> None:
    spec = SPECS[1]
    weights, look = student(spec)
    now, turn = look(weights), rotated(4)
    noise = np.random.default_rng(5)
    sides = {s: getattr(now, s) @ turn + 0.2 * noise.standard_normal(getattr(now, s).shape) for s in ("users", "items")}
    yesterday = left(Vectors(**sides))
    settle = settler(spec, Teaching(terms=(), axes="yesterday", yesterday=yesterday), look)
    found = look(settle(weights))
    np.testing.assert_allclose(found.users @ found.items.T, now.users @ now.items.T, atol=1e-6)
    assert cosine(found, yesterday.student) > 0.8 > cosine(now, yesterday.student) + 0.3


def test_only_who_was_there_on_both_days_says_where_to_turn() -> None:
    weights, look = student(SPECS[0])
    now, turn = look(weights), rotated(6)
    then = Vectors(users=now.users @ turn, items=now.items @ turn)
    yesterday = left(then)
    then.users[yesterday.users < 0] = 100.0
    then.items[yesterday.items < 0] = -100.0
    np.testing.assert_allclose(nearest(now, yesterday), turn, atol=1e-5)


def test_too_few_of_both_days_are_refused() -> None:
    weights, look = student(SPECS[0])
    yesterday = left(look(weights))
    yesterday.both = np.array([1]), np.array([0, 1])
    with pytest.raises(DataError, match="as many"):
        toward(weights, yesterday, look)
