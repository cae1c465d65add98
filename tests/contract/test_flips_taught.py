"""Flips: where student and teacher disagree is found, taught, and then no longer where they disagree; in rounds too."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from pipelines import distill, sweep_fits
from pipelines.rounds import Source, learn, twin
from pipelines.teach import teach
from recdistill import stages
from recdistill.config import load_config
from recdistill.diagnose.fidelity import divergence
from recdistill.fit import load
from recdistill.labels import open_labels
from recdistill.models.gates import pool
from recdistill.models.spec import Fitted
from recdistill.transfer.against import Tower, _apart, _read
from recdistill.transfer.histories import padded
from recdistill.types import quiet
from recdistill.world import world

USERS, ITEMS, TAKEN, GROUPS = 120, 60, 14, 6
CONFIG = """\
name: toy
log: {path: log.parquet, user: user, item: item, min_user: 3, min_item: 1}
split: {kind: user_random, valid_fraction: 0.1, test_fraction: 0.1}
teacher:
  model: {kind: two_tower, dim: 16, history: 12, id_dropout: 0.3}
  train: {epochs: 8, batch: 300, negatives: 60, evaluate_every: 4, patience: 0}
labels: {depth: 20, transfer: {kind: flips, count: 3, rounds: 3, share: 0.5}}
student:
  model: {kind: two_tower, dim: 4, history: 12, id_dropout: 0.3}
  train: {epochs: 7, batch: 300, negatives: 60, list_users: 60, evaluate_every: 3, patience: 0, decay: cosine}
distill:
  - {kind: list, weight: 3.0, draw: [{kind: top, k: 20}], loss: {kind: softmax_kl}}
