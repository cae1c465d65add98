"""The teacher's items, folded to the student's width, as what serves."""

from __future__ import annotations

import json
import warnings

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.distill.spec import AlignTermSpec
from recdistill.fit import fit
from recdistill.models.spec import MFSpec, TrainSpec
from recdistill.settle import folded, settler
from recdistill.teachers import encoder_lister
from recdistill.teaching import Teaching
from recdistill.types import Dataset, Interactions, Labels, Vectors, quiet
from recdistill.world import World

USERS, ITEMS, WIDE = 60, 40, 8


def teacher(rank: int = WIDE) -> Vectors:
    rng = np.random.default_rng(0)
    users = rng.standard_normal((USERS, rank)) @ rng.standard_normal((rank, WIDE))
    return Vectors(users=users.astype(np.float32), items=rng.standard_normal((ITEMS, WIDE)).astype(np.float32))


def scores(weights, temperature: float):
    """What it ranks by, each user's less its mean."""
    found = (weights["user.weight"].double() @ weights["item.weight"].double().T / temperature).numpy()
    return found - found.mean(1, keepdims=True)


def centred(vectors: Vectors):
    found = vectors.users.astype(float) @ vectors.items.T
    return found - found.mean(1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_users_that_are_the_teachers_turned_get_its_scores(temperature: float) -> None:
    given = teacher()
    turn = np.random.default_rng(1).standard_normal((WIDE, WIDE)).astype(np.float32)
    weights = {"user.weight": torch.from_numpy(given.users @ turn), "item.weight": torch.zeros(ITEMS, WIDE)}
    found = folded(weights, given, temperature=temperature)
    np.testing.assert_allclose(scores(found, temperature), centred(given), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_what_all_users_share_is_folded_too(temperature: float) -> None:
    # The student's users say the teacher's up to what they have in common, which is most of what orders items.
    given = teacher(rank=3)
    shared = Vectors(users=given.users + np.float32(3.0), items=given.items)
    weights = {"user.weight": torch.from_numpy(given.users), "item.weight": torch.zeros(ITEMS, WIDE)}
    found = scores(folded(weights, shared, temperature=temperature), temperature)
    np.testing.assert_allclose(found, centred(shared), rtol=1e-3, atol=1e-2)
    assert (found.argmax(1) == centred(shared).argmax(1)).all()


def test_a_narrow_students_scores_are_those_of_the_nearest_users() -> None:
    given = teacher()
    users = torch.randn(USERS, 4, generator=torch.Generator().manual_seed(2))
    found = folded({"user.weight": users, "item.weight": torch.zeros(ITEMS, 4)}, given, temperature=1.0)
    projector = np.linalg.lstsq(users.numpy(), given.users, rcond=None)[0]
    expected = users.numpy() @ projector @ given.items.T
    # A shift that is all but none of it stands in a fifth dimension, of which the fewest is lost.
    with_shift = np.linalg.lstsq(np.pad(users.numpy(), ((0, 0), (0, 1)), constant_values=1.0), given.users, rcond=None)
    said = np.pad(users.numpy(), ((0, 0), (0, 1)), constant_values=1.0) @ with_shift[0] @ given.items.T
    said -= said.mean(1, keepdims=True)
    left, size, right = np.linalg.svd(said, full_matrices=False)
    np.testing.assert_allclose(scores(found, 1.0), left[:, :4] * size[:4] @ right[:4], rtol=1e-2, atol=1e-2)
    assert np.linalg.norm(scores(found, 1.0) - said) <= np.linalg.norm(expected - said)


def test_who_learns_items_settles_nothing() -> None:
    assert settler(MFSpec(dim=8, space="dot"), None) is None
    assert settler(MFSpec(dim=8, space="dot"), Teaching(terms=())) is None


def test_a_student_without_an_item_tower_ranks_as_its_teacher(tmp_path) -> None:
    rng = np.random.default_rng(3)
    given = teacher(rank=4)  # so that a student of four dimensions can say all of it
    own = np.stack([rng.permutation(ITEMS)[:3] for _ in range(USERS)])
    best = np.argsort(-given.users @ given.items.T, axis=1)
    parts = {"train": own, "valid": best[:, :4], "test": best[:, 4:5]}

    def csr(lists):
        flat = [[i for i in row if name == "train" or i not in own[u]] for u, row in enumerate(lists)]
        indptr = np.cumsum([0, *map(len, flat)]).astype(np.int64)
        items = np.array([i for row in flat for i in row], np.int64)
        return Interactions(indptr=indptr, items=items, times=np.arange(len(items)))

    made = {}
    for name, lists in parts.items():
        made[name] = csr(lists)
    data = Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), **made)
    said = encoder_lister(given.users, given.items, 10, data.train)(np.arange(USERS))
    lists = {"items": (said.items.astype(np.int32),), "scores": (said.scores,), "residual": (said.residual,)}
    labels = Labels(**lists, per_shard=USERS, facts={}, vectors=given)
    loss = {"kind": "distance", "adapter": {"kind": "linear"}}
    term = AlignTermSpec.model_validate({"kind": "align", "weight": 1.0, "sides": ["users"], "loss": loss})
    train = TrainSpec(epochs=60, batch=100, negatives=4, lr=0.3, dense_lr=0.05, list_users=USERS, evaluate_every=20)
    found = {}
    for items in ("folded", "learned"):
        out = tmp_path / items
        out.mkdir()
        teaching = Teaching(terms=[term], labels=labels, items=items, task=0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
            spec = MFSpec(dim=4, space="dot", temperature=1.0)
            fit(data, spec, train, out, name="m", world=World(), log=quiet, teaching=teaching)
        found[items] = max(point["valid"] for point in json.loads((out / "curve.json").read_text()))
    assert found["folded"] > 0.8
    assert found["learned"] < 0.4
