"""The commands over a configuration: check, plan, run.

What is heavy is imported inside each command, so that `--help` and the data commands answer at once.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipelines.console import Json, say, table

Sets = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative="", help="a.b=value on top of the file, read as YAML; may be given again."),
]
Method = Annotated[
    str | None,
    Parameter(help="A published method on top of the file, below --set: a name that `methods` lists, or a file."),
]
File = Annotated[Path, Parameter(help="The YAML file of a run.")]


def check(config: File, /, *, method: Method = None, sets: Sets = (), json: Json = False) -> int:
    """Check a configuration and name all its problems at once; no data is read."""
    from recdistill.config import load_config

    found = load_config(config, sets, method)
    teacher, student = found.teacher.model.kind, found.student.model
    text = f"{config}: ok: a {student.kind} student of {student.dim} dimensions, a teacher of kind {teacher}, "
    text += f"{len(found.distill)} distillation terms"
    say({"config": found.model_dump(mode="json")}, text, as_json=json)
    return 0


def plan(
    config: File,
    /,
    *,
    method: Method = None,
    sets: Sets = (),
    partition: str | None = None,
    json: Json = False,
) -> int:
    """Show what a run would find done (hit), go on with (partial) or begin (miss), without spending anything.

    Parameters
    ----------
    partition
        The night of this day, as for `run`: also what it would read and begin from.
    """
    from recdistill.config import load_config

    found = load_config(config, sets, method)
    if partition is None:
        from pipelines import distill

        told, head = {"stages": distill.plan(found)}, ""
    else:
        from pipelines.daily_plan import planned

        told, head = planned(found, partition)
    rows = [(s["stage"], s["state"], s["fingerprint"], s["path"]) for s in told["stages"]]
    say(told, head + table(rows, ("stage", "state", "fingerprint", "path")), as_json=json)
    return 0


def run(
    config: File,
    /,
    *,
    method: Method = None,
    sets: Sets = (),
    partition: str | None = None,
    until: str | None = None,
    json: Json = False,
) -> int:
    """Run every stage from the log to the registry, reusing what is done; the same command goes on after a stop.

    Parameters
    ----------
    partition
        The night of this day, as 2026-11-20: the window and the start that the file's section `daily` asks for.
    until
        The last stage to run, as `plan` names it.
    """
    if partition is not None:
        from pipelines.daily_commands import run_night

        return run_night(config, sets, method, partition, until=until, as_json=json)
    from pipelines import distill
    from pipelines.models import prepare_mlflow
    from pipelines.progress import progress
    from recdistill.config import load_config
    from recdistill.stages import Run
    from recdistill.world import world

    found = load_config(config, sets, method)
    prepare_mlflow()
    command = shlex.join(["recdistill", *sys.argv[1:]])
    how = found.exec
    if until in distill.DATA:  # to look for a GPU, or to set threads, imports torch: longer than all these stages take
        how = how.model_copy(update={"device": "cpu", "threads": None})
    with progress(json=json) as log, world(device=how.device, threads=how.threads) as joined:
        go = Run(store=Path(found.exec.store), world=joined, log=log)
        outcome = distill.distill(found, go, until=until, command=command)
    say(outcome.summary(), outcome.text(), as_json=json)
    return 0
