"""Processes that work in turns, one at a time, so that what disturbs the machine disturbs all of them alike.

A worker is a module whose `__main__` calls `work_in_turns`. It says when it is ready, takes a turn when it is told to,
and leaves its answer when nobody tells it anything more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Timer
from typing import IO, Any

from recdistill.errors import ArtifactError, ConfigError, StageError

LIMIT = 1800  # seconds after which the workers are taken to hang
DONE = "done"
Take = Callable[[int], None]
Answer = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Worker:
    """A process to be started: the module that it runs, and what is asked of it, as JSON values."""

    module: str
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Started:
    process: subprocess.Popen[str]
    said: IO[bytes]  # what it wrote to stderr
    answer: Path
    module: str


def take_turns(workers: Sequence[Worker], turns: int) -> list[dict[str, Any]]:
    """Return the answer of each worker after `turns` turns of each, of which every round another one is first.

    Raises ArtifactError, ConfigError or StageError as a worker fails, StageError after LIMIT seconds.
    """
    late = Event()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recdistill-latency-")))
        started = [_start(worker, folder / f"{n}", stack) for n, worker in enumerate(workers)]

        def stop() -> None:
            late.set()
            for one in started:
                one.process.kill()

        clock = Timer(LIMIT, stop)
        stack.callback(clock.cancel)
        clock.start()
        for one in started:
            _await(one, late)
        for turn in range(turns):
            for n in range(len(started)):
                _tell(started[(n + turn) % len(started)], turn, late)
        return [_ended(one, late) for one in started]


def work_in_turns(path: Path, begin: Callable[[dict[str, Any]], tuple[Take, Answer]], refusal: type[Exception]) -> int:
    """Work as a worker whose request is at `path`; returns the exit code.

    `begin` makes ready, and returns what takes a turn and what gives the answer. A `refusal` is an artifact that is not
    whole.
    """
    speak = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    try:
        take, answer = begin(json.loads(path.read_text(encoding="utf-8")))
        speak.write(f"{DONE}\n")
        speak.flush()
        for line in sys.stdin:
            take(int(line))
            speak.write(f"{DONE}\n")
            speak.flush()
        path.with_suffix(".answer").write_text(json.dumps(answer()), encoding="utf-8")
    except ConfigError as cause:
        sys.stderr.write(f"{cause}\n")
        return ConfigError.exit_code
    except refusal as cause:
        sys.stderr.write(f"{cause}\n")
        return ArtifactError.exit_code
    return 0


def _start(worker: Worker, path: Path, stack: ExitStack) -> _Started:
    request = path.with_suffix(".json")
    request.write_text(json.dumps(worker.request), encoding="utf-8")
    said = stack.enter_context(path.with_suffix(".log").open("w+b"))
    process = subprocess.Popen(
        [sys.executable, "-m", worker.module, str(request)],
        cwd=Path(__file__).resolve().parents[1],  # so that the worker finds this very package
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
    )
    stack.callback(_end, process)
    return _Started(process, said, path.with_suffix(".answer"), worker.module)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _tell(one: _Started, turn: int, late: Event) -> None:
    assert one.process.stdin is not None
    try:
        one.process.stdin.write(f"{turn}\n")
        one.process.stdin.flush()
    except OSError:
        _fail(one, late)
    _await(one, late)


def _await(one: _Started, late: Event) -> None:
    assert one.process.stdout is not None
    if one.process.stdout.readline().strip() != DONE:
        _fail(one, late)


def _ended(one: _Started, late: Event) -> dict[str, Any]:
    assert one.process.stdin is not None
    one.process.stdin.close()
    if one.process.wait():
        _fail(one, late)
    return json.loads(one.answer.read_text(encoding="utf-8"))


def _fail(one: _Started, late: Event) -> None:
    code = one.process.wait()
    one.said.seek(0)
    said = one.said.read().decode(errors="replace").strip()
    if late.is_set():
        raise StageError(f"the latency process ran past {LIMIT} s", where="latency", fix="ask fewer queries")
    if code == ArtifactError.exit_code:
        raise ArtifactError(said, where="latency", fix="build the bundle and its index again")
    if code == ConfigError.exit_code:
        raise ConfigError(said, where="latency")
    raise StageError(f"the latency process {one.module} failed: {said[-2000:]}", where="latency")
