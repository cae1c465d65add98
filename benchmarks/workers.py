"""The parent's side of a comparison: peers in processes and environments of their own, asked in turns.

So no peer shares threads, memory or versions with another, and each computes with as many threads as it was given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.timing import Round

PEERS = Path(__file__).resolve().parent / "peers"
THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA", "RAYON", "VECLIB_MAXIMUM")


def pinned(threads: int) -> dict[str, str]:
    """Return the environment of a process whose libraries compute with so many threads."""
    found = {**os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in THREADS}}
    return found | {"POLARS_MAX_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}


class PeerError(Exception):
    """A peer could not do what it was asked; the text is the last line of what it said."""


class Worker:
    """A process that does a round of its work for each call; seconds of a round are those of one unit of work."""

    def __init__(self, python: Path, script: str, log: Path, threads: int = 1) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.about = log, dict[str, Any]()
        with log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [str(python), str(PEERS / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=pinned(threads),
                cwd=log.parent,  # some leave things where they run
                text=True,
            )

    def __call__(self) -> Round:
        answer = self.ask(do="round")
        return Round(answer["wall"] / answer["work"], answer["cpu"] / answer["work"])

    def prepare(self, task: str, **asked: Any) -> Worker:
        self.about = self.ask(do="prepare", task=task, **asked)["about"]
        return self

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process: it ends with its input."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _last_words(self) -> str:
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return said[-1] if said else f"the process ended with {self.process.wait(20)}"


@contextmanager
def crew(log: Path) -> Iterator[Crew]:
    """Yield what starts workers, and end them all with the block."""
    made = Crew(log)
    try:
        yield made
    finally:
        for worker in made.workers.values():
            worker.close()


class Crew:
    """The workers of one comparison, by name; those that could not start are in `failed`, with what they said."""

    def __init__(self, log: Path) -> None:
        self.log, self.workers, self.failed = log, dict[str, Worker](), dict[str, str]()

    def add(
        self, name: str, script: str, task: str, *, python: Path | str | None = None, threads: int = 1, **asked: Any
    ) -> None:
        """Start a worker; `python` is that of its environment, or why there is none, and ours if left out."""
        if isinstance(python, str):
            self.failed[name] = python
            return
        stem = "".join(c if c.isalnum() else "-" for c in f"{name} {asked.get('batch', '')}").strip("-")
        worker = Worker(python or Path(sys.executable), script, self.log / f"{stem}.log", threads)
        try:
            self.workers[name] = worker.prepare(task, threads=threads, **asked)
        except PeerError as error:
            self.failed[name] = str(error)
            worker.close()

    def need(self, name: str) -> Worker:
        """Return the worker; raises PeerError if it could not start."""
        if name in self.failed:
            raise PeerError(f"{name}: {self.failed[name]}")
        return self.workers[name]

    def asked(self, name: str) -> dict[str, Any]:
        """Return what a worker says of itself and of its last round."""
        return self.workers[name].ask(do="about")["about"]
