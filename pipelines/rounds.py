"""How a student comes to be: one training, or rounds of one that each learn from labels made against the last."""

from __future__ import annotations

from dataclasses import dataclass

from recdistill import stages
from recdistill.config import Config
from recdistill.distill.spec_transfer import Flips
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted, TrainSpec
from recdistill.stages import Data, Run
from recdistill.types import Artifact


@dataclass(frozen=True, slots=True)
class Source:
    """Who writes labels, the scratch student that some are made against, and the labels that a student begins with."""

    teacher: Teacher
    scratch: Fitted
    labels: Artifact | None
    yesterday: Artifact | None = None  # what the day before left, for a student that remembers it


def learn(config: Config, data: Data, source: Source, train: TrainSpec, run: Run, *, name: str) -> list[Artifact]:
    """Return the distilled student, last, after the rounds that led to it: their trainings and labels; collective.

    A round is a part of one training over all epochs of `train`: the first learns from the labels of `source`, each
    other from what its teacher says of histories that were made against the student of the round before, since that
    one has moved (Jafari, Rezagholizadeh and Ghodsi, arXiv 2301.12006). Without rounds it is the training alone.
    """
    train = config.student.taught(train)
    model, labels = config.student.model, source.labels
    made, after = list[Artifact](), None
    count = rounds(config)
    for k in range(count):
        if after is not None:
            who = source.teacher, source.scratch
            labels = stages.label(data, *who, config.labels, run, student=Fitted(model, after))
            made.append(labels)
        called = f"{name}, seed {train.seed}" + (f", round {k + 1} of {count}" if count > 1 else "")
        taught = {"labels": labels, "terms": config.distill, "student": config.student, "yesterday": source.yesterday}
        after = stages.fit(data, model, train, config.exec, run, name=called, **taught, after=after, part=(k, count))
        made.append(after)
    return made


def twin(config: Config, data: Data, scratch: Artifact, run: Run) -> Fitted:
    """Return the scratch student that labels are made against: that of `config` itself where they ask what it says.

    The `scratch` of a sweep is of the sweep's file, and a method may have a student of its own; where it does not, this
    is found done.
    """
    student = config.student
    if isinstance(config.labels.transfer, Flips):
        train = student.train.model_copy(update={"seed": student.all_seeds[0]})
        scratch = stages.fit(data, student.model, train, config.exec, run, name="its scratch student")
    return Fitted(student.model, scratch)


def rounds(config: Config) -> int:
    """Return into how many parts the student's training is cut."""
    transfer = config.labels.transfer
    return transfer.rounds if isinstance(transfer, Flips) and config.distill else 1
