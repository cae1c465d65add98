"""The teacher's vectors as a student's can be compared with them: centred, of one scale, smoothed; or as scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill.distill.graph import co_taken, smooth_all
from recdistill.distill.subclass import sub_logits
from recdistill.types import Dataset, Float, Int, Labels, Vectors

Sides = tuple[Tensor, Tensor]
Near = tuple[Sides, Sides]
"""(neighbours [U,k], weights [U,k]) of all users, and the same of all items."""


class Scores(NamedTuple):
    """The teacher's scores of any items for some rows."""

    left: Tensor  # [R,D]
    right: Tensor  # [I,D]
    head: tuple[Float, Float] | None = None  # weights [2S,D] and biases [2S] of its sub-logits

    def __call__(self, items: Tensor) -> Tensor:
        """Return the scores of `items` [R,n]."""
        if items.stride(0) == 0:  # the same items for every row
            return self.left @ self.right[items[0].clamp(min=0)].T
        return torch.bmm(self.right[items.clamp(min=0)], self.left.unsqueeze(2)).squeeze(2)

    def subs(self, items: Tensor) -> Tensor:
        """Return the sub-logits of `items` [R,n], [R,n,2S]."""
        assert self.head is not None, "a teacher without subclasses has no sub-logits"
        return sub_logits(self.left, self.right[items.clamp(min=0)], *map(torch.from_numpy, self.head))


def scores_of(taught: Vectors, rows: Int) -> Scores:
    """Return the scores for `rows` [R] of users, as products of vectors."""
    return Scores(torch.from_numpy(taught.users[rows]), torch.from_numpy(np.asarray(taught.items)))


def comparable(taught: Vectors) -> Sides:
    """Return both sides centred, their mean squared length 1, so that a weight means the same for any teacher.

    A dimension in which one side does not vary, such as the constant beside a popularity prior, is gone.
    """
    users, items = _centred(taught.users), _centred(taught.items)
    kept = _varies(users) & _varies(items)
    return _scaled(users[:, kept]), _scaled(items[:, kept])


def _centred(vectors: Float) -> Float:
    known = np.abs(vectors).sum(1) > 0  # who has no vector is no part of the mean, and stays zeros
    mean = vectors[known].mean(0, dtype=np.float64) if known.any() else np.zeros(vectors.shape[1])
    return np.where(known[:, None], vectors - mean, 0.0).astype(np.float32)


def _varies(centred: Float) -> NDArray[np.bool_]:
    return centred.std(0) > 1e-6 * max(float(centred.std()), 1e-12)


def _scaled(centred: Float) -> Tensor:
    squared = np.square(centred, dtype=np.float64).sum(1)
    length = np.sqrt(squared[squared > 0].mean()) if (squared > 0).any() else 1.0
    return torch.from_numpy((centred / length).astype(np.float32))


def looks(labels: Labels | None, users: Tensor) -> Sides:
    """Return the whole lists of `users` [R], [R,K], and the gradients of their teacher's confidence by gates, [R,L]."""
    assert labels is not None
    assert labels.gates is not None, "nobody has asked the teacher where it looks: labels.gates"
    rows = users.numpy()
    return torch.from_numpy(labels.take(rows)[0]), torch.from_numpy(np.array(labels.gates[rows]))


def neighbours(
    dataset: Dataset,
    table: Sides,
    *,
    neighbours: int,
    alpha: float,
    keep: float,  # noqa: ARG001
) -> tuple[Near, Sides]:
    """Return who is taken together with whom, and `table` smoothed over that."""
    train = dataset.train
    by_item = co_taken(train, num_items=dataset.num_items, neighbours=neighbours, side="items")
    by_user = co_taken(train, num_items=dataset.num_items, neighbours=neighbours, side="users")
    sides = [
        torch.from_numpy(smooth_all(vectors.numpy(), *near, alpha=alpha))
        for vectors, near in zip(table, (by_user, by_item), strict=True)
    ]
    near = tuple((torch.from_numpy(rows), torch.from_numpy(weights)) for rows, weights in (by_user, by_item))
    return (near[0], near[1]), (sides[0], sides[1])
