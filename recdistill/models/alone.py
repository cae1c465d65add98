"""Lookups in a world of one: the kernel of a sharded table itself, where there is nothing to exchange with anybody.

TorchRec prepares every lookup for an exchange between ranks, which of one process takes as long as the lookup of a few
thousand rows. The kernel is the same either way, with the optimizer fused into its backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Kernel = Callable[[Tensor, Tensor], Tensor]
"""The sums of bags, [bags,D], of rows [n] that offsets [bags+1] cut into them."""


def kernel_of(sharded: nn.Module, rows: int, dim: int) -> Kernel | None:
    """Return the one kernel that holds a whole table [rows,dim] of a sharded collection, None where no single one does.

    A table that is cut by columns, or that every rank holds and an ordinary optimizer owns, is left to TorchRec.
    """
    lookups: list[Any] = list(getattr(sharded, "_lookups", ()))
    kernels: list[Any] = [each for lookup in lookups for each in getattr(lookup, "_emb_modules", ())]
    if len(lookups) != 1 or len(kernels) != 1:
        return None
    kernel: Any = getattr(kernels[0], "emb_module", None)
    shapes = [tuple(spec[:2]) for spec in getattr(kernel, "embedding_specs", ())]
    if shapes != [(rows, dim)] or not hasattr(kernel, "optimizer_args"):
        return None
    return lambda indices, offsets: kernel(indices=indices, offsets=offsets)
