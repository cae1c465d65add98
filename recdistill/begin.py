"""Where a training begins: at a checkpoint of its own, where another training ended, or with what that one learned."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from recdistill.checkpoint import load_checkpoint
from recdistill.models.build import Model
from recdistill.models.spec import MFSpec, ModelSpec
from recdistill.models.tables import Distributed, Rows, Table
from recdistill.moved import moved
from recdistill.start import principal
from recdistill.store import aside
from recdistill.teaching import Teaching
from recdistill.train import Progress
from recdistill.types import Log, quiet
from recdistill.world import World
from recdistill.yesterday import carried

WEIGHTS = "weights.safetensors"


def end(part: tuple[int, int], epochs: int, steps_per_epoch: int) -> int:
    """Return the step at which part k, from 0, of K ends: whole epochs, which differ by one at most."""
    number, of = part
    return (number + 1) * epochs // of * steps_per_epoch


def starts(
    model: Model,
    spec: ModelSpec,
    teaching: Teaching | None,
    after: Path | None,
    since: Path | None,
    *,
    std: float,
    seed: int,
) -> dict[str, Rows]:
    """Return by module what the tables begin with that do not begin at random, and fill what is dense of `model`.

    `after` is a fit that the training goes on from, `since` what yesterday's teacher left. Who is new begins as it
    would at random with `std` and `seed`. A model in cosine space divides its scores by a temperature.
    """
    found = {} if since is None else moved(model, since, "teacher", std=std, seed=seed)
    if teaching is not None and teaching.start == "yesterday":
        assert teaching.yesterday is not None
        if isinstance(spec, MFSpec):
            found |= carried(teaching.yesterday, std=std, seed=seed)
        else:
            assert teaching.yesterday.path is not None
            found |= moved(model, teaching.yesterday.path, "student", std=std, seed=seed)
    if teaching is not None and teaching.start == "teacher":
        assert isinstance(spec, MFSpec)
        assert teaching.labels is not None
        assert teaching.labels.vectors is not None
        users, items = principal(teaching.labels.vectors, spec.dim, scale=spec.temperature)
        found |= {"model.user": users, "model.item": items}
    return found | learned(model, after)


def learned(model: Model, after: Path | None) -> dict[str, Rows]:
    """Fill what is dense of `model` with what `after` has learned, and return what its tables begin with, by module.

    Nothing is filled if `after` is None. Its weights are of the same model over the same users and items. Optimizers
    begin anew: Adagrad's first steps, before it has summed any gradients, are then as long as in a new training.
    """
    if after is None:
        return {}
    file = after / WEIGHTS
    tables = {f"{name}.weight": name for name, child in model.named_modules() if isinstance(child, Table)}
    with safe_open(file, "pt") as found:
        model.load_state_dict({name: found.get_tensor(name) for name in set(found.keys()) - set(tables)}, strict=False)
    return {f"model.{module}": partial(_rows, file, name) for name, module in tables.items()}


def resume(out: Path, model: Distributed, world: World, after: Path | None = None, log: Log = quiet) -> Progress:
    """Bring `model` to where the training in `out` was, else to where `after` ended, if it kept that; collective.

    Of a training that is cut in parts all goes on, not its weights alone: the sums of Adagrad, the moments of Adam, the
    factors of balanced terms, what terms have learned, and what was best so far. So it is the training that it would
    be in one piece, bit for bit, but for what each part is taught.
    """
    found = load_checkpoint(out, model, world, log)
    if found is None and after is not None:
        found = load_checkpoint(after, model, world, ended=True)
        best = None if found is None else after / f"weights-{found['best_step']}.safetensors"
        if best is not None:  # which stay the best of all if no later validation finds better
            world.share(lambda: _copy(best, out / best.name) if best.is_file() else None)
    return Progress() if found is None else Progress(**found | {"curve": tuple(found["curve"])})


def _rows(file: Path, name: str, start: int, stop: int) -> Tensor:
    with safe_open(file, "pt") as found:
        return found.get_slice(name)[start:stop]


def _copy(source: Path, target: Path) -> None:
    with aside(target) as new:
        shutil.copyfile(source, new)
