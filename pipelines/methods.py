"""The commands over published methods: what there are, and all of them side by side on one log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter

from pipelines.commands import File, Sets
from pipelines.console import Json, say, table
from recdistill.errors import ConfigError

T = TypeVar("T")
Students = Annotated[tuple[str, ...], Parameter(name="--student", negative="")]


def methods(*, seeds: bool = False, json: Json = False) -> int:
    """List the published methods that --method takes: their paper, what they transfer, need and cost.

    Needs are what is stored (lists, vectors, item lists, trajectory), ranked anew (student lists), trained beside the
    student (partner) or left by the day before (yesterday). Cost is of a step, beside the scratch student's: d and D
    are the widths of student and teacher.

    Parameters
    ----------
    seeds
        Those of papers on whether and why distillation works, instead of those for recommenders.
    """
    from recdistill.methods import load_method, presets

    found = {name: load_method(path) for name, path in presets(family="seeds" if seeds else "").items()}
    if not found:
        fix = "start in a checkout of recdistill, or give --method a file"
        raise ConfigError("there are no presets here, nor in the package", where="configs/methods", fix=fix)
    rows = [(n, m.paper, m.transfers, ", ".join(m.set.needs), m.cost) for n, m in found.items()]
    data = [
        {"name": name, "needs": m.set.needs, **m.model_dump(mode="json", exclude={"set"})} for name, m in found.items()
    ]
    say({"methods": data}, table(rows, ("name", "paper", "transfers", "needs", "cost")), as_json=json)
    return 0


def sweep(  # long: half of it says what the options are
    config: File,
    /,
    *,
    methods: str | None = None,
    dims: str | None = None,
    seeds: str | None = None,
    losses: str | None = None,
    tune: str | None = None,
    student: Students = (),
    jobs: int = 1,
    against: str = "",
    out: Path = Path("runs/sweep"),
    sets: Sets = (),
    json: Json = False,
) -> int:
    """Train methods x student widths x losses x seeds on one log, beside the scratch students; a table of them all.

    Every training is an artifact of the store, and one label store serves all methods that read the same: the same
    command goes on where it was stopped, and another method or seed costs itself alone. A method that fails is a row
    that says why. Writes sweep.json (every row and setting) and sweep.md into --out.

    Parameters
    ----------
    methods
        Names that `recdistill methods` lists, or files, separated by commas; left out, all of them.
    dims
        Widths of the student, separated by commas; left out, the file's.
    seeds
        Separated by commas; left out, the file's.
    losses
        The student's own loss, softmax or bpr, and after a colon how many negatives, as in bpr:4; left out, the file's.
    tune
        Factors of the terms' weights to train with the first seed, such as 0.3,1,3; the one of the best validation
        NDCG@10 is kept for all seeds, the first of equals.
    student
        Settings of the student, as YAML of its section, `{}` for the file's own; may be given again. Each method, and
        the scratch student, is tried with all of them, and keeps that of the best validation NDCG@10.
    jobs
        Processes to train in, of one thread each if there are more than one.
    against
        One of the methods, from which the others' differences are told too.
    out
        Where the table goes.
    """
    from pipelines.progress import progress
    from pipelines.sweep import sweep
    from pipelines.sweep_cells import Asked
    from pipelines.sweep_table import terminal, write

    asked = Asked(
        file=config,
        sets=sets,
        methods=_listed(methods, str, "--methods"),
        dims=_listed(dims, int, "--dims"),
        losses=_listed(losses, str, "--losses"),
        seeds=_listed(seeds, int, "--seeds"),
        tune=_listed(tune, float, "--tune"),
        students=student,
        jobs=jobs,
        against=against,
    )
    with progress(json=json) as log:
        swept = sweep(asked, log)
    write(swept, out)
    text = f"{terminal(swept)}\nfits: {swept['found']} found done, {swept['built']} built\ntable: {out / 'sweep.md'}"
    say(swept, text, as_json=json)
    return 0


def _listed(text: str | None, kind: Callable[[str], T], where: str) -> tuple[T, ...]:
    """Return the values that `text` lists; none for none. Raises ConfigError for what is no such value."""
    try:
        found = tuple(kind(part.strip()) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{text!r} is no list of numbers", where=where, fix="separate them by commas") from None
    if len(set(found)) < len(found):
        raise ConfigError(f"{text!r} names one of them twice", where=where)
    return found
