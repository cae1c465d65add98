"""The command that looks into a finished run: what was handed over, to whom, and whether the gain is knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pipelines.commands import File, Method, Sets
from pipelines.console import Json, say
from recdistill.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from pipelines.assembled import Everything
    from recdistill.config import Config
    from recdistill.stages import Run
    from recdistill.types import Artifact


def diagnose(
    config: File,
    /,
    *,
    method: Method = None,
    sets: Sets = (),
    controls: Annotated[bool, Parameter(negative="--no-controls")] = True,
    tune: str | None = None,
    temperatures: str | None = None,
    robustness: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Say of a finished run what its student took from the teacher, who gains, and whether the gain is knowledge.

    Reads the run of the same CONFIG, --method and --set. Writes diagnosis.json, .md and .html, and shows it in the
    run's report. A diagnosis is found again like every artifact, as are the students that it trains.

    Parameters
    ----------
    controls
        Train what a gain is held against, each with all seeds of the run: label smoothing, KD-pt, another user's lists,
        the population mean. Without them the report says which gains are not controlled for.
    tune
        Factors of the terms' weights to train each control with, 1,0.1 if left out; that of the best validation NDCG@10
        of the first seed is kept, the first of equals. Each but the first costs one training a control.
    temperatures
        Of the teacher, separated by commas, at which further students are taught: they make the frontier of precision
        and recall. For terms that read scores.
    robustness
        Train teacher, scratch and student again, with all seeds, on logs with noise and with less of the tail, and
        say what distillation gains there: four times what the run took.
    """
    from pipelines.progress import progress
    from recdistill.config import load_config
    from recdistill.diagnosis.stages import TUNE
    from recdistill.stages import Run
    from recdistill.world import world

    found = load_config(config, sets, method)
    asked = {"tune": _numbers(tune, "--tune") or TUNE, "temperatures": _temperatures(temperatures)}
    if robustness:
        _teachable(found)
    _finished(found, config)
    with progress(json=json) as log, world(device=found.exec.device, threads=found.exec.threads) as joined:
        run = Run(store=Path(found.exec.store), world=joined, log=log)
        made, reports = diagnosed(found, run, controls=controls, robustness=robustness, **asked)
    read = _read(made)
    data = {"path": str(made.path), "hit": made.hit, "report": None if reports is None else str(reports)}
    say(data | {"diagnosis": read}, _text(made, read, reports), as_json=json)
    return 0


def diagnosed(
    config: Config,
    run: Run,
    *,
    controls: bool,
    tune: tuple[float, ...],
    temperatures: tuple[float, ...],
    robustness: bool = False,
) -> tuple[Artifact, Path | None]:
    """Return the diagnosis of a finished run, found or built, and its report, which shows it now; collective."""
    from recdistill.diagnosis import stages

    all_ = _everything(config, run)
    student, how = config.student, config.exec
    lessons = stages.Lessons(student=student, terms=config.distill, labels=config.labels, how=how)
    others = stages.beside(
        all_.data, all_.judged, lessons, run, controls=controls, tune=tune, temperatures=temperatures
    )
    missing = [t for t in temperatures if t not in others.temperatures]
    if missing:
        what = "no term of distill reads the labels' scores, so a temperature of the teacher changes nothing"
        raise ConfigError(what, where="--temperatures", fix="leave it out")
    robust = _robust(config, run, all_) if robustness else None
    made = stages.diagnose(all_.data, all_.judged, others, config.report, run, robust=robust)
    reports = run.world.share_local(lambda: _shown(config, run, all_))
    return made, reports


def _everything(config: Config, run: Run) -> Everything:
    """Return what a finished run left behind, all of it found."""
    from pipelines.assembled import Everything
    from pipelines.distill import path

    return next(step for step in path(config, run) if isinstance(step, Everything))


def _robust(config: Config, run: Run, all_: Everything) -> Artifact:
    """Return what the models of spoilt logs gain, which are found or built: the run itself, once for each log."""
    from dataclasses import replace

    from pipelines.distill import Made, path
    from recdistill.diagnosis.robust import GRID, Cell, robustness
    from recdistill.diagnosis.stages import measure
    from recdistill.diagnosis.words import spoil_words

    cells = [Cell(None, all_.judged)]
    for spoil in GRID:
        told = spoil_words(spoil.kind, spoil.fraction)

        def log(what: str, done: int, total: int, values: Mapping[str, float], told: str = told) -> None:
            run.log(f"{what} ({told})", done, total, values)

        steps = path(config, replace(run, log=log), spoil)
        judged = next(step.judged for step in steps if isinstance(step, Made) and step.judged is not None)
        cells.append(Cell(spoil, judged))
    return robustness(all_.data, cells, config.report, measure(config.report), run)


def _teachable(config: Config) -> None:
    """Raise ConfigError if nobody learns anew from a spoilt log."""
    what = ""
    if config.teacher.model.kind == "external":
        what = "the teacher is a file, which cannot learn from a spoilt log"
    elif not config.distill:
        what = "this run teaches nothing, so that there is no gain to look for on a spoilt log"
    if what:
        raise ConfigError(what, where="--robustness", fix="leave it out")


def _finished(config: Config, file: Path) -> None:
    """Raise ArtifactError if a stage of the run is not done: a diagnosis trains no student of the run."""
    from pipelines.distill import plan

    missing = [row["stage"] for row in plan(config) if row["state"] != "hit"]
    if missing:
        what = f"this run is not finished: there is no {', no '.join(missing)}"
        fix = f"`recdistill run {file}` with the same --method and --set first"
        raise ArtifactError(what, where=config.exec.store, fix=fix)


def _shown(config: Config, run: Run, all_: Everything) -> Path | None:
    """Show the diagnosis in the report that the run left, and return it; None where it is gone."""
    from pipelines.release import report_directory
    from recdistill.diagnosis.stages import found
    from recdistill.report import read_report, write_report

    out = report_directory(config, run, all_)
    if not (out / "report.json").is_file():
        return None
    write_report(read_report(out) | {"diagnosis": found(all_.data, all_.judged, run.store)}, out)
    return out / "report.html"


def _read(made: Artifact) -> dict[str, Any]:
    from recdistill.diagnosis.stages import FILE
    from recdistill.measure import read_json

    return read_json(made, FILE)


def _text(made: Artifact, read: dict[str, Any], report: Path | None) -> str:
    from recdistill.diagnosis.form import read as checked
    from recdistill.diagnosis.page import about
    from recdistill.diagnosis.words import findings

    d = checked(read)
    lines = [about(d), *(f"- {text}" for text in findings(d)), f"page:   {made.path / 'diagnosis.html'}"]
    return "\n".join(lines + ([] if report is None else [f"report: {report}"]))


def _temperatures(text: str | None) -> tuple[float, ...]:
    return tuple(t for t in _numbers(text, "--temperatures") if t != 1)  # which is the run's own


def _numbers(text: str | None, where: str) -> tuple[float, ...]:
    """Return the numbers that `text` lists; raises ConfigError unless all are above 0, each there once."""
    try:
        found = tuple(float(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        found = (0.0,)
    if any(not 0 < t < float("inf") for t in found) or len(set(found)) < len(found):
        fix = "write numbers above 0, each once, such as 0.5,2"
        raise ConfigError(f"{text!r} is no list of such numbers", where=where, fix=fix)
    return found
