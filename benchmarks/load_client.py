"""Clients that ask a server over HTTP: on a schedule that no slow answer delays, or one request after the other."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from threading import Thread

import numpy as np

HEAD = {"content-type": "application/json"}
PATIENCE = 120.0  # seconds until an answer is given up


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and what came of it; seconds are of the clock of the run."""

    body: int  # which of the bodies
    due: float  # when it was to be sent: waiting for a connection counts
    ended: float
    status: int | None  # None if nobody answered
    version: int | None
    text: bytes
    again: bool  # a kept connection was closed under it, and it was asked again on a new one


@dataclass(slots=True)
class Line:
    """A connection that is kept as long as the server keeps it."""

    host: str
    port: int
    made: http.client.HTTPConnection | None = None

    def ask(self, body: bytes) -> tuple[int, int, bytes, bool]:
        """Return status, version, answer, and whether it was asked again; OSError or HTTPException if nobody answers.

        A server may close a connection that is kept at the very time of a request, which has then reached nobody: every
        client of HTTP asks again.
        """
        kept = self.made is not None
        try:
            return *self._ask(body), False
        except (ConnectionError, http.client.RemoteDisconnected):
            if not kept:
                raise
        return *self._ask(body), True

    def _ask(self, body: bytes) -> tuple[int, int, bytes]:
        line = self.made or http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        self.made = None
        line.request("POST", "/invocations", body, HEAD)
        answer = line.getresponse()
        text = answer.read()
        if not answer.will_close:
            self.made = line
        else:
            line.close()
        return answer.status, int(answer.headers.get("recdistill-version") or 0), text


def arrivals(rate: float, seconds: float, seed: int) -> np.ndarray:
    """Return the times, in seconds, at which requests of independent users come: a Poisson process."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds * 1.5) + 20)
    times = np.cumsum(gaps)
    return times[times < seconds]


def open_loop(
    address: tuple[str, int], bodies: Sequence[bytes], times: np.ndarray, order: np.ndarray, lines: int
) -> list[Asked]:
    """Ask body order[n] at times[n], by whichever of `lines` connections is free; returns every request, in order.

    What is late because all connections wait is late in what is measured, too: time runs from when it was due.
    """
    found: list[Asked | None] = [None] * len(times)
    turn = count()
    started = time.perf_counter() + 0.2

    def work() -> None:
        line = Line(*address)
        while (n := next(turn)) < len(times):  # a counter of the interpreter's own: one step, whoever takes it
            wait = started + times[n] - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            found[n] = _one(line, bodies, int(order[n]), started, float(times[n]))

    workers = [Thread(target=work) for _ in range(lines)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [asked for asked in found if asked is not None]


def closed_loop(
    address: tuple[str, int], bodies: Sequence[bytes], lines: int, *, seconds: float
) -> tuple[float, list[Asked]]:
    """Ask on `lines` connections, each as soon as it was answered; returns answers a second, and every request."""
    found: list[list[Asked]] = [[] for _ in range(lines)]
    started = time.perf_counter()

    def work(mine: list[Asked], first: int) -> None:
        line = Line(*address)
        for n in count(first):
            now = time.perf_counter() - started
            if now > seconds:
                return
            mine.append(_one(line, bodies, n % len(bodies), started, now))

    workers = [Thread(target=work, args=(mine, 17 * n)) for n, mine in enumerate(found)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    asked = [one for mine in found for one in mine]
    return sum(one.status == http.client.OK for one in asked) / max(one.ended for one in asked), asked


def _one(line: Line, bodies: Sequence[bytes], body: int, started: float, due: float) -> Asked:
    try:
        status, version, text, again = line.ask(bodies[body])
    except (OSError, http.client.HTTPException) as cause:
        return Asked(body, due, time.perf_counter() - started, None, None, repr(cause).encode(), False)
    return Asked(body, due, time.perf_counter() - started, status, version, text, again)


def judged(asked: Sequence[Asked], expected: dict[int, list[list[dict[str, object]]]]) -> dict[str, int]:
    """Return how many requests were answered as each version answers them, wrongly, busily, otherwise, and not at all.

    expected[version][body] is what that version answers to a body, to the last digit.
    """
    found = {"right": 0, "wrong": 0, "busy": 0, "failed": 0, "lost": 0, "again": sum(one.again for one in asked)}
    found |= {f"version {version}": 0 for version in expected}
    for one in asked:
        if one.status is None:
            found["lost"] += 1
        elif one.status == http.client.SERVICE_UNAVAILABLE:
            found["busy"] += 1
        elif one.status != http.client.OK:
            found["failed"] += 1
        elif one.version in expected and json.loads(one.text)["predictions"] == expected[one.version][one.body]:
            found["right"] += 1
            found[f"version {one.version}"] += 1
        else:
            found["wrong"] += 1
    return found
