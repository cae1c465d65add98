"""A small pipeline in a folder, kept before each stage, and what its artifacts are when nothing disturbs it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from children import Before, Ended, launch

CONFIG: dict[str, Any] = {
    "name": "faults",
    "log": {"path": "d/interactions.parquet", "user": "user_id", "item": "item_id", "time": "timestamp"},
    "features": {
        "users": {"path": "d/users.parquet", "categorical": ["segment"], "numeric": ["age"]},
        "items": {"path": "d/items.parquet", "multi": ["genres"], "numeric": ["price"]},
    },
    "split": {"kind": "user_chronological"},
    "teacher": {
        "model": {"kind": "ranker", "dim": 8, "heads": 2, "cross_layers": 1, "hidden": [16], "history": 8},
        "train": {"epochs": 2, "batch": 256, "negatives": 8},
    },
    "labels": {"depth": 20, "shard_users": 20},
    "student": {
        "model": {"kind": "two_tower", "dim": 8, "history": 8},
        "train": {"epochs": 2, "batch": 256, "negatives": 32, "list_users": 32},
    },
    "distill": [
        {
            "kind": "list",
            "weight": 1.0,
            "draw": [{"kind": "ranked", "k": 10}, {"kind": "unseen", "n": 10}],
            "loss": {"kind": "plackett_luce"},
        }
    ],
    "index": {"factory": "auto", "k": [10]},
    "report": {"k": [10], "metrics": ["ndcg", "recall"], "bootstrap": 20},
    "latency": {"queries": 100, "repeats": 3},
    "registry": {"model": "m", "gates": {"ndcg_at_10": {"min": 0.0}, "p95_ms": {"max": 60_000}}},
    "exec": {"store": "runs/store", "device": "cpu", "threads": 1, "checkpoint_every": 2},
}
STAGES = ("ingest", "split", "scratch", "teacher", "labels", "student", "index", "evaluate", "latency", "promote")
# What two undisturbed runs differ in: when, how long, on what, and the times that were measured.
OWN_TIME = ("created_at", "seconds", "env", "digest")
OWN_FACTS = ("build_s", "scored_at", "seconds_per_epoch")
OWN_NIGHT = ("decided_at", "digest", "report_sha256")
OWN_FILES = ("latency.json",)
SEEN = (".lock", ".stat", ".part")  # beside artifacts, and no part of them


@dataclass(slots=True)
class Scene:
    """A folder with a log and a configuration; `kept` has what it held before each stage, and `whole` after it."""

    home: Path
    snaps: Path
    ranks: int = 1
    stages: tuple[str, ...] = STAGES
    points: dict[str, list[list[str]]] = field(default_factory=dict)  # what each rank of a stage changes, in order
    whole: dict[str, dict[str, Any]] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)  # that a stage adds to the disk
    seconds: dict[str, float] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)  # by stage, of those that are not `run --until`

    def words(self, stage: str) -> list[str]:
        """Return the command that goes to `stage`."""
        return self.commands.get(stage) or ["run", "c.yaml", "--until", stage]

    @property
    def end(self) -> str:
        """Return the last stage."""
        return self.stages[-1]

    def run(self, stage: str, *, before: Before | None = None, **how: Any) -> list[Ended]:
        """Run the command to `stage`."""
        return launch(self.words(stage), self.home, ranks=self.ranks, before=before, **how)

    def restore(self, stage: str) -> None:
        """Bring back what there was before `stage`."""
        shutil.rmtree(self.home / "runs", ignore_errors=True)
        shutil.copytree(self.snaps / stage, self.home / "runs", symlinks=True)

    def keep(self, stage: str) -> None:
        """Keep what there is as what there was before `stage`."""
        (self.home / "runs").mkdir(exist_ok=True)
        shutil.copytree(self.home / "runs", self.snaps / stage)


def made(home: Path) -> dict[str, Any]:
    """Return what a home holds, without what may differ between two undisturbed runs.

    Every file of every artifact by its hash, every manifest, what is begun and not ended, and what the registry says.
    """
    found: dict[str, Any] = {}
    store = home / "runs" / "store"
    for path in sorted(store.rglob("*")) if store.is_dir() else []:
        name = path.relative_to(store).as_posix()
        if path.is_dir() or path.name.startswith(".") or path.suffix in SEEN or path.name in OWN_FILES:
            continue
        found[name] = _manifest(path) if path.name == "manifest.json" else digest(path)
    for path in (home / "runs").glob("daily/*/decision.json"):
        told = json.loads(path.read_text())
        found[f"decision of {path.parent.name}"] = {name: told[name] for name in told if name not in OWN_NIGHT}
    return found | {"registry": registry(home / "runs" / "mlflow.db")}


def digest(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(path: Path) -> Any:
    told = json.loads(path.read_text())
    if "facts" not in told:  # a bundle's, which says nothing of when it was made
        return told
    told = {name: value for name, value in told.items() if name not in OWN_TIME}
    told["facts"] = {name: value for name, value in told["facts"].items() if name not in OWN_FACTS}
    told["files"] = {name: value for name, value in told["files"].items() if name not in OWN_FILES}
    return told


def registry(file: Path) -> dict[str, Any]:
    """Return each version's bundle and verdict, and which version each alias names."""
    if not file.is_file():
        return {}
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute(
            "SELECT version, key, value FROM model_version_tags WHERE key IN"
            " ('recdistill.manifest_sha256', 'recdistill.gate', 'recdistill.partition')"
        ).fetchall()
        aliases = dict(database.execute("SELECT alias, version FROM registered_model_aliases").fetchall())
    tags: dict[str, dict[str, str]] = {}
    for version, key, value in rows:
        tags.setdefault(str(version), {})[key] = value
    return {"aliases": aliases, "versions": tags}


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return what is in one of both and not the same in the other."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


def size(folder: Path) -> int:
    """Return the bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
