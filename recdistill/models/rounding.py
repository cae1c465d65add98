"""Vectors as fewer bits keep them, while they are trained: what is compared is rounded, what learns is not.

The gradient goes straight through the rounding, as if it were not there (Bengio, Leonard and Courville, 2013, section
2.3). Items are rounded as a scalar quantiser of FAISS does, each dimension over its range in the catalogue; rows of
tables as `recdistill.serve_tables` does, each over its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp, all_reduce

from recdistill.models.lengths import prefixes
from recdistill.types import Space
from recdistill.world import processes

ROW_BITS = 8  # of the rows of users and histories: fewer are not kept where the student serves


def by_dimension(vectors: Tensor, bits: int, span: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return `vectors` [n,D] as FAISS reads them again from SQ8 or SQ4: the middles of 2**bits - 1 cells a dimension.

    The cells are those of `span`, the least and the greatest of each dimension [D], by default of `vectors`.
    """
    low, high = span_of(vectors) if span is None else span
    cells, wide = 2**bits - 1, high - low
    share = torch.where(wide > 0, (vectors - low) / wide, 0.0).clamp(0.0, 1.0)
    return low + ((share * cells).floor() + 0.5) / cells * wide


def by_row(rows: Tensor) -> Tensor:
    """Return `rows` [n,D] as a bundle with tables of int8 reads them again: 256 numbers over a row's own range."""
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    step = (high - low) / (2**ROW_BITS - 1)
    return torch.where(step > 0, ((rows - low) / step).round() * step, 0.0) + low


def span_of(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest number of each dimension of `vectors` [n,D]: [D] each."""
    return vectors.amin(0), vectors.amax(0)


def everyones(span: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest of all processes' spans; collective."""
    if processes() == 1:
        return span
    ends = torch.stack([-span[0], span[1]])
    all_reduce(ends, op=ReduceOp.MAX)
    return -ends[0], ends[1]


Cutter = Callable[[Tensor], list[Tensor]]
"""Vectors of items as they were looked up [n,D] -> as they are compared [n,w], by each width."""


def cutter(found: Tensor, ends: Sequence[int], space: Space, *, bits: int = 0) -> Cutter:
    """Return what makes of items' vectors what is compared, up to each of `ends`; collective with `bits`.

    With those they are rounded, over the range of all that were `found` [n,D].
    """
    if not bits:
        return lambda part: prefixes(part, ends, space)
    spans = [everyones(span_of(cut)) for cut in prefixes(found.detach(), ends, space)]

    def cuts(part: Tensor) -> list[Tensor]:
        seen = zip(prefixes(part, ends, space), spans, strict=True)
        return [straight(cut, by_dimension(cut.detach(), bits, span)) for cut, span in seen]

    return cuts


def straight(vectors: Tensor, seen: Tensor) -> Tensor:
    """Return `seen`, whose gradient is that of `vectors`, of the same shape."""
    return _Straight.apply(vectors, seen.detach())


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, seen: Tensor) -> Tensor:  # noqa: ARG004  # pyrefly: ignore
        return seen.view_as(seen)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004  # pyrefly: ignore
        return gradients[0], None
