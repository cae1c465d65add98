"""The day before as stages: its log, what its models left, the target they give, and what a refresh changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.distill.spec import LabelsSpec
from recdistill.measure import Judged
from recdistill.models.recipe import Delta, Teacher, TeacherSpec
from recdistill.models.spec import Fitted
from recdistill.report import ReportSpec
from recdistill.stages import Data, Run
from recdistill.store import Step, write_text
from recdistill.types import Artifact, Float
from recdistill.yesterday_spec import PartOfToday

REFRESH = "refresh.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The models of the day before, and what they were fitted to."""

    data: Data
    student: Fitted
    scratch: Fitted
    teacher: Fitted | None = None  # where it is one encoder

    def inputs(self) -> dict[str, str]:
        """Return the fingerprints that what is left of that day depends on."""
        models = {"student": self.student, "scratch": self.scratch, "teacher": self.teacher}
        found = {f"before-{name}": fingerprint for name, fingerprint in self.data.inputs.items()}
        return found | {f"before-{name}": one.artifact.fingerprint for name, one in models.items() if one is not None}


def encoder_of(spec: TeacherSpec, teacher: Teacher) -> Fitted | None:
    """Return the one encoder that `teacher` is, before a calibration moves its scores; None of any other teacher.

    What a refresh follows is that model, whose scores a recipe of kind delta only moves the student's by.
    """
    alone = spec.recipe is None or isinstance(spec.recipe, Delta)
    one = alone and len(teacher.models) == 1 and not teacher.folds and not teacher.ranks
    return teacher.models[0] if one else None


def earlier(data: Data, spec: PartOfToday, run: Run) -> Data:
    """Data -> the same without the interactions that came since; the validation and test parts stay."""

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.data.earlier import write_earlier

        return write_earlier(data.divided.path, out, lacks=spec.lacks, seed=spec.seed)

    step = Step("earlier", 1, {"lacks": spec.lacks, "seed": spec.seed}, data.inputs)
    return Data(data.ingested, run.build(step, work))


def remember(data: Data, before: Before, run: Run, *, moves: Sequence[str] = ()) -> Artifact:
    """What a day left -> its vectors, tables and teacher's scores in today's rows, by ids.

    `moves` names whose weights are left too, teacher or student, for today's to begin with.
    """

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.yesterday import write_yesterday

        was = before.data.read()
        said = None if before.teacher is None else _vectors(before.teacher, was)
        models = {"student": before.student, "scratch": before.scratch}
        left = {name: one for name in moves if (one := getattr(before, name)) is not None}
        return write_yesterday(data.read(), was, teacher=said, out=out, moves=left, **models)

    config: dict[str, Any] = {"student": before.student.spec} | ({"moves": list(moves)} if moves else {})
    return run.build(Step("yesterday", 1, config, data.inputs | before.inputs()), work)


def delta(data: Data, one: Fitted, yesterday: Artifact, spec: Delta, labels: LabelsSpec, run: Run) -> Artifact:
    """Today's encoder and what the day before left -> a recipe with vectors of its own, by which the teacher speaks."""

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.delta import write_delta
        from recdistill.yesterday import open_yesterday

        dataset, left = data.read(), open_yesterday(yesterday.path)
        how = {"alpha": spec.alpha, "calibration": labels.calibration}
        return write_delta(dataset, _vectors(one, dataset), left, out, **how)

    inputs = data.inputs | {"teacher-0": one.artifact.fingerprint, "yesterday": yesterday.fingerprint}
    config = {"kind": spec.kind, "alpha": spec.alpha, "calibration": labels.calibration}
    return run.build(Step("recipe", 1, config, inputs), work)


def refresh(
    data: Data, judged: Judged, encoder: Fitted | None, yesterday: Artifact, report: ReportSpec, run: Run
) -> Artifact:
    """Today's models and what the day before left -> how much of the lists changed, and which vectors still meet."""
    models = {"scratch": judged.scratch, "student": judged.student}

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.refresh import Today, measured
        from recdistill.yesterday import open_yesterday

        dataset = data.read()
        today = Today(
            student=_served(judged.student),
            scratch=_served(judged.scratch),
            teacher=None if encoder is None else _vectors(encoder, dataset),
        )
        found = measured(dataset, today, open_yesterday(yesterday.path), report.k)
        write_text(out / REFRESH, json.dumps(found, indent=1, allow_nan=False))
        return {"users": found["users"], "items": found["items"]}

    inputs = {f"{name}-{i}": m.artifact.fingerprint for name, each in models.items() for i, m in enumerate(each)}
    inputs |= {"yesterday": yesterday.fingerprint}
    inputs |= {"teacher": encoder.artifact.fingerprint} if encoder is not None else {}
    return run.build(Step("refresh", 1, {"k": report.k}, data.inputs | inputs), work)


def _vectors(fitted: Fitted, dataset: Any) -> tuple[Float, Float]:
    """Return vectors of an encoder whose inner products are its scores."""
    from recdistill.data.sequences import Sequences
    from recdistill.members import ready

    found = ready(fitted.spec, fitted.artifact.path, dataset, Sequences.of(dataset.train)).vectors
    assert found is not None, "an encoder has vectors"
    return found


def _served(models: Sequence[Fitted]) -> list[Any]:
    """Return the vectors that each encoder left behind its training."""
    import numpy as np

    from recdistill.types import Vectors

    found = []
    for one in models:
        sides = {side: np.load(one.artifact.path / f"{side}.npy", mmap_mode="r") for side in ("users", "items")}
        spec: Any = one.spec
        found.append(Vectors(**sides, space=spec.space))
    return found
