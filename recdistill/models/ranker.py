"""The ranking teacher: it scores (user, candidate) pairs from everything known of both, by no inner product.

The candidate attends to the user's history (target attention, Zhou et al., KDD 2018), crosses of bounded degree
mix all fields (DCN-V2, Wang et al., WWW 2021, eq. 1), and an MLP reads the result beside the crosses.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from recdistill.models.encoders import Group
from recdistill.models.tables import TableFactory
from recdistill.types import Features, Past


class Fields(nn.Module):
    """The fields of one side, all rows of one table: the id, then each categorical and multi-valued column.

    An entity is looked up as one bag a field, so that a side costs one exchange whatever its number of fields.
    """

    def __init__(self, table: TableFactory, name: str, num_rows: int, features: Features, dim: int) -> None:
        super().__init__()
        base = num_rows
        columns = []
        for column, codes in features.categorical.items():
            columns.append((np.arange(num_rows + 1, dtype=np.int64), codes + base))
            base += features.sizes[column]
        for column, (offsets, codes) in features.multi.items():
            columns.append((offsets, codes + base))
            base += features.sizes[column]
        self.width = 1 + len(columns)
        lengths = [np.ones(num_rows, dtype=np.int64), *(np.diff(o) for o, _ in columns)]
        counts = np.stack(lengths, axis=1)  # [rows, fields]
        starts = np.concatenate([[0], np.cumsum(counts.reshape(-1))])
        values = np.empty(starts[-1], dtype=np.int64)
        values[starts[:-1].reshape(counts.shape)[:, 0]] = np.arange(num_rows)
        for f, (_offsets, codes) in enumerate(columns, start=1):
            at = np.repeat(starts[:-1].reshape(counts.shape)[:, f], counts[:, f])
            within = np.arange(counts[:, f].sum()) - np.repeat(np.cumsum(counts[:, f]) - counts[:, f], counts[:, f])
            values[at + within] = codes
        self.register_buffer("counts", torch.from_numpy(counts), persistent=False)
        self.register_buffer("starts", torch.from_numpy(starts), persistent=False)
        self.register_buffer("values", torch.from_numpy(values), persistent=False)
        numeric = np.stack(list(features.numeric.values()), axis=1) if features.numeric else np.zeros((num_rows, 0))
        self.register_buffer("numeric", torch.from_numpy(numeric.astype(np.float32)), persistent=False)
        self.table = table(name, base, dim)
        self.dim = dim

    @property
    def size(self) -> int:
        """Width of an entity's vector: its fields' embeddings, then its numeric columns."""
        return self.width * self.dim + self.numeric.shape[1]

    def bags(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return table rows and bag lengths of entities `rows` [n] (-1: empty bags), `width` bags each."""
        counts = self.counts[rows.clamp(min=0)] * (rows >= 0).unsqueeze(1)
        first = self.starts[rows.clamp(min=0) * self.width]
        total = counts.sum(1)
        at = torch.repeat_interleave(first - (total.cumsum(0) - total), total)
        at = at + torch.arange(len(at), device=rows.device)
        return self.values[at], counts.reshape(-1)

    def assemble(self, looked_up: Tensor, rows: Tensor) -> Tensor:
        """Return the vectors of entities `rows` [n] from the sums of their bags [n*width,D], averaged: [n,size]."""
        counts = self.counts[rows.clamp(min=0)].clamp(min=1).unsqueeze(2)
        fields = (looked_up.view(len(rows), self.width, self.dim) / counts).flatten(1)
        numeric = self.numeric[rows.clamp(min=0)] * (rows >= 0).unsqueeze(1)
        return torch.cat([fields, numeric], dim=1)


