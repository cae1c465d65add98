"""Methods x widths x losses x seeds on one log: cells -> fits -> judged -> rows. Read `sweep` from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.rounds import Source, twin
from pipelines.sweep_cells import Asked, Cell, cells, filled
from pipelines.sweep_fits import Made, Piece, make, reason, shown
from pipelines.sweep_judge import judge_teacher
from pipelines.sweep_table import Factors, Settings, Tried, best, rows
from pipelines.teach import teach
from pipelines.yesterday import needed
from recdistill import stages
from recdistill.config import Config
from recdistill.errors import ConfigError, StageError
from recdistill.models.spec import Fitted
from recdistill.stages import Data, Run
from recdistill.types import Artifact, Log
from recdistill.world import world


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A cell with the labels that its method learns from, or why it cannot be tried."""

    cell: Cell
    source: Source | None = None
    teacher: Artifact | None = None  # what its teacher recommends
    why: str = ""

    def pieces(self, data: Data, seeds: Sequence[int], factor: float, *, judged: bool) -> list[Piece]:
        """Return one training a seed; none of what cannot be tried."""
        if self.source is None:
            return []
        return _pieces(self.cell, data, seeds, source=self.source, factor=factor, judged=judged)


def sweep(asked: Asked, log: Log) -> dict[str, Any]:
    """Train and measure all that is asked; returns the settings and one row a model, as JSON values.

    A killed sweep goes on where it was: every training and measurement is an artifact. Raises ConfigError if the file
    is wrong without any method, StageError if a scratch student fails, without which a method's figures say nothing.
    """
    asked = filled(asked)
    scratch, tried = cells(asked)
    base = scratch[0].config
    assert base is not None  # cells has raised otherwise
    tick = _ticker(asked, len(scratch), len(tried), log)
    with world(device=base.exec.device, threads=base.exec.threads) as joined:
        if joined.size > 1:
            raise ConfigError("a sweep does not run under torchrun", where="usage", fix="use --jobs")
        run = Run(store=Path(base.exec.store), world=joined, log=shown(log))
        data = stages.split(stages.ingest(base.log, base.features, run), base.split, run)

        twins = _scratches(asked, scratch, data, run, tick)
        teacher = _teacher(base, data, twins[0], run)

        known = {(twin.dim, twin.loss): twin for twin in twins}
        lessons = [_labelled(cell, data, known[cell.dim, cell.loss], run, tick) for cell in tried]
        factors = _tuned(asked, lessons, data, run, tick)
        lessons, factors, settings = _chosen(lessons, factors)
        made = _finals(asked, lessons, factors, data, run, tick)

    found = [
        replace(_tried(lesson.cell, each, factor, setting), teacher=lesson.teacher)
        for lesson, each, factor, setting in zip(lessons, made, factors, settings, strict=True)
    ]
    log("sweep", tick.total, tick.total, {})
    count = [one.fit.hit for each in (*twins, *found) for one in each.made if one.fit is not None]
    told = {"file": str(asked.file), "name": base.name, "teacher": base.teacher.model_dump(mode="json")}
    return {
        **told,
        "asked": {
            "sets": asked.sets,
            "seeds": asked.seeds,
            "tune": asked.tune,
            "methods": asked.methods,
            "students": asked.students,
            "against": asked.against,
        },
        "k": base.report.k,
        "found": sum(count),
        "built": len(count) - sum(count),
        "rows": rows(twins, found, teacher, base.report, asked.against),
    }


def _pieces(cell: Cell, data: Data, seeds: Sequence[int], **how: Any) -> list[Piece]:
    assert cell.config is not None
    name, taught = f"{cell.method or 'scratch'}, {cell.loss}, {cell.dim}", cell.method is not None
    return [Piece(name=name, config=cell.config, data=data, seed=seed, taught=taught, **how) for seed in seeds]


def _scratches(asked: Asked, scratch: Sequence[Cell], data: Data, run: Run, tick: Ticker) -> list[Tried]:
    """Return the scratch students, one a loss and width, each with the settings that suit it best."""
    settings = dict[tuple[Any, ...], Settings]()
    if len(asked.students) > 1:
        pieces = [p for cell in scratch for p in _pieces(cell, data, asked.seeds[:1], judged=False)]
        for cell, one in zip(scratch, make(pieces, run, asked.jobs, tick), strict=True):
            settings.setdefault(cell.place, {})[cell.student] = one.valid
        scratch = [cell for cell in scratch if cell.student == best(settings[cell.place])]
    made = make([p for cell in scratch for p in _pieces(cell, data, asked.seeds)], run, asked.jobs, tick)
    for one in made:
        if one.fit is None:
            raise StageError(f"a scratch student failed: {one.reason}", where="sweep")
    each = len(asked.seeds)
    parts = [made[i * each : (i + 1) * each] for i in range(len(scratch))]
    return [
        _tried(cell, part, {1.0: None}, settings.get(cell.place, {cell.student: None}))
        for cell, part in zip(scratch, parts, strict=True)
    ]


