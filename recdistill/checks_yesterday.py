"""What a configuration can get wrong of the day before: who asks for it, and what can be taken over from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from recdistill.models.recipe import Delta
from recdistill.yamlfile import KeyPath

if TYPE_CHECKING:
    from recdistill.checks import Finding
    from recdistill.config import Config

FIX = "set yesterday: {kind: part}, or {kind: run, path: a report}"


def day_given(config: Config) -> Iterator[Finding]:
    """Who asks for the day before must be given one."""
    asks: dict[KeyPath, bool] = {
        ("teacher", "recipe"): isinstance(config.teacher.recipe, Delta),
        ("teacher", "start"): config.teacher.start == "yesterday",
        ("student", "start"): config.student.start == "yesterday",
        ("student", "axes"): config.student.axes == "yesterday",
    }
    for at, wanted in asks.items():
        if wanted and config.yesterday is None and config.daily is None:
            yield at, f"asks for the day before, and there is none: {FIX}"


def day_known(config: Config) -> Iterator[Finding]:
    """A run must be there to be yesterday's, and what is newest is no matter of chance."""
    day = config.yesterday
    if day is None:
        return
    if day.kind == "run":
        path = Path(day.path)
        if not (path / "report.json" if path.is_dir() else path).is_file():
            yield ("yesterday", "path"), f"no report at {day.path}: name the directory of a finished run's report"
    elif "seed" in day.model_fields_set and config.log.time is not None:
        yield ("yesterday", "seed"), "has no effect: the log has times, so that what it lacks is the newest"


def delta_possible(config: Config) -> Iterator[Finding]:
    """How far a teacher moved can be told of one whose scores are products of vectors."""
    if not isinstance(config.teacher.recipe, Delta):
        return
    at = ("teacher", "recipe")
    if not config.distill:
        yield at, "has no effect without distill: a delta is what a student is taught; leave it out"
    if config.teacher.model.kind == "ranker":
        yield at, "needs a teacher whose scores are products of vectors: take an encoder, or another recipe"
    if config.teacher.folds:
        yield ("teacher", "folds"), "not with recipe delta, which is of one model: leave it out"
    if config.labels.trajectory:
        reason = "not with recipe delta, whose labels are not along one training: leave it out"
        yield ("labels", "trajectory"), reason


def student_carried(config: Config) -> Iterator[Finding]:
    """A turn must leave alone what is a student of its own."""
    student = config.student
    if student.axes == "yesterday" and student.widths:
        reason = "would mix the first numbers of a vector, a student of their own (stages or nested), with the others"
        yield ("student", "axes"), f"{reason}: leave one of the two out"


def teacher_carried(config: Config) -> Iterator[Finding]:
    """A teacher can begin where yesterday's ended if it is one training, and a row of it is an id's."""
    if config.teacher.start == "yesterday" and not config.teacher.moves:
        reason = "is of a teacher that is one training of an mf, two_tower, lightgcn or sequence, without folds and"
        yield ("teacher", "start"), f"{reason} with no recipe but delta: leave it out"


def warm_used(config: Config) -> Iterator[Finding]:
    """What changes for a training that begins at yesterday's is of use where one does."""
    nightly = config.daily is not None and config.daily.start == "champion"
    sides = {"teacher": config.teacher, "student": config.student}
    for name, side in sides.items():
        if side.warm is not None and side.start != "yesterday" and not nightly:
            yield (name, "warm"), f"has no effect: it is of a {name} with start: yesterday; leave it out"
    warm, rounds = config.student.warm, getattr(config.labels.transfer, "rounds", 1)
    if warm is not None and config.student.stages:
        yield ("student", "warm"), "not with student.stages, which are parts of a whole training: leave one of them out"
    for i, term in enumerate(config.distill):
        if warm is not None and term.phase.start >= warm.epochs:
            yield ("distill", i, "phase"), f"never counts in a training of student.warm.epochs, {warm.epochs}"
    if warm is not None and warm.epochs < rounds:
        yield ("student", "warm", "epochs"), f"{warm.epochs} cannot be cut into labels.transfer.rounds, {rounds} parts"


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (day_given, day_known, delta_possible, student_carried)
CHECKS += (teacher_carried, warm_used)
