"""The whole path once: from a raw interaction log to a promoted student. Read `path` from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.assembled import Everything
from pipelines.release import release
from pipelines.rounds import Source, learn
from pipelines.teach import teach, told
from pipelines.yesterday import remembered
from recdistill import __version__, stages, yesterday_stages
from recdistill.agree import agree
from recdistill.causes import fix_of
from recdistill.config import Config
from recdistill.deferral import defer
from recdistill.errors import ConfigError, RecdistillError, StageError
from recdistill.measure import Judged
from recdistill.models.spec import Fitted
from recdistill.results import Release
from recdistill.signing import ready
from recdistill.spec import fingerprint
from recdistill.spoil import Spoil
from recdistill.stages import Data, Run
from recdistill.surface.stages import surface as measure_surface
from recdistill.types import Artifact
from recdistill.yamlfile import dotted

DATA = ("ingest", "split")  # the stages that need no torch
NAMES = (*DATA, "scratch", "yesterday", "teacher", "labels", "rounds", "student", "index", "defer")
ENDS = ("judge", "promote")  # what comes of what was measured
NAMES += ("evaluate", "refresh", "latency", "surface", *ENDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One stage of a run: its name, and each of its artifacts (one, unless several models make it)."""

    name: str
    artifacts: Sequence[Artifact]
    judged: Judged | None = None  # all models, once they are there


def path(config: Config, run: Run, spoil: Spoil | None = None) -> Iterator[Made | Everything]:
    """Yield each stage as it is done, at the end everything together; arrows only point right.

    All models learn from data that is spoilt as `spoil` says, if it says something.
    """
    if config.daily is not None and config.log.window is None:
        fix = "say which day, as in `run CONFIG --partition 2026-11-20`, or leave daily out"
        raise ConfigError("the configuration is one of nights, each of its own days", where="daily", fix=fix)
    if run.world.size > 1:
        _divides(config, run.world.size)
        agree(run.store, run.world, _meant(config))
    how = config.exec
    log = stages.ingest(config.log, config.features, run)
    yield Made(name="ingest", artifacts=[log])

    data = replace(stages.split(log, config.split, run), spoil=spoil)
    yield Made(name="split", artifacts=[data.divided])

    student = config.student
    trains = [student.train.model_copy(update={"seed": seed}) for seed in student.all_seeds]
    scratch = [stages.fit(data, student.model, t, how, run, name=f"scratch, seed {t.seed}") for t in trains]
    yield Made(name="scratch", artifacts=scratch)
    plain = [Fitted(student.model, artifact) for artifact in scratch]

    day, before = remembered(config, data, run)
    if before:
        yield Made(name="yesterday", artifacts=before)

    teacher, taught = teach(config, data, plain[0], run, day)
    if taught:
        yield Made(name="teacher", artifacts=taught)

    labels = None
    if config.distill or teacher.external is not None:
        labels = stages.label(data, teacher, plain[0], config.labels, run)
        yield Made(name="labels", artifacts=[labels])

    source = Source(teacher, plain[0], labels, day)
    learned = [learn(config, data, source, t, run, name="student") for t in trains]
    if between := [artifact for made in learned for artifact in made[:-1]]:
        yield Made(name="rounds", artifacts=between)
    fitted = [made[-1] for made in learned]
    yield Made(name="student", artifacts=fitted)
    distilled = [Fitted(student.model, artifact) for artifact in fitted]

    index = stages.index(data, distilled[0], config.index, run)
    more = {"candidates": config.labels, "widths": student.widths, "yesterday": day}
    judged = Judged(teacher=teacher, scratch=plain, student=distilled, labels=labels, index=index, **more)
    yield Made(name="index", artifacts=[index], judged=judged)
    deferred = None
    if config.defer is not None:
        deferred = defer(data, judged, config.defer, config.report, run)
        yield Made(name="defer", artifacts=[deferred])
    yield from _measured(config, data, judged, deferred, run)