def _teacher(config: Config, data: Data, scratch: Tried, run: Run) -> Artifact:
    """Return how good the teacher is that the file describes."""
    plain = Fitted(config.student.model, scratch.fits[0])
    teacher, _ = teach(config, data, plain, run, needed(config, data, run))
    labels = stages.label(data, teacher, plain, config.labels, run) if teacher.external is not None else None
    return judge_teacher(data, teacher, plain, labels, config, run)


def _labelled(cell: Cell, data: Data, scratch: Tried, run: Run, tick: Ticker) -> Lesson:
    """Return a method with its labels, which others may have had written; its teacher is taught if it has its own."""
    if cell.config is None:
        return Lesson(cell=cell, why=cell.why)
    try:
        plain = twin(cell.config, data, scratch.fits[0], run)
        day = needed(cell.config, data, run)
        teacher, _ = teach(cell.config, data, plain, run, day)
        labels = stages.label(data, teacher, plain, cell.config.labels, run)
        judged = judge_teacher(data, teacher, plain, labels, cell.config, run)
    except Exception as error:
        return Lesson(cell=cell, why=reason(error))
    tick(f"labels for {cell.method}", None)
    return Lesson(cell=cell, source=Source(teacher, plain, labels, day), teacher=judged)


def _tuned(asked: Asked, lessons: Sequence[Lesson], data: Data, run: Run, tick: Ticker) -> list[Factors]:
    """Return for each cell the validation NDCG@10 of the first seed at each factor; a single factor is not judged."""
    found: list[Factors] = [dict.fromkeys(asked.tune) for _ in lessons]
    if len(asked.tune) * len(asked.students) == 1:
        return found
    at, pieces = list[tuple[int, float]](), list[Piece]()
    for i, lesson in enumerate(lessons):
        for factor in asked.tune:
            more = lesson.pieces(data, asked.seeds[:1], factor, judged=False)
            at, pieces = at + [(i, factor)] * len(more), pieces + more
    for (i, factor), made in zip(at, make(pieces, run, asked.jobs, tick), strict=True):
        found[i][factor] = made.valid
    return found


def _chosen(
    lessons: Sequence[Lesson], factors: Sequence[Factors]
) -> tuple[list[Lesson], list[Factors], list[Settings]]:
    """Return of each method, loss and width the lesson whose settings do best in validation, and what all did."""
    groups = dict[tuple[Any, ...], list[tuple[Lesson, Factors]]]()
    for lesson, factor in zip(lessons, factors, strict=True):
        groups.setdefault(lesson.cell.place, []).append((lesson, factor))
    kept, own, settings = list[Lesson](), list[Factors](), list[Settings]()
    for group in groups.values():
        told: Settings = {lesson.cell.student: factor[best(factor)] for lesson, factor in group}
        at = next(i for i, (lesson, _) in enumerate(group) if lesson.cell.student == best(told))
        kept, own, settings = [*kept, group[at][0]], [*own, group[at][1]], [*settings, told]
    return kept, own, settings


def _finals(
    asked: Asked, lessons: Sequence[Lesson], factors: Sequence[Factors], data: Data, run: Run, tick: Ticker
) -> list[list[Made]]:
    """Return for each cell what came of every seed at its best factor."""
    each = [
        lesson.pieces(data, asked.seeds, best(factor), judged=True)
        for lesson, factor in zip(lessons, factors, strict=True)
    ]
    made = iter(make([piece for pieces in each for piece in pieces], run, asked.jobs, tick))
    return [
        [next(made) for _ in pieces] or [Made(reason=lesson.why)] for lesson, pieces in zip(lessons, each, strict=True)
    ]


def _tried(cell: Cell, made: Sequence[Made], factors: Factors, settings: Settings) -> Tried:
    own = {"student": cell.student, "settings": settings}
    return Tried(method=cell.method, dim=cell.dim, loss=cell.loss, made=made, factors=factors, **own)


class Ticker:
    """Counts what is done of a sweep and logs it."""

    def __init__(self, total: int, log: Log) -> None:
        self.done, self.total, self.log = 0, total, log
        log("sweep", 0, total, {})

    def __call__(self, name: str, valid: float | None) -> None:
        self.done += 1
        self.log("sweep", min(self.done, self.total - 1), self.total, {} if valid is None else {name: valid})


def _ticker(asked: Asked, scratch: int, tried: int, log: Log) -> Ticker:
    settings = len(asked.students)
    tuned = settings * len(asked.tune) > 1
    once = len(asked.seeds) * (scratch + tried) // settings + tried + tuned * tried * len(asked.tune)
    return Ticker(once + (scratch if settings > 1 else 0), log)
