"""What a training is taught by: the labels, the terms, and who learns beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recdistill.distill.schedule import Part
from recdistill.distill.spec import ListTermSpec, TermSpec
from recdistill.distill.spec_draws import Trajectory
from recdistill.guide import Ask, Guide, Rungs, Walk
from recdistill.models.spec import GuideSpec, LadderSpec, ModelSpec, SelectSpec, StageSpec, StudentSpec
from recdistill.types import Dataset, Labels
from recdistill.world import World
from recdistill.yesterday import Yesterday


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """Everything that sets a distilled student apart from its scratch twin."""

    terms: Sequence[TermSpec]
    labels: Labels | None = None
    guide: GuideSpec = field(default_factory=GuideSpec)
    partner: ModelSpec | None = None
    task: float = 1.0  # weight of the student's own loss
    start: Literal["random", "teacher", "yesterday"] = "random"  # what the student's tables begin with
    items: Literal["learned", "folded"] = "learned"  # which items of the student's serve
    stages: Sequence[StageSpec] = ()  # in which not everything of the student learns
    select: SelectSpec | None = None  # what turns terms on and off
    ladder: LadderSpec | None = None  # how the users whose lists are compared become fewer
    axes: Literal["own", "yesterday"] = "own"  # in which the vectors serve
    yesterday: Yesterday | None = None


def teaching_of(
    student: StudentSpec | None, terms: Sequence[TermSpec], labels: Labels, yesterday: Yesterday | None = None
) -> Teaching:
    """Return what `student` is taught by; a model that is none, such as an assistant, by terms and labels alone."""
    if student is None:
        return Teaching(terms=terms, labels=labels)
    return Teaching(
        terms=terms,
        labels=labels,
        guide=student.guide,
        partner=student.partner,
        task=student.task,
        start=student.start,
        items=student.items,
        stages=student.stages,
        select=student.select,
        ladder=student.ladder,
        axes=student.axes,
        yesterday=yesterday,
    )


def parts(teaching: Teaching | None, epochs: int, dim: int) -> list[Part]:
    """Return the parts of a training of so many epochs in which not everything of a student `dim` wide learns."""
    found, gone, wide = list[Part](), 0.0, 0
    for stage in () if teaching is None else teaching.stages:
        gone = epochs if stage.epochs is None else gone + stage.epochs
        moves = {side: side in stage.moves for side in ("users", "items")}
        upto = stage.width or dim
        columns = (wide, upto) if wide or upto < dim else None
        wide = upto if stage.width else wide
        found.append(Part(until=gone / epochs, task=stage.task, columns=columns, **moves))
    return found


def actor_of(teaching: Teaching | None, seed: int) -> dict[str, Any] | None:
    """Return what the actor that selects rows is made of, None where there is none."""
    if teaching is None or teaching.select is None:
        return None
    return {"every": teaching.select.every, "rate": teaching.select.rate, "seed": seed}


def make_guide(
    teaching: Teaching,
    dataset: Dataset,
    out: Path,
    world: World,
    ask: Ask,
    steps_per_epoch: int,
    temperature: float = 1.0,
) -> Guide | None:
    """Return what keeps the student's lists up to date, None where nobody follows them.

    `temperature` is what the student's products are divided by to be its scores.
    """
    guided = [term for term in teaching.terms if follows(term)]
    if not guided and teaching.ladder is None:
        return None
    rungs = None
    if teaching.ladder is not None:
        rungs = Rungs(keep=teaching.ladder.keep, steps=teaching.ladder.steps, temperature=temperature)
    by_item = any(isinstance(term, ListTermSpec) and term.side == "items" for term in guided)
    draws = [draw for term in guided if isinstance(term, ListTermSpec) for draw in term.draw]
    walk = next((draw for draw in draws if isinstance(draw, Trajectory)), None)
    return Guide(
        out=out,
        world=world,
        ask=ask,
        train=dataset.train,
        depth=teaching.guide.depth,
        every=teaching.guide.refresh * steps_per_epoch,
        item_depth=teaching.guide.depth if by_item else 0,
        labels=teaching.labels,
        rungs=rungs,
        follows=bool(guided),
        walk=None if walk is None else Walk(k=walk.k, alpha=walk.alpha, decay=walk.decay, every=walk.every),
    )


def follows(term: TermSpec) -> bool:
    """Say whether a draw of `term` reads what the student ranks first, or the partner that stands for the labels."""
    if not isinstance(term, ListTermSpec):
        return False
    wanted = {"student"} if term.teacher == "labels" else {"student", "labels"}
    return any(wanted & set(draw.reads) for draw in term.draw)
