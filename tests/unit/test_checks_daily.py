"""A section of nights that could not do what it says is a complaint that names the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import load_config
from recdistill.errors import ConfigError

GOOD = """\
name: nights
log: {path: log, user: u, item: i, time: t}
split: {kind: global_time}
teacher: {model: {kind: lightgcn, dim: 16}, train: {epochs: 30}, warm: {epochs: 3}}
labels: {depth: 30}
student: {model: {kind: mf, dim: 8}, train: {epochs: 10}, warm: {epochs: 2, lr: 0.02}, axes: yesterday}
distill: [{kind: list, weight: 1, draw: [{kind: top, k: 5}], loss: {kind: softmax_kl}}]
daily: {window_days: 14, full_every_days: 7, full_on_drift: 0.2, alarms: {new_users: {max: 0.3}, data_days: {max: 2}}}
report: {k: [10]}
registry: {model: nights}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


def found(file: Path, *sets: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_config(file, sets)
    return {problem.path: problem.reason for problem in caught.value.problems}


def test_a_night_may_ask_for_the_day_before_without_naming_it(file) -> None:
    config = load_config(file)
    assert config.daily is not None
    assert config.daily.window_days == 14
    assert config.teacher.moves
    assert load_config(file, ["teacher.recipe={kind: delta}"]).teacher.moves


@pytest.mark.parametrize(
    ("sets", "path", "reason"),
    [
        (["log.time=null", "split.kind=user_random"], "daily", "needs times to tell a day by"),
        (["log.path={train: a, test: b}", "split.kind=given"], "log.path", "no window of days"),
        (["yesterday={kind: part}"], "yesterday", "finds the day before in the registry"),
        (["student.start=yesterday"], "student.start", "decided every night"),
        (["teacher.start=yesterday"], "teacher.start", "decided every night"),
        (["registry=null"], "daily.start", "there is no registry"),
        (["split.kind=user_random"], "split.kind", "test a night on what its champion has learned"),
        (["daily.start=full"], "daily.full_every_days", "every night begins at random"),
        (["daily.start=full"], "student.warm", "has no effect"),
        (["teacher.folds=2", "labels.exclude_seen=false"], "teacher.warm", "this teacher cannot begin"),
        (["student.start=teacher", "student.model.space=dot"], "student.warm", "this student cannot begin"),
        (["daily.alarms={new_users: {}}"], "daily.alarms.new_users", "give min, max, or both"),
        (["daily.alarms={new_users: {min: 2, max: 1}}"], "daily.alarms.new_users", "is above max"),
    ],
)
def test_what_cannot_be_is_named(file, sets, path, reason) -> None:
    assert reason in found(file, *sets)[path]


def test_nights_that_nothing_could_begin_at_are_refused(file) -> None:
    sets = ["teacher.model.kind=ranker", "teacher.warm=null", "student.warm=null", "student.start=teacher"]
    assert "neither the teacher nor the student" in found(file, *sets)["daily.start"]


def test_what_counts_epochs_counts_those_of_a_short_training_too(file) -> None:
    assert "never counts" in found(file, "distill.0.phase={start: 2}")["distill.0.phase"]


def test_without_nights_the_day_before_must_be_given_and_warm_is_of_no_use(file) -> None:
    problems = found(file, "daily=null")
    assert "asks for the day before" in problems["student.axes"]
    assert "has no effect" in problems["teacher.warm"]
    day = ["daily=null", "yesterday={kind: part}"]
    moved = load_config(file, [*day, "teacher.start=yesterday", "student.start=yesterday"])
    assert moved.teacher.first is not None
    assert (moved.teacher.first.epochs, moved.student.taught(moved.student.train).lr) == (3, 0.02)
    assert "one training of an mf" in found(file, *day, "teacher.start=yesterday", "teacher.folds=2")["teacher.start"]
