"""One rank's part of what a step compares: rows that are cut out of those of the whole batch, and put together."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from recdistill.types import Candidates
from recdistill.world import World


def of_rank(world: World, *sizes: int) -> list[slice]:
    """Return this rank's rows of blocks of `sizes` rows each, one after the other, each block cut by itself."""
    found, start = list[slice](), 0
    for size in sizes:
        part = world.slice(size)
        first, last = start + part.start, start + part.stop
        if found and found[-1].stop == first:
            found[-1] = slice(found[-1].start, last)
        else:
            found.append(slice(first, last))
        start += size
    return found


def cut(candidates: Candidates, *parts: slice) -> Candidates:
    """Return the rows of `parts`, those of the first part first."""

    def of(table: Tensor) -> Tensor:
        if len(parts) == 1:
            return table[parts[0]]
        if table.stride(0) == 0:  # what is one row in memory stays so
            return table[: sum(part.stop - part.start for part in parts)]
        return torch.cat([table[part] for part in parts])

    def given(table: Tensor | None) -> Tensor | None:
        return None if table is None else of(table)

    return replace(
        candidates,
        items=of(candidates.items),
        teacher=of(candidates.teacher),
        logq=given(candidates.logq),
        gate=given(candidates.gate),
        taken=given(candidates.taken),
        parts=given(candidates.parts),
        subs=given(candidates.subs),
        trust=given(candidates.trust),
        right=given(candidates.right),
        seen=None if candidates.seen is None else _within(candidates.seen, *parts),
    )


def _within(pairs: tuple[Tensor, Tensor], *parts: slice) -> tuple[Tensor, Tensor]:
    """Return those of `pairs` of row and item whose row is in `parts`, the rows counted as `cut` leaves them."""
    row, item = pairs
    rows, items, before = list[Tensor](), list[Tensor](), 0
    for part in parts:
        kept = (row >= part.start) & (row < part.stop)
        rows.append(row[kept] - part.start + before)
        items.append(item[kept])
        before += part.stop - part.start
    return torch.cat(rows), torch.cat(items)
