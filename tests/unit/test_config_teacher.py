"""What a configuration may say of recipes, folds and score spaces, and what it is told when that makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

GOOD = """\
name: tiny
log: {path: log.parquet, user: u, item: i, time: t}
teacher:
  model: {kind: mf, dim: 16}
  train: {epochs: 3}
labels: {depth: 50}
student:
  model: {kind: two_tower, dim: 8}
  train: {epochs: 3}
distill:
  - {kind: list, weight: 0.5, draw: [{kind: top, k: 10}], loss: {kind: softmax_kl}}
report: {k: [10]}
"""
TERM = "{kind: list, weight: 1, draw: [{kind: top, k: 10}], loss: {kind: softmax_kl}}"
MEMBER = "{model: {kind: mf, dim: 8}, train: {epochs: 2}}"
BCE = "distill.0.loss={kind: soft_bce}"
NO_TIME = "split.kind=user_random"
LUCE = "distill.0.loss={kind: plackett_luce}"
EXTERNAL = ["teacher.model={kind: external, path: x, space: %s}", "teacher.train=null"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


def external(space: str) -> list[str]:
    return [EXTERNAL[0] % space, EXTERNAL[1]]


@pytest.mark.parametrize(
    "sets",
    [
        ["teacher.recipe={kind: checkpoints}"],
        ["teacher.recipe={kind: seeds, seeds: [1, 2, 3]}"],
        [f"teacher.recipe={{kind: assistants, models: [{MEMBER}], terms: [{TERM}]}}"],
        [f"teacher.recipe={{kind: self, generations: 2, terms: [{TERM}]}}", "teacher.train.list_users=64"],
        [f"teacher.recipe={{kind: pool, members: [{MEMBER}]}}"],
        ["teacher.folds=3", "labels.exclude_seen=false"],
        ["teacher.folds=2", "labels.exclude_seen=false", "teacher.recipe={kind: seeds, seeds: [1, 2]}"],
        [BCE, "labels.calibration=platt"],
        [LUCE, *external("rank")],
        [BCE, *external("probability")],
        ["labels.calibration=temperature", *external("rank")],
        [
            "teacher.recipe={kind: pool, members: [{model: {kind: ranker}, train: {epochs: 1}}]}",
            "labels.candidates={ann: 1}",
            "features={users: {path: x, numeric: [a]}}",
        ],
    ],
)
def test_what_may_be_said(file: Path, sets: list[str]) -> None:
    assert load_config(file, sets).name == "tiny"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["teacher.folds=1", "labels.exclude_seen=false"], "teacher.folds: one fold is all there is"),
        (["teacher.folds=2"], "teacher.folds: has no effect: the lists leave out what the folds are there to judge"),
        (
            ["teacher.folds=2", "labels.exclude_seen=false", f"teacher.recipe={{kind: self, terms: [{TERM}]}}"],
            "teacher.folds: not with recipe self, whose models learn from labels",
        ),
        ([*external("logit"), "teacher.folds=2", "labels.exclude_seen=false"], "teacher.folds: has no effect"),
        ([*external("logit"), "teacher.recipe={kind: seeds, seeds: [1, 2]}"], "teacher.recipe: has no effect"),
        (["teacher.recipe={kind: seeds, seeds: [1]}"], "teacher.recipe.seeds: needs 2 or more entries, not 1"),
        (["teacher.recipe={kind: seeds, seeds: [1, 1]}"], "teacher.recipe.seeds: names a seed twice"),
        (
            ["teacher.recipe={kind: seeds, seeds: [1, 2]}", "teacher.train.seed=7"],
            "teacher.train.seed: has no effect: teacher.recipe.seeds are 1, 2",
        ),
        (["teacher.recipe={kind: checkpoint}"], "unknown kind 'checkpoint', did you mean 'checkpoints'?"),
        (
            ["teacher.recipe={kind: checkpoints}", "teacher.train.evaluate_every=3"],
            "teacher.train.evaluate_every: 3 epochs with a validation every 3 leave one snapshot",
        ),
        (
            [f"teacher.recipe={{kind: pool, members: [{MEMBER}, {MEMBER}]}}"],
            "teacher.recipe.members.1: is there already",
        ),
        (
            [f"teacher.recipe={{kind: assistants, models: [{MEMBER}], terms: [{TERM}]}}", "teacher.train.list_users=8"],
            "teacher.train.list_users: has no effect",
        ),
        (
            [f"teacher.recipe={{kind: self, terms: [{TERM.replace('k: 10', 'k: 60')}]}}"],
            "teacher.recipe.terms.0.draw.0.k: 60 is beyond the teacher's lists, 50 deep",
        ),
        (
            ["teacher.model={kind: sequence, dim: 8}", "log.time=null", NO_TIME],
            "teacher.model.kind: a sequence needs times: name their column in log.time",
        ),
        (
            [f"teacher.recipe={{kind: pool, members: [{MEMBER.replace('mf', 'sequence')}]}}", "log.time=null", NO_TIME],
            "teacher.recipe.members.0.model.kind: a sequence needs times",
        ),
        (
            ["teacher.model={kind: sequence, dim: 8, heads: 3}"],
            "teacher.model.heads: 3 heads do not divide dim, which is 8",
        ),
        ([LUCE, "labels.calibration=platt"], "labels.calibration: has no effect: every term reads the order"),
        (
            [f"teacher.recipe={{kind: self, terms: [{TERM.replace('softmax_kl', 'soft_bce')}]}}"],
            "teacher.recipe.terms.0.loss: soft_bce reads the teacher's scores as probability, and these are logit",
        ),
    ],
)
def test_what_makes_no_sense(file: Path, sets: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, sets)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1, str(caught.value)


def said(file: Path, sets: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(file, sets)
    (problem,) = caught.value.problems
    return str(problem).replace(str(file.parent) + "/", "")


def test_a_loss_that_reads_more_than_the_scores_mean_is_named_with_its_line(file: Path) -> None:
    file.write_text(GOOD.replace("softmax_kl", "soft_bce"))
    assert said(file, []) == (
        "run.yaml:11:59: distill.0.loss: soft_bce reads the teacher's scores as probability, and these are logit, "
        "known up to a shift for each user: set labels.calibration: platt"
    )
    assert "set labels.calibration: platt" in said(file, ["labels.calibration=temperature"])
    file.write_text(GOOD)
    assert said(file, external("rank")).endswith(
        "distill.0.loss: softmax_kl reads the teacher's scores as logit, and these are rank, only the order: "
        "set labels.calibration: temperature, or teacher.model.space: logit if the file holds that"
    )
