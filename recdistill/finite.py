"""Numbers that are none: which loss of a training was the first, at which step and on which process; and where else.

A sum that is NaN or infinite stays so. So the losses are added up on the device as they come, beside them the number of
steps for which each sum was still a number, and nobody waits for either before somebody reads the sums anyway.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recdistill.errors import StageError
from recdistill.types import Float
from recdistill.world import World

LIST = 3  # of what is broken, so many are named


@dataclass(frozen=True, slots=True)
class Totals:
    """What the losses of the steps since `begin` add up to, [n] each, and for how many of them that was a number."""

    names: tuple[str, ...]
    sums: Tensor  # f64
    sound: Tensor  # i64
    begin: int


def added(
    totals: Totals | None, losses: Mapping[str, Tensor], each: Tensor, *, step: int, before: Mapping[str, float]
) -> Totals:
    """Return `totals` and the `losses` of `step`, which are `each` [n] as one tensor; their device is not waited for.

    Where there are no totals yet, they begin with what was summed `before`.
    """
    if totals is None:
        names = tuple(losses)
        sums = torch.tensor([before.get(name, 0.0) for name in names], dtype=torch.float64, device=each.device)
        totals = Totals(names, sums, torch.zeros_like(sums, dtype=torch.int64), step)
    sums = totals.sums + each
    return Totals(totals.names, sums, totals.sound + (sums - sums).eq(0), totals.begin)


def means(totals: Totals, world: World, *, where: str) -> dict[str, float]:
    """Return each sum averaged over the processes, whose batches are of one size; collective.

    Raises StageError on all of them alike if one is not finite: it names the losses that were the first not to be, the
    step, and of several processes the one.
    """
    whole = totals.sums.clone()
    if world.size > 1:
        import torch.distributed as dist

        dist.all_reduce(whole)
    found = dict(zip(totals.names, (whole / world.size).tolist(), strict=True))
    if not all(map(math.isfinite, found.values())):
        sound = world.gather(totals.sound.tolist())
        least = min(map(min, sound))
        rank = next(r for r, steps in enumerate(sound) if min(steps) == least)
        first = [name for name, steps in zip(totals.names, sound[rank], strict=True) if steps == least]
        _refuse(first, found, totals.begin + least, rank, world, where)
    return found


def _refuse(first: Sequence[str], found: Mapping[str, float], step: int, rank: int, world: World, where: str) -> None:
    one = len(first) == 1
    said = f"the loss{'' if one else 'es'} {', '.join(map(called, first))} {'is' if one else 'are'} no number"
    said += f" from step {step + 1} on{f', first on rank {rank}' if world.size > 1 else ''}"
    terms = [name for name in first if called(name) != name]
    less = f", or the weight of {called(terms[0])}" if terms and "task" not in first else ""
    fix = f"lower train.lr and train.dense_lr{less}; what was kept before that step is sound, and nothing was since"
    raise StageError(f"{said} ({_told(found[first[0]])} by now)", where=where, fix=fix)


def _told(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinite"


def called(name: str) -> str:
    """Return what a loss is called where it was written: `0.softmax_kl` is the first of `distill`."""
    term = re.fullmatch(r"(\d+)\.(.+)", name)
    return f"distill[{term[1]}] ({term[2]})" if term else name


def sound(state: Any, world: World, *, where: str, what: str) -> None:
    """Raise StageError on every process unless all numbers of `state` are finite, wherever they lie; collective.

    `state` is nested dicts of tensors, some of which processes hold parts of: a table is named with its rows.
    """
    broken = world.gather(list(_broken(state)))
    named = sorted({told for one in broken for told in one})
    if named:
        more = f", and {len(named) - LIST} more" if len(named) > LIST else ""
        fix = "lower train.lr and train.dense_lr: a step was too long; what was kept before is sound, and stays"
        raise StageError(f"{what} hold what is no number: {', '.join(named[:LIST])}{more}", where=where, fix=fix)


def _broken(state: Any) -> Iterator[str]:
    for name, row, tensor in _leaves(state, ""):
        if not tensor.is_floating_point() or not tensor.numel() or _all(tensor):
            continue
        if tensor.dim() < 2:
            yield name
            continue
        rows = (~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[:, 0]
        yield f"{name} in {len(rows)} of its {len(tensor)} rows here, first row {row + int(rows[0])}"


def _all(tensor: Tensor) -> bool:
    """Say whether all are finite, in one pass and no memory: the least and the most of them are NaN if one is."""
    return all(math.isfinite(float(end)) for end in torch.aminmax(tensor.detach()))


def _leaves(state: Any, name: str) -> Iterator[tuple[str, int, Tensor]]:
    """Yield what this process holds of `state`: the name, the first row, the numbers."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    elif hasattr(state, "local_shards"):
        for shard in state.local_shards():
            yield name, shard.metadata.shard_offsets[0], shard.tensor
    elif isinstance(state, Tensor):
        yield name, 0, state


def finite_rows(rows: Float, *, where: str, what: str) -> Float:
    """Return `rows` [n,D]; raises StageError, which counts and names them, if some hold what is no number."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        fix = "lower train.lr and train.dense_lr: vectors grew beyond what float32 can hold"
        said = f"{len(bad)} of {len(rows)} {what} hold what is no number, first row {bad[0]}"
        raise StageError(said, where=where, fix=fix)
    return rows
