"""A value as it is, with another gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """Return `x`; its gradient is multiplied by `factor`."""
    return _Scaled.apply(x, factor)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:  # pyrefly: ignore
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # pyrefly: ignore
        return gradients[0] * ctx.factor, None
