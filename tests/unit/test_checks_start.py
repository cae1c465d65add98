"""A student begins at the teacher's dimensions where it has tables to fill, and the labels keep what they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

GOOD = """
name: small
log: {path: log.parquet, user: u, item: i}
split: {kind: user_random}
teacher: {model: {kind: mf, dim: 16}, train: {epochs: 3}}
labels: {depth: 30, vectors: true}
student: {model: {kind: mf, dim: 8, space: dot}, train: {epochs: 3}, start: teacher}
distill: [{kind: list, weight: 1, draw: [{kind: top, k: 5}], loss: {kind: plackett_luce}}]
report: {k: [10]}
"""
NUMBERS = "the teacher's dimensions are of rows of numbers: set student.model.kind mf, and space dot"
KEPT = "the teacher's dimensions are found in its vectors: set labels.vectors: true"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


def test_a_start_may_be_the_teachers(file: Path) -> None:
    assert load_config(file).student.start == "teacher"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("labels.vectors=false", KEPT),
        ("student.model.space=cosine", NUMBERS),
        ("student.model={kind: two_tower, dim: 8, space: dot}", NUMBERS),
        ("distill=[]", "has no effect without distill; leave it out"),
        ("teacher.model={kind: ranker, dim: 16}", "needs a teacher whose scores are products of vectors"),
    ],
)
def test_a_start_that_cannot_be_is_refused_where_it_stands(file: Path, change: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, [change])
    assert any(reason in problem.reason for problem in caught.value.problems)
    place = "labels.vectors" if "ranker" in change else "student.start"
    assert any(problem.path == place for problem in caught.value.problems), [p.path for p in caught.value.problems]
