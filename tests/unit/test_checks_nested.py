"""What a configuration can get wrong of nested widths and of rounding, each by the place it stands in."""

from __future__ import annotations

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError
from recdistill.models.spec import MFSpec, StudentSpec, TrainSpec, TwoTowerSpec

GOOD = """\
name: tiny
log: {path: log.parquet, user: u, item: i}
split: {kind: user_random}
teacher:
  model: {kind: mf, dim: 16}
  train: {epochs: 3}
labels: {depth: 50}
student:
  model: {kind: mf, dim: 16, space: dot, nested: [4, 8], rounding: int8}
  train: {epochs: 5}
distill:
  - {kind: list, weight: 1, draw: [{kind: top, k: 5}], loss: {kind: softmax_kl}}
report: {k: [10]}
"""
LISTED = "kind: list, weight: 1, draw: [{kind: top, k: 5}]"
PARTNER = "student.partner={kind: mf, dim: 16"
HEARD = "distill=[{" + LISTED + ", loss: {kind: softmax_kl}, teacher: partner}]"


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ([], ""),
        (["student.model={kind: two_tower, dim: 16, hidden: [16], nested: [4], rounding: int4}"], ""),
        (["student.model.nested=[8, 4]"], "widths rise, and stay below dim, which is 16"),
        (["student.model.nested=[8, 16]"], "widths rise"),
        (["student.model.nested=[0, 8]"], "must be more than 0"),
        (["student.model.rounding=int2"], "int8"),
        (["student.stages=[{epochs: 2, width: 4}, {}]"], "not with widths of student.stages"),
        (["student.items=folded", "labels.vectors=true"], "folded ones take the place"),
        (["student.items=folded", "labels.vectors=true"], "rounded in its own dimensions"),
        (["distill=[{" + LISTED + ", loss: {kind: softmax_kl}, head: {}}]"], "never serves"),
        (["distill=[{" + LISTED + ", loss: {kind: subclass_kl}}]"], "whole vectors"),
        (
            [PARTNER + "}", HEARD.replace("partner}]", "student}]")],
            "of which there is one a width",
        ),
        ([PARTNER + "}", HEARD], ""),
        ([PARTNER + ", nested: [4]}", HEARD], "does not serve"),
        ([PARTNER + ", rounding: int8}", HEARD], "does not serve"),
        (["teacher.model.nested=[4]"], "does not serve"),
        (["teacher.model.rounding=int8"], "does not serve"),
    ],
)
def test_what_no_prefix_or_rounded_vector_can_do_is_refused(tmp_path, sets, reason):
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    if not reason:
        load_config(path, sets)
        return
    with pytest.raises(ConfigError) as caught:
        load_config(path, sets)
    assert any(reason in problem.reason for problem in caught.value.problems), caught.value


def test_a_model_that_says_nothing_of_either_is_dumped_as_before():
    for spec in (MFSpec(dim=8), TwoTowerSpec(dim=8)):
        assert not {"nested", "rounding"} & spec.model_dump().keys()
    assert MFSpec(dim=8, nested=(4,)).model_dump()["nested"] == (4,)


def test_the_widths_at_which_a_student_is_one_are_the_nested_ones():
    train = TrainSpec(epochs=1)
    assert StudentSpec(model=MFSpec(dim=16, nested=(4, 8)), train=train).widths == (4, 8)
    assert StudentSpec(model=MFSpec(dim=16), train=train).widths == ()
