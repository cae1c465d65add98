"""Progress on stderr: bars on a terminal, plain lines elsewhere, nothing where a scheduler or another rank reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipelines.console import speaks
from recdistill.types import Log, quiet

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

EVERY = 10.0  # seconds between two plain lines about the same thing


@contextmanager
def progress(*, json: bool = False) -> Iterator[Log]:
    """Yield `log(what, done, total, values)`; `total` 0 means that the end is not known."""
    if json or not speaks():
        yield quiet
    elif sys.stderr.isatty():
        from rich.console import Console

        with bars(Console(stderr=True)) as log:
            yield log
    else:
        yield lines()


@contextmanager
def bars(console: Console) -> Iterator[Log]:
    """Yield a log that keeps one bar for each `what` on `console`, with its latest values."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[values]}"), console=console) as shown:
        tasks: dict[str, TaskID] = {}

        def log(what: str, done: int, total: int, values: Mapping[str, float]) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total or None, values="")
            shown.update(tasks[what], completed=done, total=total or None, values=pairs(values))

        yield log


def lines() -> Log:
    """Return a log that writes a line when something starts, when it ends, and every `EVERY` seconds between."""
    started: dict[str, float] = {}
    written: dict[str, float] = {}

    def log(what: str, done: int, total: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        first, last = what not in started, bool(total) and done >= total
        if not (first or last) and now - written[what] < EVERY:
            return
        begin = started.setdefault(what, now)
        written[what] = now
        if last:  # the same name may come again, for another seed or model, and is then a new start
            del started[what]
        count = f"{done}/{total}" if total else (str(done) if done else "begins")
        print(f"{what}: {count} after {now - begin:.0f} s {pairs(values)}".rstrip(), file=sys.stderr, flush=True)

    return log


def pairs(values: Mapping[str, float]) -> str:
    """Write `values` as `name value` pairs, four significant digits each."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
