"""Who asks for the day before must be given one that can be had; a complaint names the line that asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

GOOD = """\
name: small
log: {path: log.parquet, user: u, item: i}
split: {kind: user_random}
yesterday: {kind: part, lacks: 0.2, seed: 3}
teacher:
  model: {kind: mf, dim: 16}
  train: {epochs: 3}
  recipe: {kind: delta}
labels: {depth: 30}
student:
  model: {kind: mf, dim: 8}
  train: {epochs: 3}
  start: yesterday
  axes: yesterday
distill: [{kind: list, weight: 1, draw: [{kind: top, k: 5}], loss: {kind: softmax_kl}}]
report: {k: [10]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


def found(file: Path, *sets: str) -> dict[str, tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        load_config(file, sets)
    return {problem.path: (problem.where, problem.reason) for problem in caught.value.problems}


def test_a_student_may_move_on_from_yesterday(file: Path) -> None:
    config = load_config(file)
    assert config.yesterday is not None
    assert config.yesterday.lacks == 0.2
    assert config.student.remembers
    assert load_config(file, ["yesterday={kind: part}", "teacher.recipe.alpha=0.5"]).teacher.recipe.alpha == 0.5


def test_without_a_yesterday_everyone_who_asks_for_it_is_named_by_line(file: Path) -> None:
    file.write_text(GOOD.replace("yesterday: {kind: part, lacks: 0.2, seed: 3}\n", ""))
    problems = found(file)
    places = {"teacher.recipe": 7, "student.start": 12, "student.axes": 13}
    assert problems.keys() == places.keys()
    for at, line in places.items():
        where, reason = problems[at]
        assert where.startswith(f"{file}:{line}:")
        assert "asks for the day before, and there is none: set yesterday" in reason


def test_a_run_that_is_not_there_is_no_yesterday(file: Path, tmp_path: Path) -> None:
    file.write_text(GOOD.replace("{kind: part, lacks: 0.2, seed: 3}", f"{{kind: run, path: {tmp_path / 'gone'}}}"))
    where, reason = found(file)["yesterday.path"]
    assert where.startswith(f"{file}:4:")
    assert reason.startswith(f"no report at {tmp_path / 'gone'}")
    (tmp_path / "gone").mkdir()
    assert found(file)["yesterday.path"][1] == reason
    (tmp_path / "gone" / "report.json").write_text("{}")
    assert load_config(file).yesterday is not None


@pytest.mark.parametrize(
    ("change", "place", "reason"),
    [
        ("teacher.model={kind: ranker, dim: 16}", "teacher.recipe", "needs a teacher whose scores are products"),
        ("teacher.folds=2", "teacher.folds", "not with recipe delta"),
        ("labels.trajectory=3", "labels.trajectory", "not with recipe delta"),
        ("distill=[]", "teacher.recipe", "has no effect without distill"),
        ("distill=[]", "student.start", "has no effect without distill"),
        ("distill=[]", "student.axes", "has no effect without distill"),
        ("log.time=t", "yesterday.seed", "has no effect: the log has times"),
        ("yesterday.lacks=1.0", "yesterday.lacks", "must be less than 1"),
        ("yesterday={kind: day}", "yesterday", "unknown kind 'day'"),
        ("teacher.recipe.alpha=0", "teacher.recipe.alpha", "must be more than 0"),
    ],
)
def test_what_cannot_be_is_refused_where_it_stands(file: Path, change: str, place: str, reason: str) -> None:
    problems = found(file, change)
    assert reason in problems[place][1]


def test_a_turn_would_mix_a_student_of_the_first_numbers_with_the_others(file: Path) -> None:
    sets = ["student.model.space=dot", "student.stages=[{epochs: 1, width: 4}, {width: 8}]"]
    assert "a student of their own" in found(file, *sets)["student.axes"][1]


def test_labels_of_a_delta_have_vectors(file: Path) -> None:
    align = "distill=[{kind: align, weight: 1, loss: {kind: distance, adapter: {kind: linear}}}]"
    assert load_config(file, ["labels.vectors=true", align]).labels.vectors
