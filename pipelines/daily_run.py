"""A night from its day to its verdict, and the one JSON object that it leaves for a scheduler, however it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pipelines.daily_night import alone, night, of_day
from pipelines.distill import Outcome, distill, stage_rows
from recdistill.causes import fix_of
from recdistill.config import Config
from recdistill.errors import GateRejected, RecdistillError, StageError
from recdistill.report import read_report
from recdistill.report_words import find, served
from recdistill.stages import Run

ALARM = 6  # the exit code of a night that was done, and measured something beyond daily.alarms


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a night ended: its summary, what a person is told, and what stopped it or refused its student."""

    summary: Mapping[str, Any]
    text: str = ""
    error: RecdistillError | None = None

    @property
    def code(self) -> int:
        """Return the exit code."""
        return int(self.summary["exit_code"])


def nightly(config: Config, day: date, run: Run, *, until: str | None = None, command: str = "") -> Ended:
    """Run the night of `day` to its end, or to the stage `until`; collective.

    What stops it is not raised but kept, so that the summary of a night is there however it ends.
    """
    began, decided, outcome = time.monotonic(), dict[str, Any](), None
    try:
        windowed = of_day(config, day)
        with alone(windowed, run):
            resolved, found = night(windowed, run)
            decided.update(found)
            outcome = distill(resolved, run, until=until, command=command, night=decided)
        error = None
    except RecdistillError as stopped:
        error = stopped
    except OSError as stopped:  # of the lock or the decision; what fails in a stage names it
        error = StageError(f"{type(stopped).__name__}: {stopped}", where="the night", fix=fix_of(stopped))
        error.__cause__ = stopped
    where = outcome.report if outcome is not None else None
    if isinstance(error, GateRejected) and error.report is not None:
        where = Path(error.report)
    head = {"name": config.name, "partition": str(day)}
    told = head | summary(decided, None if where is None else read_report(where), outcome, error)
    told |= {"report": None if where is None else str(where / "report.html")}
    told |= {"seconds": round(time.monotonic() - began, 1)}
    return Ended(summary=told, text="" if outcome is None else outcome.text(), error=error)


def summary(
    night: Mapping[str, Any], report: Mapping[str, Any] | None, outcome: Outcome | None, error: RecdistillError | None
) -> dict[str, Any]:
    """Return a night for a scheduler, as JSON values: what was decided, measured and judged, as far as it came."""
    found: dict[str, Any] = {"status": "done", "exit_code": 0}
    found |= {name: night.get(name) for name in ("window", "start", "why", "base", "full_on", "drift")}
    found |= {"alarms": [], "warnings": [], "release": None if outcome is None else outcome.summary()["release"]}
    found["stages"] = list[dict[str, Any]]() if outcome is None else stage_rows(outcome.made)
    if report is not None:
        found |= _measured(report)
    found["fingerprints"] = {row["stage"]: row["fingerprint"] for row in found["stages"]}
    if found["alarms"]:
        found |= {"exit_code": ALARM}
    if error is not None:
        refused = isinstance(error, GateRejected)
        found |= {"status": "refused" if refused else "failed", "exit_code": error.exit_code}
        found |= {"error": str(error), "kind": type(error).__name__}
    return found


def _measured(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report says of rows, quality and verdict; of its last section the ages and alarms."""
    verdict, data, head = report["verdict"], report["data"], report["headline"]
    models = {"student": served(report), "scratch": "scratch", "teacher": "teacher"}
    rows = {name: find(report, model, "all") for name, model in models.items()}
    quality = {name: None if row is None else [row[n] for n in ("value", "low", "high")] for name, row in rows.items()}
    night = report.get("daily") or {}
    return {
        "status": "promoted" if verdict["promoted"] else "done",
        "rows": {"read": data["ingest"].get("rows_read"), "kept": data["ingest"].get("rows")} | data["split"]["rows"],
        "users": data["ingest"].get("users"),
        "items": data["ingest"].get("items"),
        "quality": {**head, **quality},
        "gates": report["gates"],
        "model": verdict["model"],
        "version": verdict["version"],
        "promoted": verdict["promoted"],
        "reasons": verdict["reasons"],
        "ages": night.get("ages", {}),
        "alarms": night.get("alarms", []),
        "warnings": report["warnings"],
        "stages": report["stages"],
    }
