"""The dimensions a student begins with: the best approximation of the teacher's scores that its width allows."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill import start
from recdistill.distill.losses import softmax_kl
from recdistill.distill.spec import ListTermSpec
from recdistill.fit import fit
from recdistill.models.spec import MFSpec, TrainSpec
from recdistill.start import principal
from recdistill.teachers import encoder_lister
from recdistill.teaching import Teaching
from recdistill.types import Candidates, Dataset, Interactions, Labels, Vectors, quiet
from recdistill.world import World

USERS, ITEMS, DIM = 50, 35, 9


def teacher(seed: int = 0) -> Vectors:
    rng = np.random.default_rng(seed)
    decay = 1.5 ** -np.arange(DIM)
    users = 1 + rng.standard_normal((USERS, DIM)) * decay
    items = rng.standard_normal((ITEMS, DIM)) * 2 + 3
    return Vectors(users=users.astype(np.float32), items=items.astype(np.float32))


def centred(vectors: Vectors) -> np.ndarray:
    scores = vectors.users.astype(np.float64) @ vectors.items.astype(np.float64).T
    return scores - scores.mean(1, keepdims=True)


def products(vectors: Vectors, dim: int, **more: float) -> np.ndarray:
    users, items = principal(vectors, dim, **more)
    left, right = users(0, len(vectors.users)), items(0, len(vectors.items))
    return (left.double() @ right.double().T).numpy()


@pytest.mark.parametrize("dim", [1, 4, 8])
def test_products_are_the_best_approximation_of_that_rank(dim: int) -> None:
    u, s, v = np.linalg.svd(centred(teacher()), full_matrices=False)
    np.testing.assert_allclose(products(teacher(), dim), u[:, :dim] * s[:dim] @ v[:dim], atol=1e-4)


@pytest.mark.parametrize("dim", [DIM, DIM + 5])
def test_at_the_teachers_width_nothing_is_lost_but_what_all_items_share(dim: int) -> None:
    assert principal(teacher(), dim)[0](0, USERS).shape[1] == DIM
    np.testing.assert_allclose(products(teacher(), dim), centred(teacher()), atol=1e-4)


def test_a_student_that_begins_at_its_teachers_width_has_nothing_to_learn_of_its_lists() -> None:
    """KL and gradient are those of rounding (Stanton et al., NeurIPS 2021); with fewer dimensions they are not."""
    given = teacher()
    scores = torch.from_numpy(given.users.astype(np.float64) @ given.items.astype(np.float64).T)
    lists = Candidates(items=torch.arange(ITEMS).expand(USERS, ITEMS), teacher=scores, ranked=ITEMS)
    for dim, least, most in ((DIM, -1e-9, 1e-4), (DIM - 5, 1e-1, np.inf)):
        sides = principal(given, dim)
        left, right = (side(0, n).double().requires_grad_() for side, n in zip(sides, (USERS, ITEMS), strict=True))
        loss = softmax_kl(left @ right.T, lists, temperature=1.0).sum()
        slopes = torch.autograd.grad(loss, (left, right))
        assert least < loss.item() < most
        assert all(least < slope.abs().max().item() < most for slope in slopes)


def test_a_scale_scales_the_products() -> None:
    np.testing.assert_allclose(products(teacher(), 3, scale=0.25), products(teacher(), 3) / 4, atol=1e-5)


def test_a_rotation_of_the_teacher_changes_no_product() -> None:
    given = teacher()
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((DIM, DIM)))[0].astype(np.float32)
    turned = Vectors(users=given.users @ turn, items=given.items @ turn)
    np.testing.assert_allclose(products(turned, 4), products(given, 4), atol=1e-3)


def test_rows_of_both_sides_have_one_mean_square() -> None:
    users, items = principal(teacher(), 4)
    assert users(0, USERS).square().mean().item() == pytest.approx(items(0, ITEMS).square().mean().item(), rel=1e-4)


def test_any_rows_can_be_taken_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = principal(teacher(), 4)
    monkeypatch.setattr(start, "BLOCK", 7)
    for one, other, n in zip(whole, principal(teacher(), 4), (USERS, ITEMS), strict=True):
        torch.testing.assert_close(one(3, n - 2), one(0, n)[3 : n - 2])
        torch.testing.assert_close(other(0, n), one(0, n), rtol=1e-4, atol=1e-5)


def test_who_has_no_vector_begins_at_zero_and_moves_nobody_else() -> None:
    given = teacher()
    more = Vectors(
        users=np.concatenate([np.zeros((3, DIM), np.float32), given.users]),
        items=np.concatenate([given.items, np.zeros((4, DIM), np.float32)]),
    )
    users, items = principal(more, 4)
    assert not users(0, 3).any()
    assert not items(ITEMS, ITEMS + 4).any()
    np.testing.assert_allclose(products(more, 4)[3:, :ITEMS], products(given, 4), atol=1e-4)


def test_a_teacher_that_says_nothing_is_no_start() -> None:
    nothing = Vectors(users=np.zeros((USERS, DIM), np.float32), items=teacher().items)
    assert principal(nothing, 4)[0](0, USERS).shape == (USERS, 0)


@pytest.mark.parametrize("dim", [4, DIM + 3])
@pytest.mark.parametrize("layout", ["table_wise", "row_wise", "column_wise"])
def test_a_fit_begins_there(tmp_path, layout: str, dim: int) -> None:
    rng = np.random.default_rng(3)
    own = np.stack([rng.permutation(ITEMS)[:6] for _ in range(USERS)])
    parts = {name: own[:, cut] for name, cut in (("train", slice(4)), ("valid", slice(4, 5)), ("test", slice(5, 6)))}
    made = {
        name: Interactions(indptr=np.arange(USERS + 1, dtype=np.int64) * part.shape[1], items=part.reshape(-1))
        for name, part in parts.items()
    }
    data = Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), **made)
    given = teacher()
    said = encoder_lister(given.users, given.items, 10, data.train)(np.arange(USERS))
    lists = {"items": (said.items.astype(np.int32),), "scores": (said.scores,), "residual": (said.residual,)}
    labels = Labels(**lists, per_shard=USERS, facts={}, vectors=given)
    term = {"kind": "list", "weight": 1.0, "draw": [{"kind": "top", "k": 5}], "loss": {"kind": "plackett_luce"}}
    teaching = Teaching(terms=[ListTermSpec.model_validate(term)], labels=labels, start="teacher")
    settings = TrainSpec(epochs=1, batch=200, negatives=4, lr=1e-9, list_users=10, optimizer="adagrad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        more = {"name": "m", "world": World(), "log": quiet, "layout": layout}
        model = MFSpec(dim=dim, space="dot", temperature=0.5)
        fit(data, model, settings, tmp_path, teaching=teaching, **more)
        (tmp_path / "random").mkdir()
        fit(data, model, settings, tmp_path / "random", teaching=replace(teaching, start="random"), **more)
    users, items = (np.load(tmp_path / f"{side}.npy") for side in ("users", "items"))
    known = np.isin(np.arange(ITEMS), data.train.items)
    # A column more than the teacher has is random, and small: it is what the student can add.
    width = min(dim, DIM)
    scores = users[:, :width].astype(np.float64) @ items[:, :width].T
    np.testing.assert_allclose(scores[:, known], products(given, dim)[:, known], atol=1e-3)
    plain = [np.load(tmp_path / "random" / f"{side}.npy") for side in ("users", "items")]
    assert users[:, width:] == pytest.approx(plain[0][:, width:], abs=1e-6)
    assert not np.allclose(plain[0] @ plain[1].T, users @ items.T, atol=0.1)
