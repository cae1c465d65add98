"""The undisturbed run that all others are held against, stage by stage, with what each of them changes on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import points
from children import launch
from scene import CONFIG, Scene, made, size

FIRST = date(2026, 11, 1)
TRAIN = {"epochs": 3, "batch": 128, "negatives": 30, "lr": 0.3, "evaluate_every": 1}
MODEL = {"kind": "mf", "temperature": 0.2}
NIGHTS: dict[str, Any] = {
    "name": "nights",
    "log": {"path": "log", "user": "user", "item": "item", "time": "time"},
    "split": {"kind": "global_time"},
    "teacher": {"model": MODEL | {"dim": 8}, "train": TRAIN, "warm": {"epochs": 2, "lr": 0.05}},
    "labels": {"depth": 20},
    "student": {"model": MODEL | {"dim": 4}, "train": TRAIN, "warm": {"epochs": 2}},
    "distill": [{"kind": "list", "weight": 1.0, "draw": [{"kind": "top", "k": 10}], "loss": {"kind": "softmax_kl"}}],
    "daily": {"window_days": 2},
    "index": {"factory": "Flat", "k": [10]},
    "report": {"k": [10], "metrics": ["ndcg"], "bootstrap": 20},
    "latency": {"queries": 100, "repeats": 3},
    "registry": {"model": "m", "gates": {"ndcg_at_10": {"min": 0.0}}},
    "exec": {"store": "runs/store", "device": "cpu", "threads": 1, "checkpoint_every": 1},
}
SYNTH = ("--users", "80", "--items", "60", "--events-per-user", "14")


def undisturbed(folder: Path, stages: tuple[str, ...], *, ranks: int = 1, database: Path | None = None) -> Scene:
    """Return a scene in `folder`, run stage by stage, and kept before each and at the end.

    `database` is an empty registry, which takes seconds to make.
    """
    scene = Scene(folder / "home", folder / "snaps", ranks, stages)
    scene.home.mkdir(parents=True)
    (scene.home / "c.yaml").write_text(json.dumps(CONFIG, indent=1))
    (ended,) = launch(["synth", "d", *SYNTH], scene.home)
    assert ended.code == 0, ended.said
    return _through(scene, database)


def nights(folder: Path, database: Path) -> Scene:
    """Return a scene of two nights, of which the second begins where the first ended."""
    stages = ("night 1", "night 2")
    days = [FIRST + timedelta(days=n) for n in (1, 3)]
    commands = {stage: ["run", "c.yaml", "--partition", str(day)] for stage, day in zip(stages, days, strict=True)}
    scene = Scene(folder / "home", folder / "snaps", 1, stages, commands=commands)
    scene.home.mkdir(parents=True)
    (scene.home / "c.yaml").write_text(json.dumps(NIGHTS, indent=1))
    _logged(scene, _plant)
    return _through(scene, database)


def _through(scene: Scene, database: Path | None) -> Scene:
    (scene.home / "runs").mkdir()
    if database is not None:
        shutil.copy(database, scene.home / "runs" / "mlflow.db")
    for stage in scene.stages:
        step(scene, stage)
    scene.keep("end")
    return scene


def _logged(scene: Scene, plant: Callable[[Path], None]) -> None:
    """Write a log in a child: what writes tables starts threads."""
    pid = os.fork()
    if not pid:
        try:
            plant(scene.home)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _plant(home: Path) -> None:
    """Write four days on which each user takes three items of their own third; some leave and some come."""
    import numpy as np
    import polars as pl

    for n in range(4):
        day, rng = FIRST + timedelta(days=n), np.random.default_rng(n)
        users, items = (range(4, 44), range(3, 38)) if n > 1 else (range(40), range(35))
        rows = [
            (f"u{user:03d}", int(item), datetime(day.year, day.month, day.day) + timedelta(seconds=int(second)))
            for user in users
            for item, second in zip(
                rng.choice([i for i in items if i % 3 == user % 3], 3, replace=False),
                rng.integers(86_400, size=3),
                strict=True,
            )
        ]
        place = home / "log" / f"date={day}"
        place.mkdir(parents=True)
        frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
        frame.write_parquet(place / "part.parquet")


def empty_registry(folder: Path) -> Path:
    """Return an empty MLflow database, made in a child."""
    file = folder / "empty.db"
    pid = os.fork()
    if not pid:
        try:
            from recdistill.tracking import initialise

            initialise(f"sqlite:///{file}", folder)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return file


def step(scene: Scene, stage: str) -> None:
    """Keep what there is, run to `stage`, and note what that changed."""
    scene.keep(stage)
    before = size(scene.home / "runs")
    notes = [scene.snaps / f".points-{rank}" for rank in range(scene.ranks)]

    def record(rank: int) -> None:
        file = os.open(notes[rank], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        points.at(scene.home, 0, points.kill, lambda what: os.write(file, f"{what}\n".encode()))

    ended = scene.run(stage, before=record)
    assert all(one.code == 0 for one in ended), f"{stage}: {ended}"
    scene.points[stage] = [note.read_text().splitlines() for note in notes]
    scene.whole[stage] = made(scene.home)
    scene.bytes[stage] = size(scene.home / "runs") - before
    scene.seconds[stage] = max(one.seconds for one in ended)
