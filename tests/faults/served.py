"""An MLflow server in front of the registry that is killed while a run writes to it, and comes back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

from children import Ended
from kinds import Tried, again, patient, worst
from scene import Scene

UP = 120  # seconds until a server must answer


def killed_server(scene: Scene, _: str, random: Random) -> Tried:
    """kill -9 of the server at some moment of the run that registers and promotes; it is started again then."""
    stage = "promote"
    scene.restore(stage)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*scene.words(stage), "--set", f"exec.mlflow=http://127.0.0.1:{port}"]
    over = replace(scene, commands={stage: words})
    servers = [_start(scene.home / "runs", port)]

    def mend(_: Ended) -> None:
        if servers[-1].poll() is not None:
            servers.append(_start(scene.home / "runs", port))

    after = random.uniform(0, 1.5 * scene.seconds[stage])
    killer = subprocess.Popen(["sh", "-c", f"sleep {after}; kill -9 -- -{servers[0].pid}"], start_new_session=True)
    try:
        first = worst(over.run(stage, before=lambda _: patient()))
        with suppress(ProcessLookupError):
            os.killpg(killer.pid, signal.SIGKILL)
        killer.wait()
        came, why = again(over, stage, first, mend)
    finally:
        for server in servers:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    return Tried(kind="registry's server killed", stage=stage, what=f"after {after:.2f} s", came=came, why=why)


def _start(runs: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a server over the registry in `runs`, and return it when it answers."""
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    where = ["--backend-store-uri", f"sqlite:///{runs / 'mlflow.db'}", "--artifacts-destination", str(runs / "served")]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", *address, *where]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, env=env, stdout=quiet, stderr=quiet, start_new_session=True)
    end = time.monotonic() + UP
    while time.monotonic() < end and server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            if answer.status == 200:
                return server
        time.sleep(0.1)
    raise RuntimeError("the MLflow server does not answer")
