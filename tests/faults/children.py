"""Commands run as forks of this process, which has loaded everything: so a fault costs no imports."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PAUSE = 0.01  # seconds between two looks at the children
ROOM = 1 << 20  # bytes that a child may say before somebody must read
GRACE = 0.3  # seconds that a launcher takes to end the others of a rank that died


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: an exit code, or the negative number of the signal; -1000 where it had to be ended."""

    code: int
    said: str
    seconds: float


@dataclass(slots=True)
class Child:
    """One process under way, what it writes to, and what is known of it."""

    pid: int
    said: int  # the end of a pipe: files of the child may not be allowed to grow
    code: int | None = None
    stopped: float | None = None  # since when it is, by SIGSTOP
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0


Before = Callable[[int], None]
"""What is done in a child of so many a rank before its command begins."""


def launch(
    words: Sequence[str],
    home: Path,
    *,
    ranks: int = 1,
    before: Before | None = None,
    limit: float = 120,
    wakes: float | None = None,
    together: bool = True,
) -> list[Ended]:
    """Run a command of recdistill in `home` as so many ranks, and return how each ended.

    One that stops itself is continued after `wakes` seconds; None leaves it so until the others have ended. Of ranks
    `together`, one that is killed takes the others with it, as torchrun's do.
    """
    env = _address(ranks) if ranks > 1 else {}
    children = [_start(words, home, rank, env, before) for rank in range(ranks)]
    end = time.monotonic() + limit
    while any(child.code is None for child in children):
        time.sleep(PAUSE)
        now = time.monotonic()
        for child in children:
            _look(child, now, wakes)
        killed = [child for child in children if child.code is not None and child.code < 0]
        due = killed and together and now > min(child.ended for child in killed) + GRACE
        left = [child for child in children if child.code is None]
        if left and (due or now > end or (wakes is None and all(child.stopped for child in left))):
            for child in left:
                _end(child, late=now > end)
    for child in children:
        _clear(child.pid)
    return [Ended(child.code or 0, _read(child.said), child.ended - child.began) for child in children]


def _read(pipe: int) -> str:
    with open(pipe, "rb") as file:
        os.set_blocking(pipe, False)  # whoever the child left behind may hold the other end
        return (file.read() or b"").decode(errors="replace")


def _address(ranks: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **size}


def _start(words: Sequence[str], home: Path, rank: int, env: dict[str, str], before: Before | None) -> Child:
    said, says = os.pipe()
    fcntl.fcntl(says, fcntl.F_SETPIPE_SZ, ROOM)
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(says)
        return Child(pid, said)
    code = 1
    try:
        os.setsid()
        os.chdir(home)
        os.environ.update(env | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if env else {}))
        os.dup2(says, 1)
        os.dup2(says, 2)
        from pipelines.__main__ import main

        if before is not None:
            before(rank)
        code = main(list(words))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _look(child: Child, now: float, wakes: float | None) -> None:
    if child.code is not None:
        return
    pid, status = os.waitpid(child.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
    if pid and os.WIFSTOPPED(status):
        child.stopped = now
    elif pid and os.WIFCONTINUED(status):
        child.stopped = None
    elif pid:
        child.code, child.ended = os.waitstatus_to_exitcode(status), now
    if child.stopped is not None and wakes is not None and now > child.stopped + wakes:
        os.kill(child.pid, signal.SIGCONT)
        child.stopped = None


def _end(child: Child, *, late: bool) -> None:
    os.kill(child.pid, signal.SIGKILL)
    status = os.waitpid(child.pid, 0)[1]
    child.code = -1000 if late else os.waitstatus_to_exitcode(status)
    child.ended = time.monotonic()


def _clear(group: int) -> None:
    """End what a child has started and left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
