"""The teacher of a refresh as a recipe: on a quiet day it is the student of yesterday, whose gradient is 0."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.delta import write_delta
from recdistill.distill.losses import softmax_kl
from recdistill.types import Candidates, Dataset, Interactions, Vectors
from recdistill.yesterday import Yesterday

USERS, ITEMS, DS, DT = 20, 15, 4, 6
RNG = np.random.default_rng(0)
TAKEN = [np.sort(RNG.permutation(ITEMS)[:4]) for _ in range(USERS)]
TRAIN = Interactions(indptr=np.arange(USERS + 1) * 3, items=np.concatenate([row[:3] for row in TAKEN]))
VALID = Interactions(indptr=np.arange(USERS + 1), items=np.array([row[3] for row in TAKEN]))
DATA = Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=TRAIN, valid=VALID, test=VALID)
OLD = {"users": np.where(np.arange(USERS) < 17, np.arange(USERS), -1), "items": np.arange(ITEMS)}


def drawn(seed: int, dim: int) -> Vectors:
    rng = np.random.default_rng(seed)
    return Vectors(users=single(rng.standard_normal((USERS, dim))), items=single(rng.standard_normal((ITEMS, dim))))


def single(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def day(student: Vectors, teacher: Vectors, temperature: float = 1.0) -> Yesterday:
    known = (OLD["users"] >= 0)[:, None]
    gone = [Vectors(users=np.where(known, v.users, 0), items=v.items, space=v.space) for v in (student, teacher)]
    return Yesterday(**OLD, student=gone[0], temperature=temperature, scratch=gone[0], teacher=gone[1])


def made(tmp_path, teacher: Vectors, yesterday: Yesterday, alpha: float = 1.0, calibration: str = "none") -> np.ndarray:
    how = {"alpha": alpha, "calibration": calibration}
    facts = write_delta(DATA, (teacher.users, teacher.items), yesterday, tmp_path, **how)
    assert facts["kind"] == "delta"
    users, items = (np.load(tmp_path / f"{side}.npy").astype(float) for side in ("users", "items"))
    return users @ items.T


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_on_a_quiet_day_it_says_what_the_deployed_student_said(tmp_path, alpha: float) -> None:
    student, teacher = drawn(1, DS), drawn(2, DT)
    found = made(tmp_path, teacher, day(student, teacher), alpha)
    old = OLD["users"] >= 0
    np.testing.assert_allclose(found[old], student.users[old].astype(float) @ student.items.T, atol=1e-5)
    np.testing.assert_allclose(found[~old], teacher.users[~old].astype(float) @ teacher.items.T, atol=1e-5)


def test_cosines_of_the_student_count_with_their_temperature(tmp_path) -> None:
    student, teacher = drawn(1, DS), drawn(2, DT)
    cosine = Vectors(users=unit(student.users), items=unit(student.items), space="cosine")
    found = made(tmp_path, teacher, day(cosine, teacher, temperature=0.2))
    np.testing.assert_allclose(found[:17], (cosine.users @ cosine.items.T)[:17] / 0.2, atol=1e-4)


@pytest.mark.parametrize("moved", [False, True])
def test_a_warm_student_has_no_gradient_on_a_quiet_day_and_one_on_any_other(tmp_path, moved: bool) -> None:
    student, before = drawn(1, DS), drawn(2, DT)
    scores = made(tmp_path, drawn(3, DT) if moved else before, day(student, before))
    users, items = (
        torch.tensor(side, dtype=torch.float64, requires_grad=True) for side in (student.users, student.items)
    )
    lists = torch.from_numpy(np.argsort(-scores[:17], axis=1)[:, :10].copy())
    taught = torch.from_numpy(scores[:17]).gather(1, lists)
    said = torch.einsum("ud,ukd->uk", users[:17], items[lists])
    loss = softmax_kl(said, Candidates(items=lists, teacher=taught, ranked=10), temperature=1.0)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss.sum(), [users, items])])
    assert (gradient.abs().max() > 0.01) == moved
    assert moved or gradient.abs().max() < 1e-5


def test_scores_that_moved_can_be_calibrated(tmp_path) -> None:
    student, teacher = drawn(1, DS), drawn(2, DT)
    found = made(tmp_path, teacher, day(student, teacher), calibration="temperature")
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert (recipe["kind"], recipe["space"], recipe["alpha"]) == ("delta", "logit", 1.0)
    assert recipe["scale"] == pytest.approx(recipe["calibration"]["scale"])
    assert recipe["scale"] != 1
    held = [(u, int(VALID.items[u])) for u in range(USERS)]

    def loss(scale: float) -> float:
        total = 0.0
        for u, i in held:
            free = [j for j in range(ITEMS) if j not in TAKEN[u][:3]]
            total += np.log(np.exp(scale * found[u, free]).sum()) - scale * found[u, i]
        return total / USERS

    assert recipe["calibration"]["before"]["nll"] == pytest.approx(loss(1.0), abs=1e-4)
    assert recipe["calibration"]["after"]["nll"] == pytest.approx(loss(recipe["scale"]), abs=1e-4)
