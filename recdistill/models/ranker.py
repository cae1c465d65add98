"""The ranking teacher: it scores (user, candidate) pairs from everything known of both, by no inner product.

The candidate attends to the user's history (target attention, Zhou et al., KDD 2018), crosses of bounded degree
mix all fields (DCN-V2, Wang et al., WWW 2021, eq. 1), and an MLP reads the result beside the crosses.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recdistill.data.sequences import cut
from recdistill.models.clock import AGES, MOMENT, Clock, ages, moment
from recdistill.models.encoders import Group
from recdistill.models.fields import Fields
from recdistill.models.tables import TableFactory
from recdistill.types import Features, Past


class Cross(nn.Module):
    """One layer of crosses, whose matrix is the product of two thin ones (DCN-V2, section 3.2)."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.thin, self.thick = nn.Linear(width, rank, bias=False), nn.Linear(rank, width)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """Return x0 * (U V x + b) + x."""
        return x0 * self.thick(self.thin(x)) + x


class Ranker(nn.Module):
    """Scores candidates of a user from ids, features, history and the moment of its latest item."""

    def __init__(
        self,
        table: TableFactory,
        *,
        num_users: int,
        num_items: int,
        user_features: Features,
        item_features: Features,
        clock: Clock | None,
        dim: int,
        cross_layers: int,
        cross_rank: int,
        hidden: Sequence[int],
        heads: int,
        history: int,
        tasks: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.user = Fields(table, "user", num_users, user_features, dim)
        self.item = Fields(table, "item", num_items, item_features, dim)
        self.dim, self.heads, self.tasks, self.clock = dim, heads, tuple(tasks), clock
        self.person = nn.Linear(self.user.size + (MOMENT if clock else 0), dim)
        self.thing = nn.Linear(self.item.size, dim)
        # What came last matters by its place, whatever it is: a learned bias a head and place, the latest last. It
        # starts as linear decay, steep in the first head and flat in the last (ALiBi, Press et al., ICLR 2022).
        back = torch.arange(history - 1, -1, -1.0)
        self.recency = nn.Parameter(-torch.logspace(0, -2, heads)[:, None] * back)
        self.age = nn.Parameter(torch.zeros(AGES, heads)) if clock else None
        self.query, self.key = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        width = 5 * dim
        self.crosses = nn.ModuleList(Cross(width, cross_rank) for _ in range(cross_layers))
        widths = [width, *hidden]
        self.deep = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(width + widths[-1], 1 + len(self.tasks))

    def score(self, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
        """Return the scores of each group, [rows,K]; users [B].

        A score is the first head's logit plus, for each further head, its log-probability times its exponent.
        """
        return [self.blend(logits) for logits in self.judge(users, past, groups)]

    def blend(self, logits: Tensor) -> Tensor:
        """Return one score for each pair's heads [...,1+T]."""
        score = logits[..., 0]
        for i, exponent in enumerate(self.tasks, start=1):
            if exponent:
                score = score + exponent * nn.functional.logsigmoid(logits[..., i])
        return score

    def judge(self, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
        """Return the logits of all heads for each group, [rows,K,1+T]; groups of the same rows share a pass."""
        found: dict[int, Tensor] = {}
        spans = [g.rows.indices(len(users))[:2] for g in groups]
        for start, stop in dict.fromkeys(spans):
            mine = [i for i, span in enumerate(spans) if span == (start, stop)]
            items = [groups[i].items for i in mine]
            wide = [rows.expand(stop - start, -1) if rows.dim() == 1 else rows for rows in items]
            logits = self.forward(users[start:stop], cut(past, slice(start, stop)), torch.cat(wide, dim=1))
            found |= dict(zip(mine, logits.split([w.shape[1] for w in wide], dim=1), strict=True))
        return [found[i] for i in range(len(groups))]

    def forward(self, users: Tensor, past: Past, items: Tensor) -> Tensor:
        """Return the logits of `items` [B,K] for `users` [B] with their `past`: [B,K,1+T]."""
        batch, k = items.shape
        rows, where = self._distinct(items, past.items)
        bags, lengths = self.item.bags(rows)
        entity = self.item.assemble(self.item.table(bags, lengths), rows)
        identity = entity[:, : self.dim]
        # Each side's fields are mixed once an entity, not once a pair; only what follows is paid for every pair.
        here, there = where[: items.numel()], where[items.numel() :]
        candidate = _pick(self.thing(entity), here).view(batch, k, self.dim)
        before = _pick(identity, there).view(batch, -1, self.dim)
        before = before if past.gates is None else before * past.gates.unsqueeze(2)
        attended = self._attend(_pick(identity, here).view(batch, k, self.dim), before, past)
        person = self.people(users, past).unsqueeze(1).expand(-1, k, -1)
        x0 = torch.cat([person, candidate, attended, person * candidate, attended * candidate], dim=2)
        x = x0
        for cross in self.crosses:
            x = cross(x0, x)
        deep = x0
        for layer in self.deep:
            deep = torch.relu(layer(deep))
        return self.head(torch.cat([x, deep], dim=2))

    def people(self, users: Tensor, past: Past) -> Tensor:
        """Return what is known of `users` [B] and their moment before any candidate is: [B,D]."""
        fields = self.user.assemble(self.user.table(*self.user.bags(users)), users)
        if self.clock is not None:
            fields = torch.cat([fields, moment(past, self.clock)], dim=1)
        return self.person(fields)

    def leaning(self, past: Past) -> Tensor:
        """Return what is added to the attention of each head to each place of the past, -1e9 to none: [B,H,L]."""
        lean = self.recency.expand(len(past), -1, -1)
        if self.age is not None:
            lean = lean + _pick(self.age, ages(past)).transpose(1, 2)
        return lean.masked_fill((past.items < 0).unsqueeze(1), -1e9)

    def _attend(self, candidate: Tensor, before: Tensor, past: Past) -> Tensor:
        """Return what the candidate [B,K,D] finds in the history [B,L,D], several heads, zeros without one: [B,K,D]."""
        batch, k, _ = candidate.shape
        split = (batch, -1, self.heads, self.dim // self.heads)
        query = self.query(candidate).view(split).transpose(1, 2)
        key = self.key(before).view(split).transpose(1, 2)
        value = before.view(split).transpose(1, 2)
        weights = query @ key.transpose(2, 3) / (self.dim // self.heads) ** 0.5
        known = (past.items >= 0).view(batch, 1, 1, -1)
        weights = (weights + self.leaning(past).unsqueeze(2)).softmax(-1) * known
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