def _measured(
    config: Config, data: Data, judged: Judged, deferred: Artifact | None, run: Run
) -> Iterator[Made | Everything]:
    """Yield what is measured of the models, and at the end everything together."""
    evaluated = stages.evaluate(data, judged, config.report, run)
    yield Made(name="evaluate", artifacts=[evaluated])
    refreshed = None
    if (day := judged.yesterday) is not None:
        encoder = yesterday_stages.encoder_of(config.teacher, judged.teacher)
        refreshed = yesterday_stages.refresh(data, judged, encoder, day, config.report, run)
        yield Made(name="refresh", artifacts=[refreshed])
    timed = stages.latency(data, judged, config.report.k[0], config.latency, run)
    yield Made(name="latency", artifacts=[timed])
    surface = None
    if config.surface is not None:
        surface = measure_surface(data, judged, config.surface, config.index, config.report, evaluated, timed, run)
        yield Made(name="surface", artifacts=[surface])
    also = {"deferred": deferred, "refreshed": refreshed, "surface": surface}
    yield Everything(data=data, judged=judged, evaluated=evaluated, timed=timed, **also)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did."""

    name: str
    made: Sequence[Made]
    report: Path | None = None
    release: Release | None = None
    shown: str = ""  # the report as terminal tables

    def summary(self) -> dict[str, Any]:
        """Return the run for a scheduler, as JSON values."""
        from dataclasses import asdict

        return {
            "name": self.name,
            "stages": stage_rows(self.made),
            "report": None if self.report is None else str(self.report / "report.html"),
            "release": None if self.release is None else asdict(self.release),
        }

    def text(self) -> str:
        """Return the run for a person."""
        rows = stage_rows(self.made)
        found = sum(row["hit"] for row in rows)
        lines = [self.shown, *(told(step.artifacts) for step in self.made if step.name == "teacher")]
        lines.append(f"stages: {len(rows)}, {found} found done, {len(rows) - found} built")
        if self.report is not None:
            lines.append(f"report: {self.report / 'report.html'}")
        if self.release is not None:
            alias = self.release.alias or "does not serve"
            lines.append(f"model:  {self.release.uri} (version {self.release.version}, {alias})")
        return "\n".join(line for line in lines if line)


def distill(
    config: Config, run: Run, *, until: str | None = None, command: str = "", night: Mapping[str, Any] | None = None
) -> Outcome:
    """Run the path to its end, or to the stage `until`; collective. `night` is what was decided of one.

    Of a stage that this run lacks the next one is the last. `judge` is everything but the promotion: the student is
    registered with its verdict.

    Raises GateRejected if the student is registered but may not serve. What fails otherwise is raised as it is when
    it names its cause itself, else as a StageError that says which stage it was.
    """
    _known(until)
    if config.registry is not None:
        run.world.share(partial(ready, config.registry.sign, config.registry.trust))
    made: list[Made] = []
    everything = None
    steps = path(config, run)
    while everything is None:
        try:
            step = next(steps)
        except RecdistillError:
            raise
        except Exception as cause:
            raise _failed(f"the stage after {made[-1].name}" if made else "the first stage", cause) from cause
        if isinstance(step, Everything):
            everything = step
        else:
            made.append(step)
            if until is not None and NAMES.index(step.name) >= NAMES.index(until):
                break
    outcome = Outcome(name=config.name, made=made)
    if everything is None or (until is not None and until not in ENDS):
        return outcome
    rows, serve = stage_rows(made), until != "judge"
    try:
        done = run.world.share_local(lambda: release(config, run, everything, rows, command, night, serve=serve))
    except RecdistillError:
        raise
    except Exception as cause:
        raise _failed("the report and the registry", cause) from cause
    return outcome if done is None else replace(outcome, report=done.report, release=done.release, shown=done.shown)


def _failed(where: str, cause: Exception) -> StageError:
    return StageError(f"{type(cause).__name__}: {cause}", where=where, fix=fix_of(cause))


def plan(config: Config) -> list[dict[str, Any]]:
    """Return each stage with its fingerprint, path and state (hit, partial, miss); builds nothing."""
    run = Run(store=Path(config.exec.store), dry=True)
    rows = []
    for made in path(config, run):
        if isinstance(made, Everything):
            break
        for i, artifact in enumerate(made.artifacts):
            rows.append(
                {
                    "stage": _label(made, i),
                    "state": artifact.manifest.facts["state"],
                    "fingerprint": artifact.fingerprint,
                    "path": str(artifact.path),
                }
            )
    return rows


def stage_rows(made: Sequence[Made]) -> list[dict[str, Any]]:
    """Return one row an artifact: what it is, what it cost when it was built, whether this run found it."""
    return [
        {
            "stage": _label(step, i),
            "fingerprint": artifact.fingerprint,
            "seconds": artifact.manifest.seconds,
            "hit": artifact.hit,
        }
        for step in made
        for i, artifact in enumerate(step.artifacts)
    ]


def _label(made: Made, i: int) -> str:
    return made.name if len(made.artifacts) == 1 else f"{made.name}-{i + 1}"


def _known(until: str | None) -> None:
    if until is not None and until not in NAMES:
        near = get_close_matches(until, NAMES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no stage {until!r}", where="--until", fix=f"{hint}the stages are {', '.join(NAMES)}")


def _meant(config: Config) -> str:
    """Return what names a run on all machines alike, wherever each of them has its store."""
    same = config.model_dump(mode="json", exclude={"exec": {"store", "mlflow", "threads"}})
    return fingerprint("run", 0, same, {"version": __version__})


def _divides(config: Config, size: int) -> None:
    """Every rank takes as many rows of a batch, or the curve would depend on how many ranks there are."""
    trains = {("teacher", *at): train for at, _, train in config.teacher.trained()}
    for section, train in {("student",): config.student.train, **trains}.items():
        for name in ("batch", "list_users"):
            if getattr(train, name) % size:
                at = dotted((*section, "train", name))
                what = f"{at} is {getattr(train, name)}, which {size} processes cannot share evenly"
                raise ConfigError(what, where="torchrun", fix=f"make it a multiple of {size}")
