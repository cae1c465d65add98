"""No test may reach another machine: what is not loopback or a local socket fails at once. And one tiny run for all."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # modules here are loaded by their files

import zygote

LOOPBACK = ("127.", "::1", "localhost")
# Threads that wait for each other by spinning take the processor from whoever they wait for: on two busy cores a test
# of seconds takes minutes. Read when torch is loaded, here and in every process that a test starts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other half of the tests runs beside this one


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, _local_only(getattr(socket.socket, name)))
    yield
    patch.undo()


def _local_only(method: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in {socket.AF_INET, socket.AF_INET6} and not str(address[0]).startswith(LOOPBACK):
            raise RuntimeError(f"a test tried to connect to {address}")
        return method(self, address)

    return guarded


ROOT = Path(__file__).parents[1]
TINY: dict[str, Any] = {
    "name": "tiny",
    "log": {"path": "d/interactions.parquet", "user": "user_id", "item": "item_id", "time": "timestamp"},
    "features": {
        "users": {"path": "d/users.parquet", "categorical": ["segment"], "numeric": ["age"]},
        "items": {"path": "d/items.parquet", "multi": ["genres"], "numeric": ["price"]},
    },
    "split": {"kind": "user_chronological"},
    "teacher": {
        "model": {
            "kind": "ranker",
            "dim": 8,
            "heads": 2,
            "cross_layers": 1,
            "hidden": [16],
            "history": 8,
        },
        "train": {"epochs": 2, "batch": 512, "negatives": 8},
    },
    "labels": {"depth": 30},
    "student": {
        "model": {"kind": "two_tower", "dim": 8, "history": 8},
        "train": {"epochs": 3, "batch": 512, "negatives": 64, "list_users": 64},
    },
    "distill": [
        {
            "kind": "list",
            "weight": 1.0,
            "draw": [{"kind": "ranked", "k": 10}, {"kind": "unseen", "n": 20}],
            "loss": {"kind": "plackett_luce"},
        }
    ],
    "index": {"factory": "auto", "k": [10]},
    "report": {"k": [10], "metrics": ["ndcg", "recall"], "slices": ["activity"], "bootstrap": 50},
    "latency": {"queries": 100, "repeats": 3},
    "registry": {"model": "tiny-model", "gates": {"ndcg_at_10": {"min": 0.0}, "p95_ms": {"max": 60_000}}},
    "exec": {"store": "runs/store", "device": "cpu", "threads": 1},
}
# Kills its own process group before the first rename whose new name matches the pattern: as sudden as kill -9, and
# at the same place every time, which a test that watches the directory from outside cannot promise.
KILLER = """\
import os, re, signal, sys
pattern = re.compile(sys.argv.pop(1))
def hook(event, arguments):
    if event == "os.rename" and pattern.search(os.fspath(arguments[1])):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from pipelines.__main__ import main
sys.exit(main())
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    """A folder with a small log that can be learned, and the commands run there."""
    found = Tiny(tmp_path_factory.mktemp("tiny"))
    made = found("synth", "d", "--users", "200", "--items", "150", "--events-per-user", "25")
    assert made.returncode == 0, made.stderr
    (found.home / "killer.py").write_text(KILLER)
    return found


@pytest.fixture(scope="session")
def done(tiny) -> SimpleNamespace:
    """One whole run to a promoted version, with the plan before it; tests add to its store, and change nothing."""
    config = tiny.config("run")
    before = tiny("plan", config, "--json")
    process = tiny("run", config, "--json")
    assert process.returncode == 0, process.stdout + process.stderr
    outcome = json.loads(process.stdout)
    stages = {row["stage"]: row for row in outcome["stages"]}
    return SimpleNamespace(config=config, before=before, process=process, outcome=outcome, stages=stages)


@dataclass(frozen=True)
class Tiny:
    """A folder to run commands in, each in a process of its own."""

    home: Path

    def __call__(
        self, *words: str, processes: int = 1, kill: str | None = None, timeout: int = 280
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on `processes`; with `kill`, end it before it renames something to a name that matches.

        Several processes that are killed are torchrun's, which ends the others with the one.
        """
        program = ["pipelines"] if kill is None else [str(self.home / "killer.py"), kill]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        if processes == 1:
            return zygote.run([*program, *words], home=self.home, env=env, timeout=timeout)
        if kill is None:
            return zygote.ranks([*program, *words], home=self.home, env=env, timeout=timeout, processes=processes)
        head = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        head += program
        with subprocess.Popen(
            [*head, *words],
            cwd=self.home,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def config(self, name: str, /, **sections: Any) -> str:
        """Write a configuration, with `sections` in the place of those of TINY, without those that are None."""
        chosen = {key: value for key, value in (TINY | sections).items() if value is not None}
        (self.home / f"{name}.yaml").write_text(json.dumps(chosen, indent=1))
        return f"{name}.yaml"

    def at(self, stage: str, row: dict[str, Any], store: str = "runs/store") -> Path:
        """Return where the artifact of a row of `run --json` is."""
        return self.home / store / stage / row["fingerprint"]
