"""The artifact store: every stage's result is an immutable directory named by the hash of what made it.

<root>/<stage>/<fingerprint>/            whole: manifest.json is there and every size matches
<root>/<stage>/<fingerprint>.partial/    work in progress, or what a killed run left to continue from
<root>/<stage>/<fingerprint>.lock        held by the one writer; the system frees it when that process dies
<root>/<stage>/<fingerprint>.stat        what the file system said of its files when they were last hashed
<root>/<stage>/<fingerprint>.*.part      held by each of several processes that fill a partial directory together
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from recdistill.errors import ArtifactError
from recdistill.manifest import FORMAT, REBUILD, damaged, manifest_text, read_manifest
from recdistill.manifest import NAME as MANIFEST
from recdistill.spec import canonical, fingerprint
from recdistill.types import Artifact, FileEntry, Manifest
from recdistill.whole import SIGNED, note, publish, sha256, untouched, write_text
from recdistill.whole import aside as aside  # which stages write their files with
from recdistill.world import World

PATIENCE = 10  # seconds to wait for a lock that is commonly held for a moment
State = Literal["hit", "partial", "miss"]
Work = Callable[[Path], Mapping[str, Any] | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """A stage about to run: what it is called, what it means, what it reads."""

    stage: str
    version: int  # raised by hand when the same config and inputs come to mean another result
    config: Any
    inputs: Mapping[str, str]  # name -> fingerprint
    resumes: bool = False  # the stage continues from what a killed run left in its partial directory
    collective: bool = False  # every rank works; otherwise rank 0 does and the others wait

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.stage, self.version, self.config, self.inputs)


def directory(root: Path, step: Step) -> Path:
    """Return where the artifact of `step` is, or will be."""
    return root / step.stage / step.fingerprint


def state(root: Path, step: Step) -> State:
    """Say whether `step` is done, begun or absent, without spending anything."""
    path = directory(root, step)
    if (path / MANIFEST).is_file():
        return "hit"
    return "partial" if step.resumes and path.with_suffix(".partial").is_dir() else "miss"


def build(root: Path, world: World, step: Step, work: Work) -> Artifact:
    """Return the artifact of `step`, running `work(directory)` only if it is not there; collective.

    Raises ArtifactError if another process is building the same artifact, or if what is there is damaged.
    """
    path = directory(root, step)
    if _found(root, world, step):
        return open_artifact(path, hit=True)
    if step.collective and world.size > 1:
        lock = world.share_local(lambda: _lock(path))
        try:
            if _found(root, world, step):  # the process that held the lock before us has finished it
                return open_artifact(path, hit=True)
            started = time.monotonic()
            world.share(lambda: _begin(path, resumes=step.resumes))
            facts = work(path.with_suffix(".partial"))
            world.barrier()
            world.share(lambda: _seal(path, step, facts, started, world.size))
        finally:
            if lock is not None:
                lock.release()
    else:
        world.share(lambda: _build_alone(path, step, work))
    return open_artifact(path)


def _found(root: Path, world: World, step: Step) -> bool:
    """Say whether the artifact of `step` is there, having checked it; collective."""

    def look() -> bool:
        there = state(root, step) == "hit"
        if there:
            open_checked(directory(root, step))
        return there

    return world.share(look)


@contextmanager
def part(root: Path, step: Step, name: str) -> Iterator[Path | None]:
    """Yield the partial directory of `step` to a process that fills `name`, a part of it, beside others; None if done.

    Such a process must leave alone what others write. Raises ArtifactError if another one fills the same part, or is
    building the whole artifact; the artifact is not built while a part is being filled.
    """
    path = directory(root, step)
    mine = FileLock(path.with_suffix(f".{name}.part"))
    whole = _lock(path, PATIENCE)  # for a moment, in which another part may be beginning too
    try:
        done = (path / MANIFEST).is_file()
        if not done:
            _acquire(mine, path, f"another process is filling part {name} of this artifact")
            path.with_suffix(".partial").mkdir(exist_ok=True)
    finally:
        whole.release()
    try:
        yield None if done else path.with_suffix(".partial")
    finally:
        mine.release()


def _build_alone(path: Path, step: Step, work: Work) -> None:
    lock = _lock(path)
    try:
        if (path / MANIFEST).is_file():  # the process that held the lock before us has finished it
            return
        for held in sorted(path.parent.glob(f"{path.name}.*.part")):
            name = held.name.split(".")[1]
            _acquire(other := FileLock(held), path, f"another process is filling part {name} of this artifact")
            other.release()
            held.unlink(missing_ok=True)  # nobody begins a part while we hold the lock of the whole
        started = time.monotonic()
        _begin(path, resumes=step.resumes)
        try:
            facts = work(path.with_suffix(".partial"))
        except BaseException:
            if not step.resumes:
                shutil.rmtree(path.with_suffix(".partial"), ignore_errors=True)
            raise
        _seal(path, step, facts, started, 1)
    finally:
        lock.release()


def _lock(path: Path, seconds: float = 0) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    _acquire(lock, path, "another process is building this artifact", seconds)
    return lock


def _acquire(lock: FileLock, path: Path, what: str, seconds: float = 0) -> None:
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        fix = "wait for it to end and run the same command again: its result will be found"
        raise ArtifactError(what, where=str(path), fix=fix) from None


def _begin(path: Path, *, resumes: bool) -> None:
    if path.exists():  # before anything is spent on what could not get this name
        raise ArtifactError(f"no {MANIFEST}: not a whole artifact", where=str(path), fix=REBUILD)
    partial = path.with_suffix(".partial")
    if not resumes:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    # What a killed run was writing when it died is no part of the result.
    (partial / MANIFEST).unlink(missing_ok=True)
    for leftover in partial.rglob(".*.tmp"):
        leftover.unlink()


def _seal(path: Path, step: Step, facts: Mapping[str, Any] | None, started: float, processes: int) -> None:
    """Write the manifest last, flush everything to disk, and give the directory its name."""
    partial = path.with_suffix(".partial")
    files = {
        str(f.relative_to(partial)): FileEntry(sha256=sha256(f), size=f.stat().st_size)
        for f in sorted(partial.rglob("*"))
        if f.is_file() and f.suffix != SIGNED
    }
    manifest = Manifest(
        format=FORMAT,
        stage=step.stage,
        version=step.version,
        fingerprint=step.fingerprint,
        config=json.loads(canonical(step.config)),
        inputs=dict(step.inputs),
        files=files,
        facts=dict(facts or {}),
        env=environment() | {"processes": str(processes)},
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
    )
    write_text(partial / MANIFEST, manifest_text(manifest))
    publish(partial, path)
    for signature in path.rglob(f".*{SIGNED}"):  # what the manifest says from now on
        signature.unlink()
    note(path)


def open_checked(path: Path, *, hit: bool = False) -> Artifact:
    """Return the artifact at `path`, all its files hashed again unless nothing was written to them since they were.

    Raises ArtifactError, as `open_artifact` and `verify` do.
    """
    artifact = open_artifact(path, hit=hit)
    if not untouched(path):
        verify(artifact)
        note(path)
    return artifact


def open_artifact(path: Path, *, hit: bool = False) -> Artifact:
    """Return the artifact at `path` after checking that it is whole (sizes, not contents: see `verify`).

    Raises ArtifactError if it is missing, truncated, or written by a newer version.
    """
    return Artifact(path=path, manifest=read_manifest(path), hit=hit)


def verify(artifact: Artifact) -> None:
    """Rehash every file of `artifact`; raises ArtifactError at the first that differs from the manifest."""
    for name, entry in artifact.manifest.files.items():
        if sha256(artifact.path / name) != entry.sha256:
            raise damaged("contents differ from the manifest", artifact.path / name)


PACKAGES = ("torch", "torchrec", "polars", "pyarrow", "faiss-cpu", "mlflow", "numpy")


def environment() -> dict[str, str]:
    """Return the versions and the machine that a result was made with."""
    known = {d: metadata.version(d) for d in PACKAGES if _installed(d)}
    return known | {"python": platform.python_version(), "machine": platform.platform(), "cpus": str(os.cpu_count())}


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
