"""LightGCN: matrix factorisation whose vectors are smoothed over the graph of who took what.

He et al. (LightGCN, SIGIR 2020, eq. 7-9): E^(l+1) = D^-1/2 A D^-1/2 E^(l), and the vectors are the mean of all layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recdistill.models.encoders import Group, pick, score_by_vectors
from recdistill.models.lengths import unit
from recdistill.models.tables import TableFactory
from recdistill.types import Interactions, Past, Space


class LightGCN(nn.Module):
    """An encoder that reads its whole tables at each step: every rank looks all rows up and smooths them itself."""

    def __init__(
        self,
        table: TableFactory,
        *,
        num_users: int,
        num_items: int,
        train: Interactions,
        dim: int,
        layers: int,
        space: Space,
        temperature: float,
        popularity: float = 0.0,
    ) -> None:
        super().__init__()
        self.space, self.temperature, self.layers = space, temperature, layers
        self.num_users, self.num_items = num_users, num_items
        self.user = table("user", num_users, dim)
        self.item = table("item", num_items, dim)
        self.graph = Graph(train, num_items)
        prior = popularity * log_popularity(train, num_items)
        self.register_buffer("prior", prior if popularity else None, persistent=False)

    def smoothed(self) -> tuple[Tensor, Tensor]:
        """Return the vectors of all users and items: [U,D], [I,D]."""
        device = next(self.parameters()).device
        users = self.user(torch.arange(self.num_users, device=device))
        items = self.item(torch.arange(self.num_items, device=device))
        sums = users, items
        for _ in range(self.layers):
            users, items = self.graph.gather_items(items), self.graph.gather_users(users)
            sums = sums[0] + users, sums[1] + items
        return sums[0] / (self.layers + 1), sums[1] / (self.layers + 1)

    def vectors(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return the vectors of `users` [B] (-1: unknown, zeros) and `items` [n] (-1: none, zeros): [B,D], [n,D]."""
        every_user, every_item = self.smoothed()
        return pick(every_user, users), pick(every_item, items)

    def trunk(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of `users` and `items`: nothing comes after them."""
        return self.vectors(users, past, items)

    def head(self, shared: Tensor) -> Tensor:
        """Return the vectors of users from what `trunk` gives: they are the same."""
        return shared

    def score(self, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
        """Return the scores of each group, [rows,K]; users [B]. The graph is walked once for all of them."""
        return self.shifted(score_by_vectors(self, users, past, groups), groups)

    def shifted(self, scores: Sequence[Tensor], groups: Sequence[Group]) -> list[Tensor]:
        """Return the products of vectors as `scores`: with what the prior adds, if there is one."""
        if self.prior is None:
            return list(scores)
        return [s + self.prior[g.items.clamp(min=0)] for s, g in zip(scores, groups, strict=True)]

    def prior_beside(self, left: Tensor, *sides: tuple[Tensor, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return vectors of users [B,D], and of each (vectors [n,D], items [n]), with the prior as one more column.

        As `all_vectors` gives them, so that the inner product is the score; without a prior they are as they were.
        """
        if self.prior is None:
            return left, [vectors for vectors, _ in sides]
        right = [torch.cat([vectors, self.prior[items].unsqueeze(1)], dim=1) for vectors, items in sides]
        return torch.cat([left, torch.ones_like(left[:, :1])], dim=1), right

    def all_vectors(self) -> tuple[Tensor, Tensor, Space]:
        """Return the vectors of everyone and everything, [U,D'] and [I,D'], and the space they are compared in.

        Who took nothing, and what nobody took, are zeros: their own rows were never taught. In dot space the
        inner product is the logit. A popularity prior is one more column, in dot space.
        """
        users, items = (unit(v, self.space) for v in self.smoothed())
        users = users * self.graph.known("items_of").unsqueeze(1)
        items = items * self.graph.known("users_of").unsqueeze(1)
        if self.space == "dot" or self.prior is not None:
            users = users / self.temperature
        if self.prior is None:
            return users, items, self.space
        ones = torch.ones(len(users), 1, device=users.device)
        return torch.cat([users, ones], dim=1), torch.cat([items, self.prior.unsqueeze(1)], dim=1), "dot"


def log_popularity(train: Interactions, num_items: int) -> Tensor:
    """Return the log of each item's share of `train`, an item without interactions counting as half of one: [I]."""
    counts = np.bincount(train.items, minlength=num_items).clip(min=0.5)
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))


class Graph(nn.Module):
    """The normalised adjacency as two sparse matrices, so that either direction, and its gradient, is row by row."""

    def __init__(self, train: Interactions, num_items: int) -> None:
        super().__init__()
        users, items = train.users(), np.array(train.items)
        degree = [np.bincount(users, minlength=train.num_users), np.bincount(items, minlength=num_items)]
        weight = 1 / np.sqrt(degree[0][users].astype(np.float64) * degree[1][items])
        sides = {"items_of": (users, items, degree[0]), "users_of": (items, users, degree[1])}
        for name, (row, column, count) in sides.items():
            order = np.lexsort((column, row))
            starts = np.concatenate([[0], np.cumsum(count)])
            for part, values in (
                ("starts", starts),
                ("columns", column[order]),
                ("weights", weight[order].astype(np.float32)),
            ):
                self.register_buffer(f"{name}_{part}", torch.from_numpy(values), persistent=False)
        self.shape = (train.num_users, num_items)

    def gather_items(self, items: Tensor) -> Tensor:
        """Return for each user the weighted sum over its items of `items` [I,D]: [U,D]."""
        return _Smooth.apply(items, self._matrix("items_of"), self._matrix("users_of"))

    def gather_users(self, users: Tensor) -> Tensor:
        """Return for each item the weighted sum over its users of `users` [U,D]: [I,D]."""
        return _Smooth.apply(users, self._matrix("users_of"), self._matrix("items_of"))

    def known(self, name: str) -> Tensor:
        """Return which rows of a side have any interaction."""
        return getattr(self, f"{name}_starts").diff() > 0

    def _matrix(self, name: str) -> Tensor:
        parts = [getattr(self, f"{name}_{part}") for part in ("starts", "columns", "weights")]
        size = self.shape if name == "items_of" else self.shape[::-1]
        with warnings.catch_warnings():  # torch calls its sparse matrices a beta, once a process
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
            return torch.sparse_csr_tensor(*parts, size=size, check_invariants=False)


class _Smooth(torch.autograd.Function):
    """A product with a fixed sparse matrix, whose gradient is that with its transpose, stored beside it."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:  # pyrefly: ignore
        ctx.transposed = transposed
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyrefly: ignore
        return ctx.transposed @ gradients[0].contiguous(), None, None
