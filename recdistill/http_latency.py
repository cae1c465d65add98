"""What a caller of the served student waits for: an MLflow scoring server on loopback, asked by a process of its own.

One connection that is kept open, one user a request, the next request when the answer to the last one is read.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from recdistill import serve
from recdistill.errors import RecdistillError
from recdistill.latency_child import users_of
from recdistill.latency_stats import summarise
from recdistill.turns import Answer, Take, Worker, take_turns, work_in_turns

HOST = "127.0.0.1"
START = 120.0  # seconds that a server may take to come up
QUERIES, REPEATS, WARMUP = 200, 5, 50


class NotServed(Exception):
    """The server did not come up."""


def measure_http(
    bundle: Path, *, label: str, k: int, exclude: bool, queries: int = QUERIES, repeats: int = REPEATS
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the row, with part `http`, of `repeats` times `queries` requests, and the environment it holds in.

    Without a server there is no row, and the environment says why it was `skipped`.
    """
    facts: dict[str, Any] = {"server": "MLflow scoring server, one worker, loopback", "connections": 1, "batch": 1}
    try:
        with serving(bundle) as port:
            asked = {"bundle": str(bundle.absolute()), "port": port, "k": k, "exclude": exclude}
            asked |= {"queries": queries, "repeats": repeats}
            (answer,) = take_turns([Worker("recdistill.http_latency", asked)], repeats)
    except (NotServed, RecdistillError, OSError, ImportError) as cause:
        return [], facts | {"skipped": str(cause)}
    return [{"model": label, "part": "http", **answer["row"]}], facts | {"queries": answer["row"]["queries"]}


@contextmanager
def serving(bundle: Path) -> Iterator[int]:
    """Serve `bundle` inside the block, by the command that `mlflow models serve` runs; yields its port.

    Raises NotServed if it does not come up.
    """
    from recdistill.pyfunc import save_to_serve

    with tempfile.TemporaryDirectory(prefix="recdistill-http-") as folder:
        port = _free_port()
        command, environment = save_to_serve(bundle, Path(folder) / "model", host=HOST, port=port)
        with (Path(folder) / "log").open("w+b") as log:
            server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
            try:
                _wait(server, port, Path(folder) / "log")
                yield port
            finally:
                server.terminate()
                with suppress(subprocess.TimeoutExpired):
                    server.wait(timeout=10)
                server.kill()
                server.wait()


def begin(request: dict[str, Any]) -> tuple[Take, Answer]:
    """Connect and warm up; a turn is one repeat."""
    bundle, k = serve.open_bundle(Path(request["bundle"])), request["k"]
    params = {"k": k, "exclude_seen": request["exclude"]}
    ids = users_of(bundle, request["queries"])
    bodies = [json.dumps({"dataframe_records": [{"user_id": i}], "params": params}).encode() for i in ids]
    connection = http.client.HTTPConnection(HOST, request["port"], timeout=60)
    _ask(connection, (bodies * (1 + WARMUP // len(bodies)))[:WARMUP])
    times = np.empty((request["repeats"], request["queries"]))

    def take(turn: int) -> None:
        times[turn] = _ask(connection, bodies)

    def answer() -> dict[str, Any]:
        connection.close()
        return {"row": summarise(times) | {"size_bytes": None}}

    return take, answer


def _ask(connection: http.client.HTTPConnection, bodies: Sequence[bytes]) -> list[float]:
    """Return the seconds from each request to the last byte of its answer."""
    times = []
    for body in bodies:
        started = time.perf_counter()
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        times.append(time.perf_counter() - started)
        if response.status != http.client.OK:
            raise RuntimeError(f"the server answered {response.status}: {text[:500].decode(errors='replace')}")
    return times


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and server.poll() is None:
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", "/ping")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise NotServed(f"the scoring server did not come up: {said[-1][-300:] if said else 'it said nothing'}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    sys.exit(work_in_turns(Path(sys.argv[1]), begin, serve.BundleError))
