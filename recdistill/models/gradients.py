"""A value as it is, with another gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """Return `x`; its gradient is multiplied by `factor`."""
    return _Scaled.apply(x, factor)


def windowed(x: Tensor, columns: tuple[int, int] | None) -> Tensor:
    """Return rows `x` [n,D] of which only `columns` [start, stop) learn, zeros from `stop` on; as they are for None."""
    if columns is None:
        return x
    start, stop = columns
    return torch.cat([scaled_gradient(x[:, :start], 0.0), x[:, start:stop], torch.zeros_like(x[:, stop:])], dim=1)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:  # pyrefly: ignore
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # pyrefly: ignore
        return gradients[0] * ctx.factor, None
