"""The day before of a run: a run that is finished, or the same trainings on a part of today's log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.teach import teach
from recdistill import stages, yesterday_stages
from recdistill.config import Config
from recdistill.errors import ConfigError
from recdistill.models.recipe import Delta
from recdistill.models.spec import Fitted
from recdistill.stages import Data, Run
from recdistill.types import Artifact
from recdistill.yesterday_spec import PartOfToday
from recdistill.yesterday_stages import Before


def remembered(config: Config, data: Data, run: Run) -> tuple[Artifact | None, list[Artifact]]:
    """Return what the day before of `config` left, None without one, and every artifact made for it; collective.

    Raises ConfigError if today's student cannot begin or end where that day's did.
    """
    spec = config.yesterday
    if spec is None:
        return None, []
    if isinstance(spec, PartOfToday):
        before, made = _trained(config, yesterday_stages.earlier(data, spec, run), run)
    else:
        from recdistill.yesterday_run import finished

        before, made = finished(Path(spec.path), run.store), list[Artifact]()
    fits(config, before)
    teacher, student = config.teacher.start == "yesterday", config.student.start == "yesterday"
    dense = student and config.student.model.kind != "mf"  # of which the tables are not all
    moves = [name for name, each in (("teacher", teacher), ("student", dense)) if each]
    left = yesterday_stages.remember(data, before, run, moves=moves)
    return left, [*made, left]


def needed(config: Config, data: Data, run: Run) -> Artifact | None:
    """Return what the day before left where a training of `config` depends on it, else None; collective."""
    moves = config.teacher.start == "yesterday" or isinstance(config.teacher.recipe, Delta)
    depends = config.student.remembers or moves
    return remembered(config, data, run)[0] if depends else None


def _before(config: Config) -> Config:
    """Return the configuration of the day before, which remembers no day; its student is the one that is served."""
    student, teacher = config.student, config.teacher
    train = student.train.model_copy(update={"seed": student.all_seeds[0]})
    start = "random" if student.start == "yesterday" else student.start
    own = {"train": train, "seeds": (), "start": start, "axes": "own"}
    its = {"recipe": None if isinstance(teacher.recipe, Delta) else teacher.recipe, "start": "random"}
    update = {"student": student.model_copy(update=own), "teacher": teacher.model_copy(update=its)}
    return config.model_copy(update=update | {"yesterday": None})


def _trained(config: Config, data: Data, run: Run) -> tuple[Before, list[Artifact]]:
    """Return the models of the day before, trained on `data`, and all that was made for them."""
    was, how = _before(config), config.exec
    # These labels are a step on the way: nobody shares them out.
    alone = replace(run, share=None, finalize=False)
    student = was.student
    scratch = stages.fit(data, student.model, student.train, how, run, name="yesterday's scratch")
    plain = Fitted(student.model, scratch)
    teacher, taught = teach(was, data, plain, alone)
    made = [data.divided, scratch, *taught]
    labels = None
    if was.distill:
        labels = stages.label(data, teacher, plain, was.labels, alone)
        made.append(labels)
    name, more = "yesterday's student", {"labels": labels, "terms": was.distill, "student": student}
    fit = stages.fit(data, student.model, student.train, how, run, name=name, **more)
    made += [fit] if was.distill else []
    fitted, encoder = Fitted(student.model, fit), yesterday_stages.encoder_of(was.teacher, teacher)
    return Before(data=data, student=fitted, scratch=plain, teacher=encoder), made


def fits(config: Config, before: Before) -> None:
    """Raise ConfigError where today's student or teacher asks for what that day's does not have."""
    today, was = config.student.model, before.student.spec
    needs = {"start": ("kind", "dim", "space", "hidden"), "axes": ("dim",)}
    for name in (n for n in needs if getattr(config.student, n) == "yesterday"):
        for part in needs[name]:
            mine, theirs = getattr(today, part, None), getattr(was, part, None)
            if mine != theirs:
                what = f"student.model.{part} is {mine} today, and was {theirs} on the day before"
                fix = f"give both the same, or leave student.{name} out"
                raise ConfigError(what, where=f"student.{name}", fix=fix)
    if config.teacher.start == "yesterday" and (before.teacher is None or before.teacher.spec != config.teacher.model):
        was = "no single encoder" if before.teacher is None else f"another model: {before.teacher.spec!r}"
        what = f"the teacher of the day before is {was}, so that today's cannot begin where it ended"
        raise ConfigError(what, where="teacher.start", fix="give both the same model, or leave teacher.start out")
    if isinstance(config.teacher.recipe, Delta) and before.teacher is None:
        what = "the teacher of the day before is no single encoder, so nothing tells how far the teacher moved"
        raise ConfigError(what, where="teacher.recipe", fix="take a day before whose teacher is one, or another recipe")
