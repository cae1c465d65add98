"""What gates read: one number of a report, or a paired difference; and what a bundle says of itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from recdistill.gates_spec import Metric
from recdistill.metrics import METRICS

CANDIDATE, CHAMPION, TEACHER = "student@index", "champion@index", "teacher"
BESIDE = "candidate@index"  # the candidate as it was measured in turns with the champion
Report = Mapping[str, Any]


class Paired(NamedTuple):
    """A candidate less the champion over the same users, with its bootstrap interval, and the value of each."""

    candidate: float
    champion: float
    difference: float
    low: float
    high: float
    users: int


def bundle_facts(bundle: Path, now: datetime) -> dict[str, Any]:
    """Return the `bytes` of a bundle's files, its `data_end`, and `data_age_hours`, how long before `now` that was.

    Both are None where the log has no times. A time without a zone is in UTC.
    """
    end = json.loads((bundle / "manifest.json").read_text(encoding="utf-8")).get("data_end")
    size = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
    age = None
    if end is not None:
        ended = datetime.fromisoformat(end)
        age = (now - (ended if ended.tzinfo else ended.replace(tzinfo=UTC))).total_seconds() / 3600
    return {"bytes": size, "data_end": end, "data_age_hours": age}


def candidate_value(metric: Metric, report: Report) -> float:
    """Return the candidate's value, NaN where it is not there: a time as measured beside the champion, if it was."""
    beside = value(metric, report, BESIDE) if metric.kind == "latency" else math.nan
    return beside if math.isfinite(beside) else value(metric, report, CANDIDATE)


def champion_value(metric: Metric, report: Report, champion: Report | None) -> float | None:
    """Return the champion's value: as measured beside the candidate, else what its own report says.

    None without a champion, NaN where there is one to compare with but no value is known.
    """
    if metric.kind == "size":
        beside = _number((_contest(report).get("bundle") or {}).get("bytes"))
    else:
        beside = math.nan if metric.kind == "index" else value(metric, report, CHAMPION)
    if math.isfinite(beside):
        return beside
    return None if champion is None else value(metric, champion, CANDIDATE)


def paired(metric: Metric, report: Report) -> Paired | None:
    """Return the paired difference from the champion, NaN where it should be there and is not.

    None where there cannot be one: nobody was asked beside the champion, or no user has a value of the metric.
    """
    contest = _contest(report)
    if metric.kind != "quality" or metric.name not in METRICS or not contest.get("differences"):
        return None
    key = (metric.name, metric.k, metric.slice)
    found = next((d for d in contest["differences"] if (d["metric"], d["k"], d["slice"]) == key), {})
    return Paired(
        candidate=_quality(metric, contest, BESIDE),
        champion=_quality(metric, contest, CHAMPION),
        difference=_number(found.get("difference")),
        low=_number(found.get("low")),
        high=_number(found.get("high")),
        users=found.get("users", 0),
    )


def value(metric: Metric, report: Report, model: str) -> float:
    """Return one number of a report, NaN where it is not there."""
    match metric.kind:
        case "index":
            return _number(report.get("index", {}).get("recall", {}).get(str(metric.k)))
        case "size":
            return _number((report.get("bundle") or {}).get("bytes"))
        case "freshness":
            return _number((report.get("bundle") or {}).get("data_age_hours"))
        case "churn":
            rows = [row for row in _contest(report).get("churn", ()) if row["k"] == metric.k]
            return _number(rows[0]["mean"]) if rows else math.nan
        case "latency":
            rows = [r for r in report.get("latency", ()) if (r["model"], r["part"]) == (model, metric.part)]
            return _number(rows[0][metric.name]) if rows else math.nan
        case _:
            return _quality(metric, report, model)


def _quality(metric: Metric, report: Report, model: str) -> float:
    key = (model, metric.name, metric.k, metric.slice)
    rows = [r for r in report.get("quality", ()) if (r["model"], r["metric"], r["k"], r["slice"]) == key]
    return _number(rows[0]["value"]) if rows else math.nan


def _contest(report: Report) -> Report:
    return report.get("champion") or {}


def _number(value: float | None) -> float:
    """Return `value`, NaN where it is absent, or null in a report that was read back from disk."""
    return math.nan if value is None else float(value)
