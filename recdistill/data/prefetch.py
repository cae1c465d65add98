"""Batches drawn ahead: while a step computes, a thread draws the next ones and brings them to the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recdistill.data.batches import Sampler, make_batches
from recdistill.types import Batch
from recdistill.world import World

Draw = Callable[[int], Batch]


def batches_ahead(sampler: Sampler, world: World, steps: int, depth: int) -> Draw:
    """Return the function from a step to this rank's slice of its batch, drawn up to `depth` of all `steps` ahead.

    What follows the student is never drawn ahead: it asks, together with all ranks, for what the student has learned.
    """
    if sampler.lessons is not None and sampler.lessons.follows:
        depth = 0
    drawn = make_batches(sampler, replace(world, device="cpu") if depth else world)
    return ahead(drawn, steps, depth, world.device)


def ahead(batch: Draw, steps: int, depth: int, device: str = "cpu") -> Draw:
    """Return the function step -> Batch that gives what `batch` gives, up to `depth` steps drawn before they are asked.

    A single thread draws one step after the other, in the order in which they are asked for, so that no two touch what
    `batch` keeps between calls. Nothing from `steps` on is drawn. An error is raised at the step whose batch it hit.
    A batch must depend on its step alone, never on what is learned until then. Where `device` is a GPU, `batch` draws
    on the CPU; the copies are from pinned memory and on a stream of their own.
    """
    if depth < 1:
        return batch
    waiting: deque[tuple[int, Future[Batch]]] = deque()
    pool = ThreadPoolExecutor(1, "batches")  # whose thread ends when nobody holds the function any more
    draw = batch if device == "cpu" else _shipped(batch, device)

    def take(step: int) -> Batch:
        while waiting and waiting[0][0] != step:  # somebody goes elsewhere than to the next step
            waiting.popleft()[1].cancel()
        first = waiting[-1][0] + 1 if waiting else step
        for later in range(first, max(step + 1, min(step + 1 + depth, steps))):
            waiting.append((later, pool.submit(draw, later)))
        found = waiting.popleft()[1].result()
        if device != "cpu":  # the memory was taken on the copying stream, and may not go back to it before it was read
            stream = torch.cuda.current_stream()
            mapped(found, lambda tensor: tensor.record_stream(stream))
        return found

    return take


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return `value`, a dataclass, mapping or tuple of such, with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: mapped(part, change) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(mapped(part, change) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: mapped(getattr(value, f.name), change) for f in fields(value)})
    return value


def _shipped(batch: Draw, device: str) -> Draw:
    stream = torch.cuda.Stream(torch.device(device))

    def draw(step: int) -> Batch:
        with torch.cuda.stream(stream):
            held = mapped(batch(step), Tensor.pin_memory)
            found = mapped(held, lambda tensor: tensor.to(device, non_blocking=True))
            stream.synchronize()  # of the copies alone; the step that computes is on another stream
        return found

    return draw
