"""What a report says of its night: what was decided, how the data moved, how old things are, and what is an alarm."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from pipelines.ages import ages
from recdistill import registry
from recdistill.config import Config
from recdistill.daily_spec import AGES, AlarmSpec
from recdistill.measure import Judged
from recdistill.results import Release
from recdistill.stages import Data


def of_night(config: Config, night: Mapping[str, Any], data: Data, judged: Judged) -> dict[str, Any]:
    """Return the section `daily` of a report: the decision, the ages as they are now, and the alarms."""
    assert config.daily is not None
    found = of_days(night, ages(data, judged))
    return {**night, "ages": found, "alarms": alarms(config.daily.alarms, {**night["drift"], **found})}


def of_days(night: Mapping[str, Any], found: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the ages `found` and two on the log's own calendar: `champion_days` from the end of the champion's log to
    the night's day, null if there is none, and `full_days` since the night that began at random.
    """
    day = date.fromisoformat(night["partition"])
    base, full_on = night["base"], date.fromisoformat(night["full_on"])
    since = None if base is None else float((day - date.fromisoformat(base["log_end"])).days)
    told = {**found, "champion_days": since, "full_days": float((day - full_on).days)}
    assert told.keys() == set(AGES)
    return told


def alarms(bounds: Mapping[Any, AlarmSpec], figures: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Return each figure that lies beyond its bounds, in the order of these; one that was not measured does not."""
    found = list[dict[str, Any]]()
    for name, bound in bounds.items():
        value = figures.get(name)
        if value is None:
            continue
        low = bound.min is not None and value < bound.min
        if low or (bound.max is not None and value > bound.max):
            limit = f"below {bound.min:g}" if low else f"above {bound.max:g}"
            told = {"figure": name, "value": value, **bound.model_dump()}
            found.append(told | {"text": f"alarm: {name} is {value:.4g}, {limit} (daily.alarms)"})
    return found


def night_tags(report: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what the registry says of a version of a night; nothing of one of another run."""
    night = report.get("daily")
    if night is None:
        return {}
    base = "" if night["base"] is None else str(night["base"]["version"])
    return {
        "recdistill.partition": night["partition"],
        "recdistill.start": f"champion, version {base}" if night["start"] == "champion" else f"full: {night['why']}",
        "recdistill.alarms": ", ".join(alarm["figure"] for alarm in night["alarms"]) or None,
    }


def superseded(uri: str, model: str, version: int) -> Release | None:
    """Return the release of a version that has served, and stands, though a later night's serves now; else None."""
    found = next(v for v in registry.history(uri, model) if v["version"] == version)
    served = "promoted_at" in found and found.get("gate") == registry.PASSED
    if not served or registry.CHAMPION in found["aliases"]:
        return None
    return Release(model=model, version=version, alias=None, gates=(), uri=uri, run_id=found["run_id"])
