"""Before several machines work together: that they mean the same run, and that all see one store."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from recdistill.errors import ArtifactError, ConfigError
from recdistill.world import World

PATIENCE = 3.0  # seconds in which a network file system must show on one machine what another has written


def agree(root: Path, world: World, meant: str) -> None:
    """Check that every rank is about to do what rank 0 does, and sees in the store `root` what it writes; collective.

    `meant` names the run. Nothing is checked on one machine. Raises ConfigError, or ArtifactError, on every rank.
    """
    if world.local in (None, world.size):
        return
    trace = Path(world.share(lambda: _trace(root)))
    seen = _appears(root / trace)
    said = {"host": platform.node(), "root": str(root.absolute()), "sees": seen, "meant": meant}
    found = world.gather(said)
    world.share(lambda: (root / trace).unlink())
    judge(found)


def judge(found: Sequence[Mapping[str, Any]]) -> None:
    """Raise what stands against a run of ranks that say `found` of themselves, rank 0 first."""
    first = found[0]
    for rank, other in enumerate(found):
        if other["meant"] != first["meant"]:
            what = f"rank {rank} on {other['host']} is about to run something else than rank 0 on {first['host']}"
            fix = "start all of them with the same file, the same options and the same version of recdistill"
            raise ConfigError(what, where="torchrun", fix=fix)
    blind = [rank for rank, other in enumerate(found) if not other["sees"]]
    if blind:
        other = found[blind[0]]
        what = f"rank {blind[0]} on {other['host']} does not see what rank 0 writes to {first['root']}"
        what += f" ({len(blind)} of {len(found)} ranks do not)"
        fix = "set exec.store to a directory on a disk that all machines share, by its absolute path"
        raise ArtifactError(what, where=other["root"], fix=fix)


def _trace(root: Path) -> str:
    root.mkdir(parents=True, exist_ok=True)
    file = root / f".seen-{uuid4().hex}"
    file.touch()
    return file.name


def _appears(file: Path) -> bool:
    end = time.monotonic() + PATIENCE
    while not file.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
