"""What a configuration is told of gates on histories, where nobody keeps them, reads them, or learns of them."""

from __future__ import annotations

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

GOOD = """\
name: tiny
log: {path: log.parquet, user: u, item: i, time: t}
teacher:
  model: {kind: two_tower, dim: 16}
  train: {epochs: 3}
labels: {depth: 50, gates: true}
student:
  model: {kind: two_tower, dim: 8}
  train: {epochs: 3}
distill:
  - {kind: list, weight: 1, draw: [{kind: top, k: 5}], loss: {kind: softmax_kl}}
  - {kind: gates, weight: 0.1, balance: true, phase: {start: 1}}
report: {k: [10]}
"""
ALONE = "distill=[{kind: gates, weight: 1}]"
RANKER = ["teacher.model={kind: ranker}", "teacher.train.negatives=8"]
LIST = "{kind: list, weight: 1, draw: [{kind: top, k: 5}], loss: {kind: softmax_kl}}"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize(
    "sets",
    [
        [],
        [ALONE],
        ["teacher.model={kind: sequence, dim: 16}"],
        RANKER,
        [*RANKER, "labels.candidates={ann: 60}"],
        ["labels.calibration=temperature"],
        ["teacher.model.history=20", "student.model.history=30"],
        ["student.model.hidden=[8]", "student.model.space=dot"],
    ],
)
def test_these_are_possible(file, sets):
    assert load_config(file, sets).labels.gates


@pytest.mark.parametrize(
    ("sets", "at", "reason"),
    [
        (["labels.gates=false"], "distill.1.kind", "the labels do not say it: set labels.gates: true"),
        ([f"distill=[{LIST}]"], "labels.gates", "no term of kind gates reads it"),
        (["teacher.model={kind: mf, dim: 16}"], "labels.gates", "needs a teacher that reads a history: mf does not"),
        (["teacher.model={kind: lightgcn, dim: 16}"], "labels.gates", "lightgcn does not"),
        (["teacher.model={kind: external, path: a.parquet}", "teacher.train=null"], "labels.gates", "external does"),
        (["teacher.recipe={kind: seeds, seeds: [1, 2]}"], "labels.gates", "one training"),
        (["teacher.folds=2", "labels.exclude_seen=false"], "labels.gates", "one training"),
        (["teacher.model.history=1"], "teacher.model.history", "has one item"),
        (["student.model={kind: mf, dim: 8}"], "distill.1.kind", "needs a student that reads a history: mf does not"),
        (["student.model.history=1"], "student.model.history", "has one item"),
        (["labels.transfer={kind: dropout}"], "distill.1.kind", "gates are on histories of known users"),
        (["distill.1.phase={start: 5}"], "distill.1.phase", "never counts"),
        (["student.task=0"], "distill.1.balance", "has no effect"),
    ],
)
def test_these_are_refused_with_their_place(file, sets, at, reason):
    with pytest.raises(ConfigError) as refused:
        load_config(file, sets)
    found = [str(problem) for problem in refused.value.problems]
    assert any(f"{at}: " in one and reason in one for one in found), found


def test_nothing_else_is_said_of_a_term_without_vectors(file):
    with pytest.raises(ConfigError) as refused:
        load_config(file, ["labels.gates=false"])
    assert len(refused.value.problems) == 1
