"""A worker of `recdistill serve` and who started it: told to leave, left alone, and before it is ready."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines import serve_workers, served
from recdistill.errors import StageError
from recdistill.guarded import Doing

ROOT = Path(__file__).parents[2]


def test_who_is_told_to_leave_does_and_who_is_left_alone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    doing, server = Doing(), SimpleNamespace(should_exit=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("what\n"))
    served._obey(doing, [server])
    assert (doing.leaving, server.should_exit) == (False, True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("leave\n"))
    served._obey(doing, [server])
    assert doing.leaving


def test_one_that_is_ready_when_nobody_waits_any_more_does_not_fail() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    speak = os.fdopen(writing, "w")
    served._announce(SimpleNamespace(started=True), speak)
    with pytest.raises(BrokenPipeError):
        speak.close()


def test_one_that_is_left_alone_while_it_begins_ends_at_once() -> None:
    code = "import sys, time; from pipelines import served; from recdistill.guarded import Doing;"
    code += "served._obey(Doing(), []); time.sleep(60)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.DEVNULL, timeout=50, check=False)
    assert ended.returncode == 1


def test_workers_that_do_not_come_up_are_an_error_and_leave_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    started, start = [], serve_workers._start

    def broken(command, env, number):
        code = "print('ready', flush=True); input()" if not started else "raise SystemExit(3)"
        started.append(start([sys.executable, "-c", code], env, number))
        return started[-1]

    monkeypatch.setattr(serve_workers, "_start", broken)
    bound = serve_workers.bound("127.0.0.1", 0)
    with bound, pytest.raises(StageError, match=r"a worker for version 7 did not come up \(exit code 3\)"):
        serve_workers.begin(ROOT, {"model": "m", "version": 7}, bound, 2)
    assert [process.poll() is not None for process in started] == [True, True]
