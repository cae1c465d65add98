"""Files that are not what they were: bits that flip, ends that are missing, blocks of zeros, names that are gone."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import points
from children import Ended
from kinds import Broken, Tried, again, no_matter, patient, remove, worst
from scene import Scene, made

WAYS = ("flip", "flip", "truncate", "empty", "zeros", "gone")
NAMED = re.compile(r"runs/store/\w+/[0-9a-f]{32}(?:\.partial/[\w./-]*labels-\d+\.arrow)?")


def strike(file: Path, random: Random) -> str:
    """Damage a file in a random way, and say how."""
    size = file.stat().st_size
    way = random.choice(WAYS) if size else "gone"
    place = random.randrange(size) if size else 0
    if way == "gone":
        file.unlink()
    elif way == "truncate" or way == "empty":
        with file.open("r+b") as handle:
            handle.truncate(place if way == "truncate" else 0)
    else:
        with file.open("r+b") as handle:
            handle.seek(place)
            was = handle.read(1 if way == "flip" else 512)
            bit = 1 << random.randrange(8)
            put = bytes([was[0] ^ bit]) if way == "flip" else bytes(len(was))
            if put == was:  # zeros already: something else is there from now on
                put = b"\x01" * len(was)
            handle.seek(place)
            handle.write(put)
    return f"{way} at {place} of {size}"


def mending(scene: Scene, file: Path, kept: Path) -> Broken:
    """Return what puts right what a command named: the artifact or shard is deleted, any other file is restored."""

    def mend(ended: Ended) -> None:
        named = NAMED.search(ended.said)
        if named is not None:
            remove(scene.home / named[0])
        else:
            remove(file)
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(kept, file)

    return mend


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock")


def sealed(scene: Scene, _: str, random: Random) -> Tried:
    """Damage to a random file of a random artifact, of a kind of file that is chosen first; then the whole command.

    Most often the command to what needs no registry, of which there is more in an hour.
    """
    early = "latency" in scene.stages and random.random() < 0.95
    end = "evaluate" if early else scene.end
    scene.restore("latency" if early else "end")
    if random.random() < 0.5:  # what the file system says of the files is then known, and tells of the damage
        scene.run(end)
    store = scene.home / "runs" / "store"
    kinds: dict[str, list[Path]] = {}
    for file in _files(store):
        kinds.setdefault("manifest" if file.name == "manifest.json" else file.suffix, []).append(file)
    kind = random.choice(sorted(kinds))
    file = random.choice(kinds[kind])
    return _damaged(scene, end, file, random, file.relative_to(store).parts[0], f"damaged {kind}")


def base(scene: Scene, _: str, random: Random) -> Tried:
    """Damage to what a night begins from, before it has decided so: it is made again by the night that made it."""
    first, second = scene.stages
    scene.restore(second)
    if random.random() < 0.5:
        scene.run(first)
    store = scene.home / "runs" / "store"
    file = random.choice([file for stage in ("ingest", "split", "fit") for file in _files(store / stage)])
    what = f"{file.relative_to(store)}: {strike(file, random)}"

    def mend(ended: Ended) -> None:
        named = NAMED.search(ended.said)
        if named is not None:
            remove(scene.home / named[0])
        scene.run(first)

    came, why = again(scene, second, None, mend)
    return Tried(kind="damaged base of a night", stage=second, what=what, came=came, why=why)


def begun(scene: Scene, stage: str, random: Random) -> Tried:
    """Damage to a random file of what a killed stage left to go on from."""
    scene.restore(stage)
    many = scene.points[stage][0]
    number = random.randint(len(many) // 4, len(many))

    def before(rank: int) -> None:
        patient()
        if rank == 0:
            points.at(scene.home, number, points.kill)

    scene.run(stage, before=before)
    left = [file for each in scene.home.glob("runs/store/*/*.partial") for file in _files(each)]
    if not left:
        return Tried(kind="damaged work in progress", stage=stage, what="nothing was left", came="survived")
    return _damaged(scene, stage, random.choice(left), random, stage, "damaged work in progress")


def beside(scene: Scene, _: str, random: Random) -> Tried:
    """Damage to a random file outside of the store: reports, the registry's database, the decision of a night."""
    scene.restore("end")
    runs = scene.home / "runs"
    chosen = [file for file in _files(runs) if "store" not in file.relative_to(runs).parts[:1]]
    groups: dict[str, list[Path]] = {}
    for file in chosen:
        groups.setdefault(file.relative_to(runs).parts[0], []).append(file)
    groups.pop("mlartifacts", None)  # which nothing here reads: who serves does, and checks it
    last = scene.words(scene.end)[-1]  # of the decisions of nights, only that of the one whose command is given
    if "daily" in groups:
        groups["daily"] = [file for file in groups["daily"] if last in file.parent.name]
    group = random.choice(sorted(groups))
    return _damaged(scene, scene.end, random.choice(groups[group]), random, "promote", f"damaged {group}")


def _damaged(scene: Scene, stage: str, file: Path, random: Random, where: str, kind: str) -> Tried:
    kept = scene.snaps / "kept"
    shutil.copy2(file, kept)
    what = f"{file.relative_to(scene.home / 'runs')}: {strike(file, random)}"
    if file.suffix == ".db" and file.exists() and _reads(file) and not _says_the_same(scene, stage):
        # SQLite keeps no sums: a bit of a text is then another text, which only a copy of it can tell; so is nothing.
        shutil.copy2(kept, file)
    came, why = again(scene, stage, None, mending(scene, file, kept))
    return Tried(kind=kind, stage=where, what=what, came=came, why=why)


def _says_the_same(scene: Scene, stage: str) -> bool:
    try:
        return made(scene.home) == scene.whole[stage]
    except sqlite3.Error:
        return False


def _reads(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(file)) as database:
            return database.execute("PRAGMA quick_check").fetchone() == ("ok",)
    except sqlite3.Error:
        return False


def locked(scene: Scene, _: str, random: Random) -> Tried:
    """A registry's database that another process keeps to itself, for longer than anybody waits."""
    stage = scene.end
    scene.restore(stage)
    with closing(sqlite3.connect(scene.home / "runs" / "mlflow.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        first = worst(scene.run(stage, before=lambda _: patient(), limit=200))
    came, why = again(scene, stage, first, no_matter)
    return Tried(kind="registry locked", stage="promote", what="BEGIN EXCLUSIVE", came=came, why=why)


def stages_with_work(stages: Sequence[str]) -> list[str]:
    """Return the stages that go on from what a killed one left."""
    return [stage for stage in stages if stage in ("scratch", "teacher", "labels", "student")]
