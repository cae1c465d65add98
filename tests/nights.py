"""Nights in Dagster for tests: a planted log, configurations, and Dagster over them in processes that are forked."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import zygote

ROOT = Path(__file__).parents[1]
THERE = all(importlib.util.find_spec(name) for name in ("dagster", "dagster_pipes"))
NEEDS_DAGSTER = pytest.mark.skipif(not THERE, reason="Dagster is not installed: make test-dagster")
# Dagster's Pipes call what Dagster itself gives up or has as a preview.
OWN = ("ignore::DeprecationWarning", "ignore:.*is currently in (preview|beta)")
FIRST = date(2026, 11, 1)
TRAIN = {"epochs": 2, "batch": 256, "negatives": 45, "lr": 0.3}
MODEL = {"kind": "mf", "temperature": 0.2}
CONFIG: dict[str, Any] = {
    "name": "nights",
    "features": None,
    "log": {"path": "log", "user": "user", "item": "item", "time": "time"},
    "split": {"kind": "global_time"},
    "teacher": {"model": MODEL | {"dim": 8}, "train": TRAIN},
    "labels": {"depth": 20},
    "student": {"model": MODEL | {"dim": 4}, "train": TRAIN},
    "distill": [{"kind": "list", "weight": 1.0, "draw": [{"kind": "top", "k": 10}], "loss": {"kind": "softmax_kl"}}],
    "daily": {"window_days": 2},
    "index": {"factory": "Flat", "k": [10]},
    "report": {"k": [10], "metrics": ["ndcg"], "bootstrap": 20},
    "latency": {"queries": 100, "repeats": 3},
    "registry": {"model": "nights", "gates": {"ndcg_at_10": {"min": 0.0}, "p95_ms": {"max": 60_000}}},
}
# Has a module run as a fork of a process that has torch loaded: to load it nine times a night is half a minute.
FORK = """
import json, os, socket, sys, tempfile
from pathlib import Path
with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as line:
    out, err = (str(Path(folder) / name) for name in ("out", "err"))
    line.connect(sys.argv[1])
    asked = {"words": sys.argv[3:], "home": os.getcwd(), "env": dict(os.environ), "out": out, "err": err}
    line.sendall(json.dumps(asked).encode() + b"\\n")
    with line.makefile() as said:
        said.readline()
        code = int(said.readline())
    print(Path(out).read_text(), end="")
    print(Path(err).read_text(), end="", file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True)
class Ran:
    """What came of the night of a day in Dagster."""

    result: Any

    @property
    def made(self) -> dict[str, dict[str, Any]]:
        events = self.result.get_asset_materialization_events()
        found = [event.event_specific_data.materialization for event in events]
        return {m.asset_key.path[-1]: {name: value.value for name, value in m.metadata.items()} for m in found}

    @property
    def checks(self) -> dict[str, bool]:
        return {each.check_name: each.passed for each in self.result.get_asset_check_evaluations()}

    @property
    def kinds(self) -> list[str]:
        return [event.event_type_value for event in self.result.all_events]


@dataclass(frozen=True)
class Nights:
    """A directory with a log and configurations, and Dagster over it."""

    home: Path
    launch: tuple[str, ...]
    instance: Any

    def definitions(self, config: str) -> Any:
        from pipelines.daily import definitions

        return definitions(Path(config), first=str(FIRST), launch=self.launch, home=self.home)

    def __call__(self, config: str, day: str, *only: str) -> Ran:
        import dagster as dg

        name = Path(config).stem
        job = self.definitions(config).resolve_job_def(f"{name}_night")
        keys = [dg.AssetKey([name, each]) for each in only] or None
        how = {"partition_key": day, "instance": self.instance, "raise_on_error": False, "asset_selection": keys}
        return Ran(job.execute_in_process(**how))


def plant(home: Path, n: int) -> None:
    """Write the log of day `n`, on which each user takes three items of their own third."""
    day, rng = FIRST + timedelta(days=n), np.random.default_rng(n)
    start = datetime(day.year, day.month, day.day)
    rows = [
        (f"u{user:03d}", int(item), start + timedelta(seconds=int(rng.integers(86_400))))
        for user in range(60)
        for item in rng.choice([i for i in range(45) if i % 3 == user % 3], 3, replace=False)
    ]
    place = home / "log" / f"date={day}"
    place.mkdir(parents=True)
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_parquet(place / "part.parquet")


@pytest.fixture(scope="module")
def nights(tiny, tmp_path_factory):
    import dagster as dg

    from pipelines import daily

    home = type(tiny)(tmp_path_factory.mktemp("dagster"))
    for n in range(3):
        plant(home.home, n)
    home.config("nights", **CONFIG)
    strict = {"ndcg_at_10": {"min": 1.5}, "p95_ms": {"max": 60_000}}
    home.config("strict", **CONFIG | {"registry": {"model": "nights", "gates": strict}})
    (home.home / "fork.py").write_text(FORK)
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(ROOT))
    patch.setattr(daily, "RETRIES", dg.RetryPolicy(max_retries=2))  # at once
    launch = (sys.executable, str(home.home / "fork.py"), zygote._server())
    with dg.DagsterInstance.ephemeral() as instance:
        yield Nights(home=home.home, launch=launch, instance=instance)
    patch.undo()
