"""Checkpoints of a training in progress: written aside by all ranks, renamed by one, read on any number of ranks."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recdistill.models.tables import Distributed
from recdistill.world import World


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
    with _quiet():
        dcp.save(model.state(), checkpoint_id=partial)
    world.share(lambda: _publish(out, path, partial, state, keep))


def load_checkpoint(out: Path, model: Distributed, world: World) -> dict[str, Any] | None:
    """Load the newest checkpoint in `out` into `model` and return the loop's state; None without one; collective."""
    import torch.distributed.checkpoint as dcp

    found = world.share(lambda: _newest(out))
    if found is None:
        return None
    state = model.state()
    with _quiet():
        dcp.load(state, checkpoint_id=found)
    model.load(state)
    return json.loads((Path(found) / "state.json").read_text())


def _publish(out: Path, path: Path, partial: Path, state: dict[str, Any], keep: bool) -> None:
    (partial / "state.json").write_text(json.dumps(state))
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
    for old in out.glob("checkpoint-*"):
        if old != path:
            shutil.rmtree(old, ignore_errors=True)
    for weights in (*out.glob("weights-*.safetensors"), *out.glob("subclasses-*.safetensors")):
        if not keep and int(weights.stem.split("-")[1]) != state["best_step"]:
            weights.unlink()


def _newest(out: Path) -> str | None:
    found = [p for p in out.glob("checkpoint-*") if p.suffix != ".tmp" and (p / "state.json").is_file()]
    return str(max(found, key=lambda p: int(p.name.split("-")[1]))) if found else None


@contextmanager
def _quiet():  # noqa: ANN202
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
