"""Vectors as their inner product is meant: at length 1 in cosine space; whole, or their first numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recdistill.models.inner import SHORTEST
from recdistill.types import Space


def unit(vectors: Tensor, space: Space) -> Tensor:
    """Return `vectors` as their inner product is meant: of length 1 in cosine space, as they are in dot space."""
    return _Unit.apply(vectors) if space == "cosine" else vectors


def prefixes(vectors: Tensor, widths: Sequence[int], space: Space) -> list[Tensor]:
    """Return the first w numbers of `vectors` [n,D] for each of `widths`, as the product of those alone is meant.

    [n,w] each; in cosine space every one is divided by its own length. A single width is all of them, by `unit`.
    """
    if len(widths) == 1:
        return [unit(vectors, space)]
    return list(_Prefixes.apply(vectors, tuple(widths), space == "cosine"))


def lengths_over(vectors: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Return 1 over the length of the first w numbers of `vectors` [n,D] for each of `widths`, [n,1] each."""
    vectors = vectors if vectors.itemsize >= 4 else vectors.float()
    squares = (vectors[:, :width].square().sum(1, keepdim=True) for width in widths)
    return [square.clamp(min=SHORTEST**2).rsqrt() for square in squares]


class _Unit(torch.autograd.Function):
    """Vectors over their lengths, in fewer passes over memory than its parts would take."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:  # pyrefly: ignore
        ctx.dtype = vectors.dtype
        found, over = _over(vectors)
        ctx.save_for_backward(found, over)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # pyrefly: ignore
        found, over = ctx.saved_tensors
        return _back(gradients[0], found, over).to(ctx.dtype)


class _Prefixes(torch.autograd.Function):
    """The gradients of all widths add up in one table, where slices would have one each."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, widths: tuple[int, ...], cosine: bool) -> tuple[Tensor, ...]:  # pyrefly: ignore
        ctx.dtype, ctx.shape, ctx.cosine = vectors.dtype, vectors.shape, cosine
        if not cosine:
            return tuple(vectors[:, :width].clone() for width in widths)
        made = [_over(vectors[:, :width]) for width in widths]
        ctx.save_for_backward(*(tensor for pair in made for tensor in pair))
        return tuple(found for found, _ in made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyrefly: ignore
        total, saved = gradients[0].new_zeros(ctx.shape), ctx.saved_tensors
        for i, gradient in enumerate(gradients):
            back = _back(gradient, *saved[2 * i : 2 * i + 2]) if ctx.cosine else gradient
            total[:, : gradient.shape[1]] += back
        return total.to(ctx.dtype), None, None


def _over(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return `vectors` [n,D] at length 1, and by what they were multiplied, [n,1]."""
    if vectors.itemsize < 4:  # half precision is of products, not of lengths
        vectors = vectors.float()
    over = vectors.square().sum(-1, keepdim=True).clamp_(min=SHORTEST**2).rsqrt_()
    return vectors * over, over


def _back(gradient: Tensor, found: Tensor, over: Tensor) -> Tensor:
    """Return the gradient of vectors from that of what `_over` made of them."""
    along = (gradient * found).sum(-1, keepdim=True)
    return torch.addcmul(gradient, found, along, value=-1).mul_(over)
