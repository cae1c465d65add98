"""The processes that serve one version, on a socket that outlives them: begun together, ended when they have answered.

The socket is its parent's, so that whoever connects while one version goes and the next one comes waits for
an answer instead of being refused.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from pipelines.served import LEAVE, PATIENCE, READY
from recdistill.errors import ConfigError, StageError

UP = 600.0  # seconds that a worker may take to come up: it hashes every file again
AWAY = 1.0  # seconds between asking clients to come back elsewhere and taking nothing more


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes that serve one version."""

    version: int
    processes: tuple[subprocess.Popen[str], ...]

    def dead(self) -> bool:
        """Return whether one of them has ended by itself."""
        return any(process.poll() is not None for process in self.processes)


def bound(host: str, port: int) -> socket.socket:
    """Return a socket bound to `host` and `port`, 0 for a free one; raises ConfigError if it cannot be.

    Nobody listens to it before a worker answers: until then whoever connects is refused.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except (OSError, OverflowError) as cause:
        fix = "name an address of this machine and a free port with --host and --port"
        raise ConfigError(f"nothing can be served at {host}:{port}: {cause}", where="usage", fix=fix) from cause
    return made


def begin(model: Path, which: Mapping[str, Any], bound: socket.socket, count: int) -> Workers:
    """Start `count` processes that serve the directory `model`, and return when all of them answer.

    Raises StageError if one does not come up; then none of them is left.
    """
    number = bound.fileno()
    command = [sys.executable, "-m", "pipelines.served", str(number), str(model), json.dumps(dict(which))]
    # One thread for each request: what a machine has more is for more workers, who do not wait for each other.
    env = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    started = Workers(int(which["version"]), tuple(_start(command, env, number) for _ in range(count)))
    clock = Timer(UP, lambda: [process.kill() for process in started.processes])
    clock.start()
    try:
        for process in started.processes:
            assert process.stdout is not None
            if process.stdout.readline().strip() != READY:
                what = f"a worker for version {which['version']} did not come up (exit code {process.wait()})"
                raise StageError(what, fix="what it said stands above")
    except BaseException:
        for process in started.processes:
            process.kill()
        end(started)
        raise
    finally:
        clock.cancel()
    return started


def end(workers: Workers) -> None:
    """End processes that serve: they close connections, take nothing new, answer what they took, and go."""
    for process in workers.processes:
        _tell(process, LEAVE)
    if not workers.dead():
        time.sleep(AWAY)
    deadline = time.monotonic() + PATIENCE + 10
    for process in workers.processes:
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
    for process in workers.processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(deadline - time.monotonic(), 0.0))
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _start(command: list[str], env: Mapping[str, str], number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=Path(__file__).resolve().parents[1],  # so that the worker finds this very package
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(number,),
        start_new_session=True,  # control-C is for the parent, who ends them in order
    )


def _tell(process: subprocess.Popen[str], word: str) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
