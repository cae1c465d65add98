"""Checkpoints of a training in progress: written aside by all ranks, renamed by one, read on any number of ranks."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recdistill.errors import ArtifactError, StageError
from recdistill.models.tables import Distributed
from recdistill.types import Log, quiet
from recdistill.whole import publish, sha256, write_text
from recdistill.world import World

STATE, DIGESTS = "state.json", "digests.json"
READERS = 8  # files that are hashed at a time


def save_checkpoint(
    out: Path, model: Distributed, step: int, state: dict[str, Any], world: World, *, keep: bool = False
) -> None:
    """Write `model` and the loop's `state` to `out/checkpoint-<step>`, then drop older ones; collective.

    With `keep` the weights of all validations stay, else those of the best one alone.
    """
    import torch.distributed.checkpoint as dcp

    path = out / f"checkpoint-{step}"
    partial = path.with_suffix(".tmp")
    world.share(lambda: shutil.rmtree(partial, ignore_errors=True))
    with _plain():
        dcp.save(model.state(), checkpoint_id=partial)
    world.share(lambda: _publish(out, path, partial, state, keep))


def load_checkpoint(
    out: Path, model: Distributed, world: World, log: Log = quiet, *, ended: bool = False
) -> dict[str, Any] | None:
    """Load the newest whole checkpoint in `out` into `model` and return the loop's state; None without one; collective.

    One that is damaged is passed over, and `log` told of it: the training then begins again, and ends the same. Raises
    ArtifactError instead if `out` is of a training that has `ended`, which nobody would repeat; and at what no
    checkpoint of ours holds, before anything of it is run.
    """
    import torch.distributed.checkpoint as dcp

    from recdistill.checkpoint_reader import check_checkpoint

    found = world.share(lambda: _newest(out, log, ended=ended))
    if found is None:
        return None
    world.share(lambda: check_checkpoint(Path(found)))
    state = model.state()
    with _plain():
        dcp.load(state, checkpoint_id=found)
    model.load(state)
    return json.loads((Path(found) / STATE).read_text())


def drop_checkpoints(out: Path) -> None:
    """Take every checkpoint in `out` away, none of which is there in part on the way."""
    for torn in out.glob("checkpoint-*.tmp"):
        shutil.rmtree(torn)
    for path in out.glob("checkpoint-*"):
        shutil.rmtree(path.replace(path.with_suffix(".tmp")))


def _publish(out: Path, path: Path, partial: Path, state: dict[str, Any], keep: bool) -> None:
    write_text(partial / STATE, json.dumps(state))
    write_text(partial / DIGESTS, json.dumps(_digests(out, partial, state["best_step"]), indent=1))
    shutil.rmtree(path, ignore_errors=True)
    publish(partial, path)
    for old in out.glob("checkpoint-*"):
        if old != path:
            shutil.rmtree(old, ignore_errors=True)
    for weights in (*out.glob("weights-*.safetensors"), *out.glob("subclasses-*.safetensors")):
        if not keep and int(weights.stem.split("-")[1]) != state["best_step"]:
            weights.unlink()


def _digests(out: Path, partial: Path, best: int) -> dict[str, str]:
    """Return the hash of every file that a training goes on with: those of its checkpoint, and those beside it."""
    beside = [out / f"{name}-{best}.safetensors" for name in ("weights", "subclasses")]
    guides = sorted(out.glob("guide-*.npz"), key=_step)[-1:]  # the refresh that the step before read
    files = [*(file for file in partial.iterdir() if file.name != DIGESTS), *filter(Path.is_file, beside), *guides]
    names = [file.name if file.parent == partial else f"../{file.name}" for file in files]
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(names, pool.map(sha256, files), strict=True))


def _newest(out: Path, log: Log, *, ended: bool) -> str | None:
    there = [p for p in out.glob("checkpoint-*") if p.suffix != ".tmp" and (p / STATE).is_file()]
    for path in sorted(there, key=_step, reverse=True):
        odd = _damaged(path)
        if odd is None:
            return str(path)
        if ended:
            fix = "delete the directory and run the same command again"
            raise ArtifactError(f"{odd} is not what was written", where=str(path.parent), fix=fix)
        log(f"{path}: {odd} is not what was written: going on without this checkpoint", 0, 0, {})
    return None


def _damaged(path: Path) -> str | None:
    """Return the first file of a checkpoint that is not what was written; None where all are, or nothing is known."""
    try:
        json.loads((path / STATE).read_text())
        digests = json.loads((path / DIGESTS).read_text())
    except FileNotFoundError:  # written before there were digests
        return None
    except (OSError, ValueError):
        return f"{STATE} or {DIGESTS}"

    def same(name: str) -> bool:
        return (path / name).is_file() and sha256(path / name) == digests[name]

    with ThreadPoolExecutor(READERS) as pool:
        return next((name for name, whole in zip(digests, pool.map(same, digests), strict=True) if not whole), None)


def _step(path: Path) -> int:
    return int(path.stem.split("-")[1])


@contextmanager
def _plain() -> Iterator[None]:
    """Say nothing of torch's own future inside the block, and raise what a rank met as it is.

    What torch raises of it is no Exception, and passes every handler by.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except CheckpointException as all_:
            rank, (cause, _) = next(iter(all_.failures.items()))
            raise cause if isinstance(cause, OSError) else StageError(f"{cause}", where=f"rank {rank}") from None
