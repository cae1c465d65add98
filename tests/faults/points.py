"""Places inside a process where it can be struck: every call that changes a file under the home, in its order."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SQL = ("INSERT", "UPDATE", "DELETE", "COMMIT")
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def at(home: Path, number: int, strike: Callable[[], None], record: Callable[[str], None] | None = None) -> None:
    """Call `strike` in this process before its change number `number`, from 1; `record` is told of each.

    A change is a file opened to be written, renamed, removed or flushed, and a statement of SQL that writes.

    A hook of the interpreter sees what Python does. Between two such calls lie those of other languages: whoever wants
    to strike there does it some time after the one before.
    """
    root, seen = str(home), 0

    def count(what: str) -> None:
        nonlocal seen
        seen += 1
        if record is not None:
            record(what)
        if seen == number:
            strike()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(flags, int) and flags & WRITES) or (mode and set(mode) & set("wax+"))
            if writes and _under(path, root):
                count(f"open {path}")
        elif event in CHANGES and any(_under(each, root) for each in arguments[:2]):
            count(f"{event} {arguments[0]}")

    flush = os.fsync

    def fsync(file: int) -> None:
        count("fsync")
        flush(file)

    connect = sqlite3.dbapi2.connect

    def connected(*words: Any, **how: Any) -> sqlite3.Connection:
        made = connect(*words, **how)
        made.set_trace_callback(lambda said: count(said[:40]) if said.upper().startswith(SQL) else None)
        return made

    sys.addaudithook(hook)
    os.fsync, sqlite3.dbapi2.connect = fsync, connected


def _under(path: Any, root: str) -> bool:
    if not isinstance(path, str | os.PathLike):
        return False
    path = os.fspath(path)
    return isinstance(path, str) and (path.startswith(root) or not path.startswith("/"))


def kill() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in(seconds: float) -> Callable[[], None]:
    """Return what ends this process so many seconds later, wherever it is then, in whatever language."""

    def later() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    return later


def stop() -> None:
    """Stop this process until somebody continues it."""
    os.kill(os.getpid(), signal.SIGSTOP)
