"""What a configuration is told of subclasses that nobody trains, or that no term could teach."""

from __future__ import annotations

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

GOOD = """\
name: tiny
log: {path: log.parquet, user: u, item: i, time: t}
teacher:
  model: {kind: mf, dim: 16}
  train: {epochs: 3, subclasses: {count: 3}}
labels: {depth: 50, vectors: true}
student:
  model: {kind: mf, dim: 8}
  train: {epochs: 3}
distill:
  - {kind: list, weight: 1, draw: [{kind: top, k: 5}, {kind: unseen, n: 3}], loss: {kind: subclass_kl}}
report: {k: [10]}
"""
KL = "distill.0.loss={kind: softmax_kl}"
NONE = "teacher.train.subclasses=null"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize(
    "sets",
    [
        [],
        ["distill.0.loss={kind: subclass_kl, temperature: 2, between: 0, tie: 0.5}", "distill.0.balance=true"],
        ["teacher.model={kind: lightgcn, dim: 16, popularity: 0.5}", "teacher.train.dense_lr=0.01"],
        ["teacher.model={kind: two_tower, dim: 16}"],
        [KL],  # such a teacher may teach by its scores too
        [KL, NONE],
    ],
)
def test_these_are_possible(file, sets):
    load_config(file, sets)


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ([NONE], "the teacher has none: set teacher.train.subclasses"),
        ([NONE, "teacher.model={kind: external, path: t.parquet}", "teacher.train=null"], "the teacher has none"),
        (["labels.vectors=false"], "set labels.vectors: true"),
        (["labels.calibration=temperature"], "moves the scores"),
        (["student.train.subclasses={count: 2}"], "has no effect: they are a teacher's"),
        (["teacher.model={kind: ranker}"], "a ranker trains none"),
        (["teacher.model={kind: sequence, dim: 16}"], "a sequence trains none"),
        (["teacher.recipe={kind: seeds, seeds: [1, 2]}"], "teacher.recipe mixes several"),
        (["teacher.folds=2", "labels.exclude_seen=false"], "teacher.folds mixes several"),
        (["distill.0.target=[{kind: topk, k: 3}]"], "subclass_kl compares sub-logits: leave it out"),
        (["distill.0.head={gradient: 1}"], "subclass_kl compares sub-logits: leave it out"),
        (["distill.0.signal={kind: temperature, base: 2}"], "subclass_kl compares sub-logits: leave it out"),
        (["distill.0.draw=[{kind: in_batch, n: 5}]"], "in_batch gives scores alone"),
        (["distill.0.side=items", "labels.item_depth=50"], "lists of items for a user"),
        (["distill.0.teacher=partner", "student.partner={kind: mf, dim: 16}"], "lists of items for a user"),
        ([NONE, KL, "teacher.train.dense_lr=0.01"], "a mf without hidden layers is all tables"),
    ],
)
def test_these_are_not(file, sets, reason):
    with pytest.raises(ConfigError) as caught:
        load_config(file, sets)
    assert reason in str(caught.value)


def test_models_of_a_recipe_are_told_that_nobody_reads_their_subclasses(file):
    member = "{model: {kind: mf, dim: 8}, train: {epochs: 3, subclasses: {count: 2}}}"
    terms = "[{kind: list, weight: 1, draw: [{kind: top, k: 5}], loss: {kind: subclass_kl}}]"
    recipe = f"teacher.recipe={{kind: assistants, models: [{member}], terms: {terms}}}"
    with pytest.raises(ConfigError) as caught:
        load_config(file, [KL, NONE, recipe])
    assert "a recipe's models teach by their scores" in str(caught.value)
    assert "subclass_kl is for students" in str(caught.value)
