"""A night's configuration: the window of its day, and where its trainings begin, which is decided once and kept."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock, Timeout

from pipelines.yesterday import fits
from recdistill import registry, stages, tracking
from recdistill.checks_daily import student_moves
from recdistill.config import Config
from recdistill.daily_drift import days_of, drift, items_since
from recdistill.daily_spec import DailySpec
from recdistill.data.window import window_until
from recdistill.errors import ArtifactError, ConfigError
from recdistill.models.recipe import Delta
from recdistill.signing import holds
from recdistill.spec import canonical, fingerprint
from recdistill.stages import Run
from recdistill.store import open_artifact, sha256, write_text
from recdistill.types import Artifact
from recdistill.yesterday_run import finished
from recdistill.yesterday_spec import FinishedRun
from recdistill.yesterday_stages import Before

Night = Mapping[str, Any]  # what was decided, as it lies on disk
DECISION = "decision.json"
REPORT = "report_sha256"  # in it, of the report of the base
SIDES = ("user", "item")
PAUSE = 0.5  # seconds between two looks at whether another run of the same night has ended


def of_day(config: Config, day: date) -> Config:
    """Return `config` with the window that ends with `day`; ConfigError if it says nothing of nights."""
    if config.daily is None:
        fix = "add a section, as in daily: {window_days: 28}, or leave --partition out"
        raise ConfigError("the file has no section daily, which says what a partition is", where="--partition", fix=fix)
    if config.log.window is not None:
        fix = "leave log.window out"
        raise ConfigError("daily.window_days and --partition say the window", where="log.window", fix=fix)
    window = window_until(day, config.daily.window_days)
    return config.model_copy(update={"log": config.log.model_copy(update={"window": window})})


def directory(config: Config, run: Run) -> Path:
    """Return where what is decided of the night of `config` lies: another configuration has other nights."""
    assert config.log.window is not None
    key = fingerprint("daily", 1, config.model_dump(mode="json", exclude={"exec"}), {})
    return run.store.parent / "daily" / f"{config.name}-{config.log.window.last}-{key[:8]}"


@contextmanager
def alone(config: Config, run: Run) -> Iterator[None]:
    """Let one run at a time into a night: another one waits, and then finds everything done; collective."""
    place = directory(config, run)
    lock = FileLock(place / "night.lock")

    def enter() -> bool:
        place.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    try:
        while not run.world.share(enter):
            run.log("another run of this night is at work: waiting for its end", 0, 0, {})
            time.sleep(PAUSE)
        yield
    finally:
        lock.release()


def night(config: Config, run: Run) -> tuple[Config, Night]:
    """Return the configuration of the night that `of_day` gave `config`, and what was decided of it; collective.

    What is wrong with the day's data is found before anything is decided.
    """
    log = stages.ingest(config.log, config.features, run)
    stages.split(log, config.split, run)
    decided = run.world.share(lambda: _decided(config, log, run))
    base = None if decided["base"] is None else _report(directory(config, run), decided["base"]["version"])
    return resolved(config, decided["start"], base), decided


def foreseen(config: Config, run: Run, place: Path) -> tuple[Config, Night]:
    """Return what `night` would, with a dry `run`; what is read of the registry lies in `place`, nothing is kept.

    Before the log was read, how far its items moved is not known, and counts as not at all.
    """
    log, uri = stages.ingest(config.log, config.features, run), config.exec.tracking_uri
    kept = directory(config, run)
    if (kept / DECISION).is_file():
        place, decided = kept, json.loads((kept / DECISION).read_text(encoding="utf-8"))
    else:
        file = tracking.sqlite_file(uri)
        there = config if file is None or file.is_file() else config.model_copy(update={"registry": None})
        known = open_artifact(log.path) if log.hit else None
        decided = _decide(there, known, run, place) | {"decided_at": None}
    base = None if decided["base"] is None else _report(place, decided["base"]["version"])
    return resolved(config, decided["start"], base), decided


def resolved(config: Config, start: str, base: Path | None) -> Config:
    """Return `config` with trainings that `start` as told, and with the day before, whose report `base` is, if any."""
    moves = start == "champion" and base is not None
    student, teacher = dict[str, Any](), dict[str, Any]()
    if moves and student_moves(config):
        student["start"] = "yesterday"
    if moves and config.teacher.moves:
        teacher["start"] = "yesterday"
    if base is None:
        student["axes"] = "own"
        teacher["recipe"] = None if isinstance(config.teacher.recipe, Delta) else config.teacher.recipe
    update: dict[str, Any] = {
        "yesterday": None if base is None else FinishedRun(kind="run", path=str(base)),
        "student": config.student.model_copy(update=student),
        "teacher": config.teacher.model_copy(update=teacher),
    }
    return config.model_copy(update=update)


def _decided(config: Config, log: Artifact, run: Run) -> dict[str, Any]:
    """Return what was decided of this night, now or by an earlier run of it, whatever serves since."""
    kept = directory(config, run) / DECISION
    if not kept.is_file():
        mine = kept.with_name(f"{DECISION}.{os.getpid()}")
        found = _decide(config, log, run, kept.parent)
        write_text(mine, _signed(found | {REPORT: _base_sha256(found, kept.parent)}))
        with suppress(FileExistsError):
            os.link(mine, kept)  # of several writers, wherever their lock did not hold, the first
        mine.unlink()
    decided = _unsigned(kept)
    digest = decided.pop(REPORT, None)
    if digest is not None and digest != _base_sha256(decided, kept.parent):
        file = _report(kept.parent, decided["base"]["version"])
        fix = "restore it from a copy, or from the run of that version in MLflow"
        raise ArtifactError("is not the report that this night was decided by", where=str(file), fix=fix)
    if decided["log"] != log.fingerprint:  # rows have come since: what was decided stands, what is measured does not
        base = decided["base"] and finished(_report(kept.parent, decided["base"]["version"]), run.store)
        decided["drift"] = _figures(log, base)
    return decided


def _base_sha256(decided: Mapping[str, Any], place: Path) -> str | None:
    """Return the hash of the report that a night begins from; None where it begins from none."""
    file = None if decided["base"] is None else _report(place, decided["base"]["version"])
    return None if file is None else sha256(file) if file.is_file() else "missing"


def _signed(decided: Mapping[str, Any]) -> str:
    """Return what was decided as text that says its own hash: every run of this night will go by it."""
    told = json.loads(json.dumps(decided, allow_nan=False))
    return json.dumps(told | {"digest": hashlib.sha256(canonical(told).encode()).hexdigest()}, indent=1)


def _unsigned(file: Path) -> dict[str, Any]:
    """Return what `_signed` wrote to `file`; raises ArtifactError if it is not that."""
    told, whole = dict[str, Any](), False
    with suppress(ValueError, TypeError, AttributeError):
        told = json.loads(file.read_text(encoding="utf-8"))
        digest = told.pop("digest", None)  # an older version wrote none
        whole = digest is None or digest == hashlib.sha256(canonical(told).encode()).hexdigest()
    if not whole:
        fix = "restore it from a copy; or delete it, and what is decided now may be something else"
        raise ArtifactError("what was decided of this night is not what was written", where=str(file), fix=fix)
    return told


def _decide(config: Config, log: Artifact | None, run: Run, place: Path) -> dict[str, Any]:
    daily, window = config.daily, config.log.window
    assert daily is not None
    assert window is not None
    base, before, why = None, None, "there is no registry"
    if config.registry is not None:
        base, before, why = _champion(config, run, place, window.last)
    if log is None and before is not None:  # not read yet: as if nothing had moved
        log = before.data.ingested
    figures = dict[str, float]() if log is None else _figures(log, before)
    if before is not None and log is not None:
        why = _misfit(config, place, before, log)
    if why:
        base = None
    why = why or (_renewed(daily, base, window.last, figures) if base else "")
    return {
        "partition": str(window.last),
        "window": window.model_dump(mode="json"),
        "start": "full" if why else "champion",
        "why": why,
        "base": base,
        "full_on": base["full_on"] if base and not why else str(window.last),
        "drift": figures,
        "log": None if log is None else log.fingerprint,
        "decided_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _renewed(daily: DailySpec, base: Mapping[str, Any], day: date, figures: Mapping[str, float]) -> str:
    """Return why a night that could begin where `base` ended begins at random; nothing if it need not."""
    every, most, since = daily.full_every_days, daily.full_on_drift, (day - date.fromisoformat(base["full_on"])).days
    if daily.start == "full":
        return "daily.start is full"
    if every is not None and since >= every:
        return f"the last full night was {base['full_on']}, {since} days ago; daily.full_every_days is {every}"
    if most is not None and figures["items_moved"] > most:
        return f"items_moved is {figures['items_moved']:.3f}; daily.full_on_drift is {most:g}"
    return ""


def _champion(config: Config, run: Run, place: Path, day: date) -> tuple[dict[str, Any] | None, Before | None, str]:
    """Return the best version that may serve and has seen nothing of `day`, and its models, or why there are none.

    Ordinarily that is the champion; of a night long ago, the one that was it or would have been.
    """
    assert config.registry is not None
    uri, model = config.exec.tracking_uri, config.registry.model
    tracking.initialise(uri, run.store)
    passed = [v for v in registry.history(uri, model) if v.get("gate") == registry.PASSED and v.get("data_end")]
    trust = config.registry.trust
    passed = [v for v in passed if holds(v.get("signature"), model, v.get("manifest_sha256", ""), trust)]
    ends = {v["version"]: datetime.fromisoformat(v.get("log_end", v["data_end"])) for v in passed}
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    known = [v for v in passed if ends[v["version"]] < start]
    if not known:
        return None, None, f"no version of {model} has passed its gates on a log that ends before {day}"
    best = max(known, key=lambda v: (v["data_end"], v["version"]))
    number = best["version"]
    report = tracking.run_report(uri, best["run_id"])
    if report is None:
        return None, None, f"version {number} of {model} has no report, which would say what it was made of"
    write_text(_report(place, number), json.dumps(report))
    try:
        before = finished(_report(place, number), run.store)
    except ArtifactError as gone:
        if gone.damaged:  # nobody took it away: without it this would be another night
            last = ends[number].date()
            fix = f"delete the directory and run the night of {last} again, then this one"
            raise ArtifactError(gone.what, where=gone.where, fix=fix) from gone
        return None, None, f"version {number} of {model} is no longer in the store: {gone.what}"
    ended = ends[number].date().isoformat()
    full_on = (report.get("daily") or {}).get("full_on") or ended
    return {"version": number, "log_end": ended, "full_on": full_on}, before, ""


def _report(place: Path, version: int) -> Path:
    """Return where the report of a version that a night begins from is kept."""
    return place / f"version-{version}.json"


def _misfit(config: Config, place: Path, before: Before, log: Artifact) -> str:
    """Return why the models of `before` are none that this night's could follow; nothing if they are."""
    daily = config.daily
    assert daily is not None
    for name in ("user_id_type", "item_id_type"):
        now, then = (str(made.manifest.facts[name]) for made in (log, before.data.ingested))
        if now != then:
            return f"{name} is {now}, and the champion's was {then}"
    try:
        fits(resolved(config, daily.start, place), before)  # wherever its report lies
    except ConfigError as odd:
        return "; ".join(problem.reason for problem in odd.problems)
    return ""


def _figures(log: Artifact, before: Before | None) -> dict[str, float]:
    """Return what drift there is in the night's `log`, and from that of `before`, if there is one."""
    found = days_of(log.manifest.facts)
    if before is None:
        return found
    logs = before.data.ingested, log
    sides = [[pl.read_parquet(one.path / f"{s}s.parquet").select(f"{s}_id", "count") for one in logs] for s in SIDES]
    users, items = ((then, now) for then, now in sides)
    return found | drift(users, items, items_since(log.path, before.data.ingested.manifest.facts["last"]))