class Ranker(nn.Module):
    """Scores candidates of a user from ids, features and history."""

    def __init__(
        self,
        table: TableFactory,
        *,
        num_users: int,
        num_items: int,
        user_features: Features,
        item_features: Features,
        dim: int,
        cross_layers: int,
        hidden: Sequence[int],
        heads: int,
        history: int,
    ) -> None:
        super().__init__()
        self.user = Fields(table, "user", num_users, user_features, dim)
        self.item = Fields(table, "item", num_items, item_features, dim)
        self.dim, self.heads = dim, heads
        self.person, self.thing = nn.Linear(self.user.size, dim), nn.Linear(self.item.size, dim)
        # What came last matters by its place, whatever it is: a learned bias a head and place, the latest last. It
        # starts as linear decay, steep in the first head and flat in the last (ALiBi, Press et al., ICLR 2022).
        age = torch.arange(history - 1, -1, -1.0)
        self.recency = nn.Parameter(-torch.logspace(0, -2, heads)[:, None] * age)
        self.query, self.key = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        width = 5 * dim
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(cross_layers))
        widths = [width, *hidden]
        self.deep = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(width + widths[-1], 1)

    def score(self, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
        """Return the scores of each group for all users, [B,K]; users [B]."""
        assert all(g.rows == slice(None) for g in groups), "a ranker scores all its users at once"
        wide = [g.items.expand(len(users), -1) if g.items.dim() == 1 else g.items for g in groups]
        scores = self.forward(users, past, torch.cat(wide, dim=1))
        return list(scores.split([w.shape[1] for w in wide], dim=1))

    def forward(self, users: Tensor, past: Past, items: Tensor) -> Tensor:
        """Return the scores of `items` [B,K] for `users` [B] with their `past`: [B,K], logits."""
        history = past.items
        batch, k = items.shape
        rows, where = self._distinct(items, history)
        bags, lengths = self.item.bags(rows)
        entity = self.item.assemble(self.item.table(bags, lengths), rows)
        identity = entity[:, : self.dim]
        # Each side's fields are mixed once an entity, not once a pair; only what follows is paid for every pair.
        here, there = where[: items.numel()], where[items.numel() :]
        candidate = _pick(self.thing(entity), here).view(batch, k, self.dim)
        attended = self._attend(
            _pick(identity, here).view(batch, k, self.dim),
            _pick(identity, there).view(batch, -1, self.dim),
            history >= 0,
        )
        person = self.person(self.user.assemble(self.user.table(*self.user.bags(users)), users))
        person = person.unsqueeze(1).expand(-1, k, -1)
        x0 = torch.cat([person, candidate, attended, person * candidate, attended * candidate], dim=2)
        x = x0
        for cross in self.crosses:
            x = x0 * cross(x) + x
        deep = x0
        for layer in self.deep:
            deep = torch.relu(layer(deep))
        return self.head(torch.cat([x, deep], dim=2)).squeeze(2)

    def _attend(self, candidate: Tensor, past: Tensor, known: Tensor) -> Tensor:
        """Return what the candidate [B,K,D] finds in the history [B,L,D], several heads, zeros without one: [B,K,D]."""
        batch, k, _ = candidate.shape
        split = (batch, -1, self.heads, self.dim // self.heads)
        query = self.query(candidate).view(split).transpose(1, 2)
        key = self.key(past).view(split).transpose(1, 2)
        value = past.view(split).transpose(1, 2)
        mask = known.view(batch, 1, 1, -1)
        weights = query @ key.transpose(2, 3) / (self.dim // self.heads) ** 0.5
        weights = weights + self.recency[:, None, :]
        weights = weights.masked_fill(~mask, -1e9).softmax(-1) * mask
        return (weights @ value).transpose(1, 2).reshape(batch, k, self.dim)

    def _distinct(self, items: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distinct items, padded by -1 to a number that depends on shapes alone, and where each one is.

        Shapes alone, because row-wise sharding needs as many bags on every rank.
        """
        flat = torch.cat([items.reshape(-1), history.reshape(-1)])
        rows, where = torch.unique(flat, return_inverse=True)
        size = min(len(flat), len(self.item.counts) + 1)
        return nn.functional.pad(rows, (0, size - len(rows)), value=-1), where


def _pick(rows: Tensor, where: Tensor) -> Tensor:
    """Return `rows[where]` by an operator whose gradient adds up in one order: plain indexing races between threads."""
    return nn.functional.embedding(where, rows)
