"""A student is taught what its teacher says of histories that nobody had, and answers them as the teacher does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recdistill.data.sequences import Sequences
from recdistill.distill.spec import LabelsSpec, ListTermSpec
from recdistill.distill.spec_draws import Top
from recdistill.distill.spec_lists import SoftmaxKL
from recdistill.distill.spec_transfer import Dropout
from recdistill.fit import fit, load
from recdistill.labelling import label_data
from recdistill.labels import open_labels
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted, TrainSpec, TwoTowerSpec
from recdistill.scoring import scaled, vectors
from recdistill.shards import Share
from recdistill.teaching import Teaching
from recdistill.topk import exact_topk
from recdistill.transfer.histories import dropout
from recdistill.transfer.teach import history_vectors
from recdistill.types import Dataset, Interactions, quiet
from recdistill.world import World

# The kernels behind the tables warn, when they are first imported, of optimizers that this build of theirs lacks.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:fbgemm_gpu\.")
GROUPS, USERS, ITEMS, TAKEN, LENGTH, K = 6, 300, 60, 12, 12, 10
TEACHER = TwoTowerSpec(dim=16, history=LENGTH, id_dropout=0.3)
STUDENT = TwoTowerSpec(dim=8, history=LENGTH, id_dropout=0.5)  # so that no id is nothing new to it
TERM = ListTermSpec(weight=5.0, draw=(Top(k=20),), loss=SoftmaxKL())


def rows(parts):
    indptr = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return Interactions(indptr=indptr, items=np.concatenate(parts).astype(np.int64))


def planted():
    """Return users of two tastes each: most of what they take is of one, and a part of the other."""
    rng = np.random.default_rng(0)
    taken = []
    for user in range(USERS):
        chance = np.full(ITEMS, 0.05)
        chance[np.arange(ITEMS) % GROUPS == user % GROUPS] = 1.0
        chance[np.arange(ITEMS) % GROUPS == (user // GROUPS) % GROUPS] = 0.6
        taken.append(rng.choice(ITEMS, TAKEN, replace=False, p=chance / chance.sum()))
    ids = {"user_ids": pl.Series(range(USERS)), "item_ids": pl.Series(range(ITEMS))}
    nothing = rows([np.zeros(0)] * USERS)
    return Dataset(**ids, train=rows(taken), valid=nothing, test=nothing)


def train(out, spec, epochs, teaching=None):
    out.mkdir()
    settings = TrainSpec(epochs=epochs, batch=300, negatives=60, list_users=100, patience=0, dense_lr=0.01)
    fit(planted(), spec, settings, out, name=out.name, world=World(), log=quiet, teaching=teaching)
    return out


def agreement(data, teacher, student, synthetic):
    """Return the share of their best ten items that teacher and student have in common, on each history."""
    lists = []
    for spec, path in ((TEACHER, teacher), (STUDENT, student)):
        model = load(spec, data, path)
        items = scaled(vectors(model, data, Sequences.of(data.train), LENGTH), model.temperature)[1]
        lists.append(exact_topk(history_vectors(model, synthetic, LENGTH), items, K, seen=synthetic.interactions).items)
    return float((lists[0].unsqueeze(2) == lists[1].unsqueeze(1)).any(2).double().mean())


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Return the data, the teacher, and two students: of plain labels, and of those of histories with dropout too."""
    home, data = tmp_path_factory.mktemp("taught"), planted()
    teacher = train(home / "teacher", TEACHER, 15)
    fitted = Fitted(TEACHER, SimpleNamespace(path=teacher))  # pyrefly: ignore
    found = {}
    for name, transfer in (("plain", None), ("dropout", Dropout(rate=0.7, copies=2))):
        out = home / f"labels-{name}"
        out.mkdir()
        spec = LabelsSpec(depth=20, transfer=transfer)
        how = {"share": Share(), "whole": True}
        label_data(data, Teacher(models=(fitted,)), fitted, spec, out, {"step": "s", "teacher": "t"}, quiet, **how)
        teaching = Teaching(terms=[TERM], labels=open_labels(out))
        found[name] = train(home / name, STUDENT, 10, teaching)
    return data, teacher, found


def test_a_student_answers_short_histories_more_like_its_teacher_when_it_is_taught_some(taught):
    data, teacher, students = taught
    short = dropout(data.train, 0.7, 2, np.random.default_rng(99))  # other draws than those that were taught
    found = {name: agreement(data, teacher, student, short) for name, student in students.items()}
    assert found["dropout"] > found["plain"] + 0.03  # 0.85 and 0.80
