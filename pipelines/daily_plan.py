"""What a night would read, begin from and build, as far as that can be known without reading its log: `plan`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from pipelines.daily_commands import day_named
from pipelines.daily_night import foreseen, of_day
from pipelines.distill import plan
from pipelines.models import prepare_mlflow
from recdistill.config import Config
from recdistill.data.log import sources
from recdistill.data.window import day_files
from recdistill.stages import Run


def planned(config: Config, partition: str) -> tuple[dict[str, Any], str]:
    """Return what the night of a day would do, and its first lines for a person."""
    prepare_mlflow()
    found = plan_night(config, day_named(partition, "--partition"))
    return found, f"{words(found, config)}\n\n"


def plan_night(config: Config, day: date) -> dict[str, Any]:
    """Return what was or would be decided of the night of `day`, and its stages as `plan` does; builds nothing.

    `files` is how many files lie in the directories of the window's days, None where rows are chosen by their time.
    Raises ConfigError if the file says nothing of nights, DataError if the log has no directory of that day.
    """
    windowed = of_day(config, day)
    run, window = Run(store=Path(config.exec.store), dry=True), windowed.log.window
    assert window is not None
    found = [day_files(path, windowed.log.format, window) for _, path in sources(windowed.log)]
    files = [file for each in found for file in each or []]
    with tempfile.TemporaryDirectory() as folder:
        resolved, night = foreseen(windowed, run, Path(folder))
        steps = plan(resolved)
    told = {"partition": str(day), "window": window.model_dump(mode="json")}
    told |= {"files": None if None in found else len(files), "decided": night["decided_at"] is not None}
    return told | {name: night[name] for name in ("start", "why", "base", "full_on")} | {"stages": steps}


def words(told: Mapping[str, Any], config: Config) -> str:
    """Return in two lines what the night reads, and where it begins."""
    window, files, base = told["window"], told["files"], told["base"]
    found = "rows of those days" if files is None else f"{files} file{'s' if files != 1 else ''}"
    reads = f"reads: {window['first']} to {window['last']}, {found}"
    begins = f"at random: {told['why']}"
    if told["start"] == "champion":
        begins = f"where version {base['version']} ended, whose log ends on {base['log_end']}"
    read = told["stages"][0]["state"] == "hit"
    if told["decided"]:
        begins += " (decided by a run of this night)"
    elif told["start"] == "champion" and not read and config.daily and config.daily.full_on_drift is not None:
        begins += f", unless items_moved turns out above {config.daily.full_on_drift:g}"
    return f"{reads}\nbegins: {begins}"
