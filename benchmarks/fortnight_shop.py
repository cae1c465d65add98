"""One shop of fortnight.py: a directory with a log that grows, a configuration, a store and a registry."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from fortnight_world import day_of

from recdistill import registry

ROOT = Path(__file__).parent.parent
NIGHTS, MODEL, K = 14, "shop", 10
AGAIN = 3  # starts of a night that ended as only another start can mend
TRAIN = {"batch": 512, "negatives": 128, "lr": 0.2, "evaluate_every": 2}
CONFIG: dict[str, Any] = {
    "name": MODEL,
    "log": {"path": "log", "user": "user", "item": "item", "time": "time", "min_user": 3, "min_item": 3},
    "split": {"kind": "global_time", "valid_fraction": 0.03, "test_fraction": 0.07},
    "teacher": {
        "model": {"kind": "mf", "dim": 64, "temperature": 0.15},
        "train": TRAIN | {"epochs": 16},
        "warm": {"epochs": 6, "lr": 0.2},
    },
    "labels": {"depth": 100},
    "student": {
        "model": {"kind": "mf", "dim": 16, "temperature": 0.15},
        "train": TRAIN | {"epochs": 6, "list_users": 128},
        "warm": {"epochs": 4, "lr": 0.2},
    },
    "distill": [
        {"kind": "list", "weight": 1.0, "loss": {"kind": "plackett_luce"}}
        | {"draw": [{"kind": "ranked", "k": 40, "temperature": 10}, {"kind": "unseen", "n": 160}]}
    ],
    "daily": {
        "window_days": 14,
        "full_on_drift": 0.25,
        "alarms": {"last_day_ratio": {"min": 0.5, "max": 2.0}},
    },
    "index": {"factory": "Flat", "k": [K]},
    "report": {"k": [K], "metrics": ["ndcg", "recall"], "bootstrap": 500},
    "latency": {"queries": 100, "repeats": 3},
    "registry": {"model": MODEL, "gates": {"ndcg_at_10": {"min": 0.02, "max_relative_drop_vs_champion": 0.25}}},
}


class Shop:
    """The directory `home`, in which commands run; `always` lies over `CONFIG` on every night."""

    def __init__(self, home: Path, always: Mapping[str, Any] | None = None) -> None:
        self.home, self.always, self.cost = home, dict(always or {}), list[float]()
        home.mkdir()

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(self._command(words), cwd=self.home, env=self._env(), capture_output=True, text=True)

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "pipelines", *words]

    def _env(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(ROOT)}

    def deliver(self, day: int, rows: pl.DataFrame) -> None:
        """Put a day's file into the log, in the place of one that is there."""
        place = self.home / "log" / f"date={day_of(day)}"
        place.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(place / "part.parquet")

    def spoil(self, day: int) -> None:
        """Cut a day's file in its middle, as a copy that was broken off leaves it."""
        file = self.home / "log" / f"date={day_of(day)}" / "part.parquet"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    def write(self, over: Mapping[str, Any], name: str = "nightly.yaml") -> None:
        """Write the configuration of the night, with `over` on top."""
        (self.home / name).write_text(yaml.safe_dump(_merged(_merged(CONFIG, self.always), over), sort_keys=False))

    def night(self, day: int) -> tuple[int, dict[str, Any]]:
        """Run the night of a day as a scheduler does: another start where that may mend it; exit code and summary."""
        words = ("run", "nightly.yaml", "--partition", str(day_of(day)), "--json")
        for _ in range(AGAIN):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            ended = self(*words)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            self.cost.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            if ended.returncode in (0, 3, 4, 6):
                return ended.returncode, json.loads(ended.stdout)
            if ended.returncode == 2:
                break
        raise SystemExit(f"night {day}: exit code {ended.returncode}\n{ended.stdout}{ended.stderr}")

    def kill(self, day: int) -> None:
        """Start the night of a day, and kill it without warning once its teacher is trained."""
        fits = self.home / "runs" / "store" / "fit"
        before = len(list(fits.glob("*/manifest.json")))
        words = ("run", "nightly.yaml", "--partition", str(day_of(day)), "--json")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = subprocess.Popen(
            self._command(words), cwd=self.home, env=self._env(), start_new_session=True, **quiet
        )
        while running.poll() is None and len(list(fits.glob("*/manifest.json"))) == before:
            time.sleep(0.05)
        assert running.poll() is None, "the night was over before it could be killed"
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()

    def race(self, day: int, rival: Mapping[str, Any]) -> list[int]:
        """Judge the night's student and that of another configuration, promote both at once, and return exit codes."""
        self.write(rival, "rival.yaml")
        versions = list[str]()
        for name in ("nightly.yaml", "rival.yaml"):
            judged = self("run", name, "--partition", str(day_of(day)), "--until", "judge", "--json")
            versions.append(str(json.loads(judged.stdout)["version"]))
        commands = [self._command(("promote", MODEL, "--version", version)) for version in versions]
        racing = [subprocess.Popen(c, cwd=self.home, env=self._env(), stderr=subprocess.DEVNULL) for c in commands]
        return [promoter.wait() for promoter in racing]

    def version(self, alias: str) -> int:
        """Return the version that an alias names, 0 if there is none."""
        return next((v["version"] for v in registry.history(self._uri, MODEL) if alias in v["aliases"]), 0)

    def bundle(self, version: int) -> Path:
        """Return the bundle of a version, every file checked."""
        return registry.fetch(self._uri, MODEL, version)

    @property
    def _uri(self) -> str:
        return f"sqlite:///{self.home / 'runs' / 'mlflow.db'}"

    def history(self) -> list[tuple[str, str]]:
        """Return the day and the verdict of every version, the first first."""
        found = sorted(registry.history(self._uri, MODEL), key=lambda v: v["version"])
        return [(v["partition"], v["gate"]) for v in found]


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `under` with `over` laid on top, mapping by mapping, None to leave out; gates of `over` stand alone."""
    found = dict(under)
    for name, value in over.items():
        deeper = isinstance(value, Mapping) and isinstance(found.get(name), Mapping) and name != "gates"
        found[name] = _merged(found[name], value) if deeper else value
    return {name: value for name, value in found.items() if value is not None}
