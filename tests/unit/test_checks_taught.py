"""What a configuration is told of targets, parts and signals that cannot work, or would do nothing."""

from __future__ import annotations

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

GOOD = """\
name: tiny
log: {path: log.parquet, user: u, item: i, time: t}
teacher:
  model: {kind: mf, dim: 16}
  train: {epochs: 3}
labels: {depth: 50, vectors: true}
student:
  model: {kind: mf, dim: 8}
  train: {epochs: 3}
distill:
  - {kind: list, weight: 1, draw: [{kind: top, k: 5}, {kind: own, n: 3}], loss: {kind: softmax_kl}}
report: {k: [10]}
"""
ASK = "distill.0.target=[{kind: pt}]"
SEEN = ["labels.vectors=false", "labels.exclude_seen=false"]
TOP = "distill.0.draw=[{kind: top, k: 5}]"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize(
    "sets",
    [
        [],
        [ASK],
        [ASK, TOP, *SEEN],
        ["distill.0.target=[{kind: sim}, {kind: topk, k: 3}]"],
        ["distill.0.target=[{kind: rectify, how: smooth, share: 0.2}, {kind: half_way}]"],
        ["distill.0.target=[{kind: topk, k: 3}, {kind: blend, teacher: auto}]"],
        ["distill.0.target=[{kind: blend, teacher: 0.3}, {kind: half_way}]"],
        ["distill.0.loss={kind: grouped_kl, within: [4, 1]}"],
        ["distill.0.loss={kind: grouped_kl, by: popularity, groups: 3, between: 0, within: [1, 1, 1]}"],
        ["distill.0.loss={kind: hinge_mse, margin: 0.1}"],
        ["distill.0.signal={kind: right_first, start: 1, ramp: 1}"],
        ["distill.0.signal={kind: temperature, base: 2}"],
        ["distill.0.signal={kind: reliability}", "labels.reliability=4"],
        ["distill.0.target=[{kind: blend, teacher: reliable}]", "labels.reliability=1"],
    ],
)
def test_these_are_possible(file, sets):
    load_config(file, sets)


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ([ASK, TOP, "labels.vectors=false"], "the lists hold none of it: add a draw of kind own"),
        (["distill.0.draw=[{kind: own, n: 3}]"], "draws nothing that the teacher ranked"),
        (["labels.vectors=false"], "set labels.vectors: true"),
        ([ASK, "distill.0.draw=[{kind: in_batch, n: 5}]"], "draws of kind in_batch and rest do not say"),
        ([ASK, "distill.0.teacher=partner", "student.partner={kind: mf, dim: 16}"], "the lists of a partner hold none"),
        ([ASK, "distill.0.loss={kind: plackett_luce}"], "has no effect: plackett_luce reads the order alone"),
        (["distill.0.target=[{kind: topk, k: 3}, {kind: sim}]"], "write it first"),
        (["distill.0.target=[{kind: half_way}, {kind: topk, k: 3}]"], "write it last"),
        (["distill.0.target=[{kind: blend, teacher: auto}, {kind: half_way}]"], "write it last"),
        (["distill.0.target=[{kind: rectify, share: 0.2}]"], "has no effect with how: swap"),
        (["distill.0.loss={kind: grouped_kl, groups: 3}"], "has no effect with by: taken"),
        (["distill.0.loss={kind: grouped_kl, within: [1, 2, 3]}"], "has 3 weights for 2 parts"),
        (["distill.0.loss={kind: grouped_kl, between: 0, within: [0, 0]}"], "every weight is 0"),
        (["distill.0.signal={kind: reliability}"], "set labels.reliability: 4"),
        (["labels.reliability=4"], "has no effect: no target blend or signal reads it"),
        (["distill.0.signal={kind: right_first, start: 0}"], "has no effect: all rows count"),
        (["distill.0.signal={kind: right_first, start: 3}"], "training ends after 3 epochs"),
        (
            [
                "distill.0.signal={kind: temperature}",
                "distill.0.loss={kind: plackett_luce}",
                TOP,
                "labels.vectors=false",
            ],
            "reads the order alone",
        ),
    ],
)
def test_these_are_refused_with_their_reason(file, sets, reason):
    with pytest.raises(ConfigError) as caught:
        load_config(file, sets)
    assert any(reason in problem.reason for problem in caught.value.problems), caught.value
