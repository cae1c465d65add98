"""The commands of nights: one of them, as `run --partition`, and one after another, as `backfill`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pipelines.console import Json, complain, say, table
from recdistill.errors import ConfigError, DataError, GateRejected

if TYPE_CHECKING:
    from recdistill.config import Config
    from recdistill.stages import Run

Day = Annotated[str, Parameter(help="A day, as 2026-11-20.")]
Sets = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative="", help="a.b=value on top of the file, read as YAML; may be given again."),
]


def run_night(
    config: Path, sets: Sequence[str], method: str | None, partition: str, *, until: str | None, as_json: bool
) -> int:
    """Run the night of a day, print what it left, and return its exit code."""
    day = day_named(partition, "--partition")
    with ready(config, sets, method, as_json=as_json) as (found, go, command):
        from pipelines.daily_run import nightly

        ended = nightly(found, day, go, until=until, command=command)
    if ended.error is not None and not as_json:
        raise ended.error
    told = "; ".join(alarm["text"] for alarm in ended.summary["alarms"])
    say(ended.summary, "\n".join(line for line in (ended.text, told) if line), as_json=as_json)
    return ended.code


def backfill(
    config: Annotated[Path, Parameter(help="The YAML file of a run, with a section daily.")],
    /,
    *,
    first: Annotated[str, Parameter(name="--from", help="The first day, as 2026-11-14.")],
    last: Annotated[str, Parameter(name="--to", help="The last day.")],
    method: Annotated[str | None, Parameter(help="A published method on top of the file, as for run.")] = None,
    sets: Sets = (),
    json: Json = False,
) -> int:
    """Run the nights of a range of days in order, each as `run --partition` would.

    A day whose data is bad, or whose student its gates refuse, is recorded and the next one is run, as a scheduler
    would do; anything else ends it. The exit code is 0 if every night ended so, else that of the first that did not.
    """
    days = list(_days(day_named(first, "--from"), day_named(last, "--to")))
    nights = list[dict[str, Any]]()
    with ready(config, sets, method, as_json=json) as (found, go, command):
        from pipelines.daily_run import nightly

        for day in days:
            ended = nightly(found, day, go, command=command)
            nights.append(dict(ended.summary))
            if ended.error is not None and not json:
                complain(ended.error, as_json=False, debug=False)
            if ended.error is not None and not isinstance(ended.error, DataError | GateRejected):
                break
    code = next((night["exit_code"] for night in nights if night["exit_code"]), 0)
    left = [str(day) for day in days[len(nights) :]]
    head = ("partition", "status", "start", "version", "why")
    rows = [[night.get(name) if night.get(name) is not None else "" for name in head] for night in nights]
    text = table(rows, head) + (f"\nnot run: {', '.join(left)}" if left else "")
    say({"nights": nights, "left": left, "exit_code": code}, text, as_json=json)
    return code


@contextmanager
def ready(config: Path, sets: Sequence[str], method: str | None, *, as_json: bool) -> Iterator[tuple[Config, Run, str]]:
    """Yield the configuration, what a run is made with, and the command that asked for it."""
    from pipelines.models import prepare_mlflow
    from pipelines.progress import progress
    from recdistill.config import load_config
    from recdistill.stages import Run
    from recdistill.world import world

    found = load_config(config, sets, method)
    prepare_mlflow()
    how = found.exec
    with progress(json=as_json) as log, world(device=how.device, threads=how.threads) as joined:
        yield found, Run(store=Path(how.store), world=joined, log=log), shlex.join(["recdistill", *sys.argv[1:]])


def day_named(text: str, where: str) -> date:
    """Return the day that `text` names; ConfigError, naming the option, if it names none."""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ConfigError(f"{text!r} is no day", where=where, fix="write year, month and day, as in 2026-11-20")


def _days(first: date, last: date) -> Iterator[date]:
    if first > last:
        raise ConfigError(f"{first} comes after {last}", where="--from", fix="give the earlier day first")
    yield from (first + timedelta(days=n) for n in range((last - first).days + 1))
