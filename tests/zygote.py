"""Processes that begin with torch loaded, which takes each of them three seconds of the processor otherwise.

A server imports torch and TorchRec, and nothing that starts a thread; for each command it forks. The fork is a process
of its own: its directory, environment, streams, session and end are those that it was asked for. What such processes
share is the seed of their hashes; where ranks must have their own, or are to be restarted, torchrun starts them afresh.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

PATIENCE = 120  # seconds until the server must have come up


def run(words: list[str], *, home: Path, env: dict[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run `python -m words`, or the script `words[0]`, in `home`, and kill what it leaves behind."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as line:
        out, err = (str(Path(folder) / name) for name in ("out", "err"))
        line.connect(_server())
        line.sendall(
            json.dumps({"words": words, "home": str(home), "env": env, "out": out, "err": err}).encode() + b"\n"
        )
        line.settimeout(timeout)
        with line.makefile() as said:
            pid = int(said.readline())
            try:
                code = int(said.readline())
            except TimeoutError:
                raise subprocess.TimeoutExpired(words, timeout, Path(out).read_text(), Path(err).read_text()) from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        return subprocess.CompletedProcess(words, code, Path(out).read_text(), Path(err).read_text())


def ranks(
    words: list[str], *, home: Path, env: dict[str, str], timeout: float, processes: int
) -> subprocess.CompletedProcess[str]:
    """Run `words` as so many processes of one world, as a launcher of any kind would; the first failure is its code."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    address |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    with ThreadPoolExecutor(processes) as pool:
        own = [env | address | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        ended = list(pool.map(lambda each: run(words, home=home, env=each, timeout=timeout), own))
    code = next((each.returncode for each in ended if each.returncode), 0)
    return subprocess.CompletedProcess(
        words, code, "".join(each.stdout for each in ended), "".join(each.stderr for each in ended)
    )


@lru_cache(maxsize=1)
def _server() -> str:
    """Start the server of this session and return its address."""
    folder = tempfile.TemporaryDirectory()
    path = str(Path(folder.name) / "line")
    server = subprocess.Popen([sys.executable, __file__, path])

    def stop() -> None:
        server.kill()
        server.wait()
        folder.cleanup()

    atexit.register(stop)
    end = time.monotonic() + PATIENCE
    while not Path(path).exists():
        assert server.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return path


def serve(path: str) -> None:
    """Answer each request with the number of the process that does it and, at its end, its exit code."""
    for name in ("numba", "torch.distributed.checkpoint", "torchrec.distributed.model_parallel"):
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1  # a fork would lose the others, and wait for them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path + ".new")
        server.listen()
        os.rename(path + ".new", path)
        while True:
            line, _ = server.accept()
            if os.fork() == 0:
                server.close()
                break
            line.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with line.makefile() as said:
        asked = json.loads(said.readline())
    pid = os.fork()
    if pid == 0:
        line.close()
        _become(**asked)
        return
    line.sendall(f"{pid}\n".encode())
    line.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
    os._exit(0)


def _become(words: list[str], home: str, env: dict[str, str], out: str, err: str) -> None:
    """Be the process that was asked for, to its end."""
    os.setsid()
    os.chdir(home)
    os.environ.clear()
    os.environ.update(env)
    for number, file, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_CREAT | os.O_WRONLY),
        (2, err, os.O_CREAT | os.O_WRONLY),
    ):
        opened = os.open(file, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.path[0] = home
    sys.path[1:1] = [entry for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if words[0].endswith(".py"):
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
    else:
        sys.argv = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(sys.argv[1])
