"""Planted data whose vectors need eight numbers: those of a nested student say it in the first of them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recdistill.data.sequences import Sequences
from recdistill.distill.spec import AlignTermSpec, ListTermSpec
from recdistill.distill.spec_align import Distance, Linear
from recdistill.distill.spec_draws import Top, Unseen
from recdistill.distill.spec_lists import SoftmaxKL
from recdistill.fit import fit, load
from recdistill.measure import Judged, _first
from recdistill.models.spec import Fitted, MFSpec, TrainSpec
from recdistill.scoring import narrowed, vectors
from recdistill.teachers import encoder_lister
from recdistill.teaching import Teaching
from recdistill.topk import top_items
from recdistill.types import Dataset, Interactions, Labels, Vectors, quiet
from recdistill.world import World

pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:fbgemm_gpu\.")
USERS, ITEMS, TRUTH, TAKEN, DIM, NESTED = 200, 120, 8, 20, 32, (8, 16)
TRAIN = TrainSpec(epochs=8, batch=500, negatives=ITEMS, lr=0.3, patience=0, evaluate_every=8, list_users=100)


@pytest.fixture(scope="module")
def truth():
    """Return who likes what, as products of vectors, and what was taken: more of what is liked."""
    rng = np.random.default_rng(0)
    sides = (rng.standard_normal((n, TRUTH)).astype(np.float32) for n in (USERS, ITEMS))
    liked = Vectors(users=next(sides), items=next(sides))
    noise = rng.gumbel(size=(USERS, ITEMS))
    order = np.argsort(-(1.5 * liked.users @ liked.items.T + noise), axis=1)[:, :TAKEN]
    order = rng.permuted(order, axis=1)
    cuts = {"train": order[:, :16], "valid": order[:, 16:17], "test": order[:, 17:]}
    made = {}
    for name, part in cuts.items():
        indptr = np.arange(USERS + 1, dtype=np.int64) * part.shape[1]
        made[name] = Interactions(indptr=indptr, items=part.reshape(-1), times=np.arange(part.size))
    return liked, Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), **made)


@pytest.fixture(scope="module")
def teaching(truth):
    liked, dataset = truth
    said = encoder_lister(liked.users, liked.items, 20, dataset.train)(np.arange(USERS))
    lists = {"items": (said.items.astype(np.int32),), "scores": (said.scores,), "residual": (said.residual,)}
    labels = Labels(**lists, per_shard=USERS, facts={}, vectors=liked)
    lists = ListTermSpec(weight=1.0, draw=(Top(k=10), Unseen(n=20)), loss=SoftmaxKL(temperature=2.0))
    return Teaching(terms=[lists, AlignTermSpec(weight=0.1, loss=Distance(adapter=Linear()))], labels=labels)


@pytest.fixture(scope="module")
def found(truth, teaching, tmp_path_factory):
    """Return the vectors of a plain and of a nested student, and each one's directory."""
    made = {}
    for name, more in {"plain": {}, "nested": {"nested": NESTED}}.items():
        out, spec = tmp_path_factory.mktemp(name), MFSpec(dim=DIM, temperature=0.3, **more)
        fit(truth[1], spec, TRAIN, out, name=name, world=World(), log=quiet, teaching=teaching)
        model = load(spec, truth[1], out)
        made[name] = vectors(model, truth[1], Sequences.of(truth[1].train), 0), model, out
    return made


def right(truth, served):
    """Return which share of each user's best ten unseen items, by the truth, are in the ten that are served."""
    liked, dataset = truth
    best, lists = (top_items(v.users, v.items, 10, seen=dataset.train) for v in (liked, served))
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best.tolist(), lists.tolist(), strict=True)]))


def test_the_first_numbers_of_a_nested_student_are_far_better_than_those_of_a_plain_one(truth, found):
    plain, nested = (right(truth, narrowed(found[name][0], 8)) for name in ("plain", "nested"))
    whole = right(truth, found["plain"][0])
    assert nested > plain + 0.15
    assert right(truth, found["nested"][0]) > whole - 0.1


def test_a_prefix_is_measured_as_what_it_is_alone(truth, found):
    """Of the student, and where it is nested of the scratch one too, each number over the length of the prefix."""
    served, model, out = found["nested"]
    dataset, users = truth[1], np.arange(USERS)
    spec = MFSpec(dim=DIM, temperature=0.3, nested=model.nested)
    fitted, plain = (Fitted(one, SimpleNamespace(path=out)) for one in (spec, MFSpec(dim=DIM)))
    lists = _first(fitted, dataset, users, 10, 8, Sequences.of(dataset.train), dataset.train)
    cut = [side[:, :8] / np.linalg.norm(side[:, :8], axis=1, keepdims=True) for side in (served.users, served.items)]
    assert np.array_equal(lists, top_items(*cut, 10, seen=dataset.train))
    assert not np.array_equal(lists, top_items(served.users[:, :8], served.items[:, :8], 10, seen=dataset.train))
    rest = {"teacher": None, "labels": None, "index": None, "candidates": None}
    rows = [Judged(scratch=[one], student=[one], widths=NESTED, **rest).narrow().keys() for one in (fitted, plain)]
    assert [set(names) for names in rows] == [{"student", "scratch"}, {"student"}]


def test_each_loss_of_a_nested_student_is_told_once(found):
    points = {name: json.loads((out / "curve.json").read_text()) for name, (_, _, out) in found.items()}
    assert points["nested"][-1].keys() == points["plain"][-1].keys()
    assert found["nested"][0].items.shape == (ITEMS, DIM)
