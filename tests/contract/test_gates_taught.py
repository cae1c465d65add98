"""A student that is taught where its teacher looks does look there, more than one that is taught lists alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recdistill.data.sequences import Sequences
from recdistill.diagnose.inherit import attribution_iou
from recdistill.distill.spec import GatesTermSpec, LabelsSpec, ListTermSpec
from recdistill.distill.spec_draws import Top
from recdistill.distill.spec_lists import SoftmaxKL
from recdistill.fit import fit, load
from recdistill.gated import gates
from recdistill.labelling import label_data
from recdistill.labels import open_labels
from recdistill.models.gates import gate_distance
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted, TrainSpec, TwoTowerSpec
from recdistill.shards import Share
from recdistill.teaching import Teaching
from recdistill.types import Dataset, Interactions, quiet
from recdistill.world import World

# The kernels behind the tables warn, when they are first imported, of optimizers that this build of theirs lacks.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:fbgemm_gpu\.")
GROUPS, USERS, ITEMS, TAKEN, LENGTH, DEPTH, K = 6, 150, 60, 15, 15, 20, 5
TEACHER = TwoTowerSpec(dim=16, history=LENGTH)
STUDENT = TwoTowerSpec(dim=8, history=LENGTH)
LISTS = ListTermSpec(weight=1.0, draw=(Top(k=DEPTH),), loss=SoftmaxKL())
GATES = GatesTermSpec(weight=0.5, balance=True)


def rows(parts):
    indptr = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return Interactions(indptr=indptr, items=np.concatenate(parts).astype(np.int64))


def planted():
    """Return users of two tastes each: most of what they take is of one, and a part of the other."""
    rng, taken = np.random.default_rng(0), []
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
    settings = TrainSpec(epochs=epochs, batch=300, negatives=60, list_users=100, patience=0, evaluate_every=epochs)
    fit(planted(), spec, settings, out, name=out.name, world=World(), log=quiet, teaching=teaching)
    return out


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Return the labels, and the students of lists alone and of gates too."""
    home, data = tmp_path_factory.mktemp("taught"), planted()
    fitted = Fitted(TEACHER, SimpleNamespace(path=train(home / "teacher", TEACHER, 8)))  # pyrefly: ignore
    out, how = home / "labels", {"share": Share(), "whole": True}
    out.mkdir()
    spec = LabelsSpec(depth=DEPTH, gates=True)
    label_data(data, Teacher(models=(fitted,)), fitted, spec, out, {"step": "s", "teacher": "t"}, quiet, **how)
    labels = open_labels(out)
    students = {
        name: train(home / name, STUDENT, 4, Teaching(terms=terms, labels=labels))
        for name, terms in (("lists", [LISTS]), ("gates", [LISTS, GATES]))
    }
    return labels, students


def test_its_attributions_share_more_of_their_first_items_with_the_teachers(taught):
    labels, students = taught
    data, users = planted(), np.arange(USERS)
    lists, sequences = labels.take(users)[0], Sequences.of(data.train)
    found, apart = {}, {}
    for name, path in students.items():
        own = gates(load(STUDENT, data, path), data, users, lists, sequences, LENGTH)
        found[name] = float(attribution_iou(own, labels.gates, K).mean())
        apart[name] = gate_distance(torch.from_numpy(own), torch.from_numpy(np.array(labels.gates))).mean().item()
    assert found["gates"] > found["lists"] + 0.05  # 0.79 and 0.70; by chance 0.21
    assert apart["gates"] < 0.6 * apart["lists"]


def test_the_tables_differ_by_what_the_term_taught_and_stay_finite(taught):
    _, students = taught
    tables = [load_file(path / "weights.safetensors")["item.weight"] for path in students.values()]
    assert all(np.isfinite(table.numpy()).all() for table in tables)
    assert (tables[0] - tables[1]).abs().max() > 0.01