report: {k: [10]}
"""


class Stopped(Exception):
    """What ends a training in the middle of a step's report."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log of users of two tastes each."""
    made, rng = tmp_path_factory.mktemp("toy"), np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        chance = np.full(ITEMS, 0.05)
        chance[np.arange(ITEMS) % GROUPS == user % GROUPS] = 1.0
        chance[np.arange(ITEMS) % GROUPS == (user // GROUPS) % GROUPS] = 0.6
        rows += [(user, int(item)) for item in rng.choice(ITEMS, TAKEN, replace=False, p=chance / chance.sum())]
    pl.DataFrame(rows, schema=["user", "item"], orient="row").write_parquet(made / "log.parquet")
    (made / "run.yaml").write_text(CONFIG)
    return made


def configured(folder, *sets):
    return load_config(folder / "run.yaml", [f"log.path={folder / 'log.parquet'}", *sets])


@pytest.fixture(scope="module")
def begun(folder):
    """Return a run, the data, and what a student begins with."""
    config = configured(folder)
    with warnings.catch_warnings(), world(device="cpu", threads=1) as joined:
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        run = stages.Run(store=folder / "store", world=joined, log=quiet)
        data = stages.split(stages.ingest(config.log, config.features, run), config.split, run)
        train = config.student.train
        scratch = Fitted(
            config.student.model, stages.fit(data, config.student.model, train, config.exec, run, name="scratch")
        )
        teacher, _ = teach(config, data, scratch, run)
        labels = stages.label(data, teacher, scratch, config.labels, run)
        yield run, data, Source(teacher, scratch, labels)


def taught(config, begun, **run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return learn(config, begun[1], begun[2], config.student.train, replace(begun[0], **run), name="student")


def apart(config, begun, labels, student):
    """Return of `student` on the histories of `labels` the largest disagreement with the teacher, and the mean KL."""
    data, teacher = begun[1].read(), begun[2].teacher.models[0]
    models = load(teacher.spec, data, teacher.artifact.path), load(config.student.model, data, student.path)
    lists, made = open_labels(labels.path).transfer
    items, scores = lists.take(np.arange(len(made)))
    known = np.unique(data.train.items)
    sides = [_read(Tower(model), known).side(torch.from_numpy(items).clamp(min=0)) for model in models]
    past = torch.from_numpy(padded(made.interactions, np.arange(len(made))))
    with torch.no_grad():
        far = _apart(sides, past, torch.from_numpy(np.isfinite(scores)))
        both = [side.scores(pool(side.items[past.clamp(min=0)], past >= 0)).numpy() for side in sides]
    return far.max(), divergence(both[1], both[0]).mean()


def test_flips_part_a_trained_student_from_its_teacher_on_nearly_every_row(begun):
    told = begun[2].labels.manifest.facts["transfer"]["apart"]
    assert told["rose"] >= 0.9
    assert told["histories"] > 1.5 * told["parents"]


def test_what_was_taught_is_no_longer_where_they_disagree_most(folder, begun):
    flips = configured(folder, "labels.transfer.rounds=1")
    labels = begun[2].labels
    [student] = taught(flips, begun)
    plain = stages.label(begun[1], begun[2].teacher, begun[2].scratch, load_plain(folder).labels, begun[0])
    other = begun[0], begun[1], replace(begun[2], labels=plain)
    [without] = taught(load_plain(folder), other)
    scratch = begun[2].scratch.artifact
    before, other, after = (apart(flips, begun, labels, fit) for fit in (scratch, without, student))
    assert after[0] < 0.8 * before[0]  # 1.03 and 1.62
    assert after[1] < 0.8 * before[1]
    assert after[1] < 0.95 * other[1]  # nor do the lists of users alone teach as much of what is compared: .157, .177


def load_plain(folder):
    return configured(folder, "labels={depth: 20}")


def test_rounds_are_planned_by_name_made_once_and_found_again(folder, begun):
    config = configured(folder)
    dry = [artifact.fingerprint for artifact in taught(config, begun, dry=True)]
    made = taught(config, begun)
    assert [artifact.fingerprint for artifact in made] == dry
    assert [artifact.manifest.stage for artifact in made] == ["fit", "labels", "fit", "labels", "fit"]
    assert len(set(dry)) == 5
    assert all(artifact.hit for artifact in taught(config, begun))
    planned = configured(folder, f"exec.store={folder / 'store'}")
    rows = {row["stage"]: row["fingerprint"] for row in distill.plan(planned)}
    assert [rows[f"rounds-{i}"] for i in range(1, 5)] + [rows["student"]] == dry


def test_rounds_train_as_long_as_one_and_each_is_taught_something_else(folder, begun):
    made = taught(configured(folder), begun)
    [alone] = taught(configured(folder, "labels.transfer.rounds=1"), begun)
    each = alone.manifest.facts["steps"] // 7
    assert [a.manifest.facts["steps"] for a in made if a.manifest.stage == "fit"] == [2 * each, 4 * each, 7 * each]
    curves = [json.loads((artifact.path / "curve.json").read_text()) for artifact in (made[-1], alone)]
    assert [point["step"] for point in curves[0]] == [point["step"] for point in curves[1]]
    labels = [begun[2].labels, *(a for a in made if a.manifest.stage == "labels")]
    histories = [np.load(a.path / "transfer" / "items.npy").tobytes() for a in labels]
    assert len(set(histories)) == 3  # the student has moved
    assert [a.manifest.inputs["student"] for a in labels[1:]] == [made[0].fingerprint, made[2].fingerprint]


def test_one_round_is_an_ordinary_training_of_ordinary_labels(folder, begun):
    run, data, source = begun
    one = configured(folder, "labels.transfer.rounds=1")
    labels = stages.label(data, source.teacher, source.scratch, one.labels, replace(run, dry=True))
    assert labels.fingerprint == source.labels.fingerprint
    [fit] = taught(one, begun, dry=True)
    more = {"labels": labels, "terms": one.distill, "student": one.student, "name": "any"}
    plain = stages.fit(data, one.student.model, one.student.train, one.exec, replace(run, dry=True), **more)
    assert fit.fingerprint == plain.fingerprint


def test_rounds_that_were_stopped_go_on_to_the_same_student(folder, begun):
    made = taught(configured(folder), begun)

    def log(what, step, total, values):
        if what.endswith("round 2 of 3") and step == made[2].manifest.facts["steps"] - 1:
            raise Stopped

    config = configured(folder, "exec.checkpoint_every=1")
    source = begun[2]
    other = replace(begun[0], store=folder / "other")
    with pytest.raises(Stopped):
        taught(config, (other, begun[1], source), log=log)
    again = taught(config, (other, begun[1], source))
    assert [artifact.hit for artifact in again] == [True, True, False, False, False]
    for name in ("weights.safetensors", "users.npy"):
        assert (again[-1].path / name).read_bytes() == (made[-1].path / name).read_bytes()


def test_a_sweep_trains_the_same_rounds(folder, begun):
    run, data, source = begun
    config = configured(folder)
    piece = sweep_fits.Piece(name="a", config=config, data=data, seed=1, taught=True, source=source)
    dry = replace(run, dry=True)
    assert piece.fit(dry).fingerprint == taught(config, begun, dry=True)[-1].fingerprint
    assert replace(piece, factor=2.0).fit(dry).fingerprint != piece.fit(dry).fingerprint
    # Whoever else's scratch student a sweep has, flips are made against that of the configuration.
    other = source.teacher.models[0].artifact
    assert twin(config, data, other, dry).artifact.fingerprint == source.scratch.artifact.fingerprint
    assert twin(load_plain(folder), data, other, dry).artifact.fingerprint == other.fingerprint
