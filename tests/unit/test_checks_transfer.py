"""What a configuration is told of histories that nobody had, where nobody can be asked about them, or learns."""

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
labels: {depth: 50, transfer: {kind: dropout, rate: 0.3}}
student:
  model: {kind: two_tower, dim: 8}
  train: {epochs: 3, list_users: 64}
distill:
  - {kind: list, weight: 1, draw: [{kind: top, k: 5}], loss: {kind: softmax_kl}}
report: {k: [10]}
"""
SEQUENCE = "teacher.model={kind: sequence, dim: 16}"
FLIPS = "labels.transfer={kind: flips}"
RANKER = ["teacher.model={kind: ranker}", "teacher.train.negatives=8"]
MSE = "loss: {kind: logit_mse}}"
ALIGN = "{kind: align, weight: 1, loss: {kind: distance, adapter: {kind: linear}}}"


def term(draw, more="loss: {kind: softmax_kl}}"):
    return f"{{kind: list, weight: 1, draw: [{{kind: {draw}}}], {more}"


def distill(*terms):
    return f"distill=[{', '.join(terms)}]"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize(
    "sets",
    [
        [],
        ["labels.transfer={kind: splice}"],
        ["labels.transfer={kind: splice, rows: 0.5, share: 0.1, concentration: 2, seed: 7}"],
        ["labels.transfer={kind: flips}"],
        ["labels.transfer={kind: flips, count: 49, rounds: 3, rows: 0.5}", "student.model.hidden=[8]"],
        [SEQUENCE],
        RANKER,
        [
            "labels.vectors=true",
            distill(term("own, n: 3}, {kind: top, k: 5"), term("unseen, n: 3}, {kind: top, k: 3", MSE)),
        ],
        ["labels.calibration=temperature", "labels.exclude_seen=false", "labels.rest=5"],
        [distill(term("top, k: 5"), term("in_batch, n: 5")), "labels.vectors=true"],
        [
            distill(term("top, k: 5"), term("top, k: 5", "side: items, loss: {kind: softmax_kl}}")),
            "labels.item_depth=9",
        ],
    ],
)
def test_these_are_possible(file, sets):
    assert load_config(file, sets).labels.transfer is not None


@pytest.mark.parametrize(
    ("sets", "at", "reason"),
    [
        (["teacher.model={kind: mf, dim: 16}"], "labels.transfer", "needs a teacher that reads a history: mf does not"),
        (["teacher.model={kind: lightgcn, dim: 16}"], "labels.transfer", "lightgcn does not"),
        (["teacher.model={kind: external, path: a.parquet}", "teacher.train=null"], "labels.transfer", "external does"),
        (["teacher.model.id_dropout=0"], "teacher.model.id_dropout", "never hid an id"),
        (["teacher.recipe={kind: seeds, seeds: [1, 2]}"], "labels.transfer", "one training"),
        (["teacher.folds=2", "labels.exclude_seen=false"], "labels.transfer", "one training"),
        ([*RANKER, "labels.candidates={ann: 5}"], "labels.candidates", "the whole catalogue is scored"),
        (["student.model={kind: mf, dim: 8}"], "labels.transfer", "no effect on a student of kind mf"),
        ([distill(term("in_batch, n: 5")), "labels.vectors=true"], "labels.transfer", "no term of distill compares"),
        (["student.train.list_users=1"], "labels.transfer.share", "would take 0 of the 1 rows"),
        (["labels.transfer.share=0.001"], "labels.transfer.share", "would take 0 of the 64 rows"),
        ([distill(term("top, k: 3"), ALIGN), "labels.vectors=true"], "distill.1.kind", "vectors of known users"),
        (
            [
                distill(term("top, k: 3", "teacher: partner, loss: {kind: softmax_kl}}")),
                "student.partner={kind: mf, dim: 8}",
            ],
            "distill.0.teacher",
            "lists of a partner are of known users",
        ),
        (
            [distill(term("student_top, k: 3")), "labels.vectors=true"],
            "distill.0.draw.0",
            "student_top follows the lists",
        ),
        (
            [distill(term("trajectory, k: 3", "loss: {kind: plackett_luce}}")), "labels.trajectory=3"],
            "distill.0.draw.0",
            "trajectory follows the lists",
        ),
        (["distill=[]"], "labels", "has no effect without distill"),
        ([FLIPS, SEQUENCE], "labels.transfer.kind", "needs a teacher that pools its history: sequence does not"),
        ([FLIPS, *RANKER], "labels.transfer.kind", "needs a teacher that pools its history: ranker does not"),
        ([FLIPS, "student.model={kind: mf, dim: 8}"], "labels.transfer", "no effect on a student of kind mf"),
        ([FLIPS, "student.model.history=20"], "student.model.history", "is 20, and the teacher's 50"),
        ([FLIPS, "labels.transfer.count=50"], "labels.transfer.count", "no room in a history of 50 items"),
        ([FLIPS, "labels.transfer.rounds=4"], "labels.transfer.rounds", "more than the 3 epochs"),
    ],
)
def test_these_are_refused_with_their_place(file, sets, at, reason):
    with pytest.raises(ConfigError) as refused:
        load_config(file, sets)
    found = [str(problem) for problem in refused.value.problems]
    assert any(f"{at}: " in one and reason in one for one in found), found


@pytest.mark.parametrize(
    "sets",
    [
        ["labels.transfer.rate=0"],
        ["labels.transfer.share=1"],
        ["labels.transfer={kind: splice, copies: 2}"],
        ["labels.transfer={kind: flips, rows: 1.5}"],
        ["labels.transfer={kind: flips, rounds: 0}"],
    ],
)
def test_settings_have_their_bounds(file, sets):
    with pytest.raises(ConfigError, match=r"labels\.transfer"):
        load_config(file, sets)
