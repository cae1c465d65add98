"""Where a student's tables begin that does not begin at random: at the dimensions in which its teacher says most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill.topk import blocks
from recdistill.types import Float, Vectors

BLOCK = 65_536  # rows whose products are summed at once in float64


@dataclass(frozen=True, slots=True)
class Projection:
    """One side of the teacher, of which any rows can be taken in the student's dimensions."""

    vectors: Float  # [n,D]
    mean: NDArray[np.float64]  # [D]
    turn: NDArray[np.float64]  # [D,d]

    def __call__(self, start: int, stop: int) -> Tensor:
        """Return the rows [start, stop) in the student's dimensions; who has no vector gets zeros."""
        rows = np.asarray(self.vectors[start:stop])
        moved = np.where(rows.any(1, keepdims=True), rows - self.mean, 0.0)
        return torch.from_numpy((moved @ self.turn).astype(np.float32))


def principal(taught: Vectors, dim: int, *, scale: float = 1.0) -> tuple[Projection, Projection]:
    """Return users and items in at most `dim` dimensions, whose products come nearest to the teacher's scores.

    What all items have in common moves a user's scores by one number and orders nothing, so it is taken out first: of
    what is left this is the best approximation in squares (Eckart & Young, 1936), times `scale`. It comes from D x D
    products of each side: no table of users times items is ever there. Both sides have rows of one mean square, so
    that one learning rate suits both.
    """
    nothing = np.zeros(taught.users.shape[1])
    mean = _mean(taught.items)
    left, right = _gram(taught.users, nothing), _gram(taught.items, mean)
    (root_left, back_left), (root_right, back_right) = _root(left), _root(right)
    u, s, v = np.linalg.svd(root_left @ root_right)
    rank = min(dim, int((s > 1e-9 * max(s[0], 1e-300)).sum()))
    sign = np.sign(u[np.abs(u[:, :rank]).argmax(0), np.arange(rank)])  # which a decomposition leaves open
    half = sign * np.sqrt(s[:rank] * scale)
    by_user, by_item = back_left @ u[:, :rank] * half, back_right @ v[:rank].T * half
    # The sums of squares of both sides are the same; their means are not, where there are more of one.
    even = (_known(taught.users) / max(_known(taught.items), 1)) ** 0.25
    return Projection(taught.users, nothing, by_user * even), Projection(taught.items, mean, by_item / even)


def _parts(vectors: Float) -> Iterator[NDArray[np.float64]]:
    """Yield the rows that are not all zeros, block by block."""
    for start, stop in blocks(len(vectors), BLOCK):
        rows = np.asarray(vectors[start:stop], np.float64)
        yield rows[rows.any(1)]


def _known(vectors: Float) -> int:
    return sum(len(rows) for rows in _parts(vectors))


def _mean(vectors: Float) -> NDArray[np.float64]:
    total = sum((rows.sum(0) for rows in _parts(vectors)), np.zeros(vectors.shape[1]))
    return total / max(_known(vectors), 1)


def _gram(vectors: Float, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    width = vectors.shape[1]
    return sum(((rows - mean).T @ (rows - mean) for rows in _parts(vectors)), np.zeros((width, width)))


def _root(gram: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the square root of a positive matrix and that root's inverse, zero where the matrix has nothing."""
    values, axes = np.linalg.eigh(gram)
    root = np.sqrt(np.clip(values, 0.0, None))
    there = root > 1e-9 * max(root.max(initial=0.0), 1e-300)
    back = np.divide(1.0, root, out=np.zeros_like(root), where=there)
    return axes * root @ axes.T, axes * back @ axes.T
