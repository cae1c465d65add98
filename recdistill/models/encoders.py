"""The students, and the wide teachers of the same kind: a user's vector and an item's, scored by inner product."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from recdistill.models.tables import TableFactory
from recdistill.types import Past, Space

MOST_SCORES = 2**26  # of a step's table of everyone's score of everything, 256 MB


class Group(NamedTuple):
    """Items to score for some of a call's users: [K] shared by those rows, or [rows,K] of each row.

    With `places` [rows,L] the scores are those at each such place of the past, in order, [places,K], as a sequence
    model alone can tell them; the items may then be [rows,L,K] of each place.
    """

    items: Tensor
    rows: slice = slice(None)
    places: Tensor | None = None


class MF(nn.Module):
    """Matrix factorisation: one row a user, one row an item."""

    def __init__(
        self, table: TableFactory, *, num_users: int, num_items: int, dim: int, space: Space, temperature: float
    ) -> None:
        super().__init__()
        self.space, self.temperature, self.num_items = space, temperature, num_items
        self.user = table("user", num_users, dim)
        self.item = table("item", num_items, dim)

    def vectors(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return the vectors of `users` [B] (-1: unknown, zeros) and `items` [n] (-1: none, zeros): [B,D], [n,D]."""
        return self.user(*single(users)), self.item(*single(items))

    def score(self, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
        """Return the scores of each group, [rows,K]; users [B]. One lookup a table serves them all."""
        return score_by_vectors(self, users, past, groups)


class TwoTower(nn.Module):
    """A user side that reads the id and the pooled history, an item side of one row an item.

    The history reads the item table itself, in the same lookup as the items that are scored.
    """

    def __init__(
        self,
        table: TableFactory,
        *,
        num_users: int,
        num_items: int,
        dim: int,
        hidden: Sequence[int],
        id_dropout: float,
        space: Space,
        temperature: float,
    ) -> None:
        super().__init__()
        self.space, self.temperature, self.id_dropout = space, temperature, id_dropout
        self.num_items = num_items
        self.user = table("user", num_users, dim)
        self.item = table("item", num_items, dim)
        widths = [2 * dim, *hidden, dim] if hidden else []
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def vectors(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of `users` [B] with their `past` and of `items` [n] (-1: none): [B,D], [n,D]."""
        history = past.items
        if self.training and self.id_dropout:
            users = users.masked_fill(hidden(users, history, self.id_dropout), -1)
        known = history >= 0
        count = known.sum(1)
        asked, lengths = single(items)
        rows = self.item(torch.cat([asked, history[known]]), torch.cat([lengths, count]))
        found, pooled = rows.split([len(items), len(users)])
        pooled = pooled / count.clamp(min=1).unsqueeze(1)
        identity = self.user(*single(users))
        x = torch.cat([identity, pooled], dim=1) if len(self.layers) else identity + pooled
        for i, layer in enumerate(self.layers):
            x = layer(torch.relu(x) if i else x)
        return x, found

    def score(self, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
        """Return the scores of each group, [rows,K]; users [B]. One lookup a table serves them all."""
        return score_by_vectors(self, users, past, groups)


class Encoder(Protocol):
    """A model that gives vectors: what makes it one whatever its layers are."""

    space: Space
    temperature: float
    num_items: int

    def vectors(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of `users` [B] with their `past` and of `items` [n]: [B,D], [n,D]."""
        ...

    def score(self, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
        """Return the scores of each group, [rows,K]."""
        ...


def hidden(users: Tensor, history: Tensor, share: float) -> Tensor:
    """Return which rows hide their user id, [B]: a hash of the row's content, so that no random state is kept."""
    last = history[:, -1] if history.shape[1] else torch.zeros_like(users)
    mixed = (users * 2_654_435_761 + last * 40_503 + 12_345) * 2_246_822_519 % 2**31
    return mixed % 10_000 < share * 10_000


def unit(vectors: Tensor, space: Space) -> Tensor:
    """Return `vectors` as their inner product is meant: of length 1 in cosine space, as they are in dot space."""
    return nn.functional.normalize(vectors, dim=-1, eps=1e-9) if space == "cosine" else vectors


def pick(rows: Tensor, wanted: Tensor) -> Tensor:
    """Return `rows[wanted]`, zeros for -1; its gradient adds up in one order, unlike that of plain indexing."""
    found = nn.functional.embedding(wanted.clamp(min=0), rows)
    return found * (wanted >= 0).unsqueeze(-1)


def single(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return bags of one row each, an empty bag for -1: the number of bags is fixed, as row-wise sharding needs."""
    known = rows >= 0
    return rows[known], known.to(rows.dtype)


def score_by_vectors(model: Encoder, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
    """Return the scores of each group by inner product of the model's vectors, [rows,K]."""
    asked = sum(g.items.numel() for g in groups)
    if asked >= model.num_items and len(users) * model.num_items <= MOST_SCORES:
        return _score_catalogue(model, users, past, groups)
    left, right = model.vectors(users, past, torch.cat([g.items.reshape(-1) for g in groups]))
    left, right = unit(left, model.space) / model.temperature, unit(right, model.space)
    scores = []
    for group, rows in zip(groups, right.split([g.items.numel() for g in groups]), strict=True):
        if group.items.dim() == 1:
            scores.append(left[group.rows] @ rows.T)
        else:
            each = rows.view(*group.items.shape, -1)
            scores.append(torch.bmm(each, left[group.rows].unsqueeze(2)).squeeze(2))
    return scores


def _score_catalogue(model: Encoder, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
    """Score everything once and pick: cheaper than vectors of items that are asked for again and again.

    Whether it is done depends on shapes alone, so that all ranks do the same.
    """
    everything = torch.arange(model.num_items, device=users.device)
    left, right = model.vectors(users, past, everything)
    table = (unit(left, model.space) / model.temperature) @ unit(right, model.space).T
    parts = _parts(table, groups)
    scores = []
    for group, part in zip(groups, parts, strict=True):
        if group.items.dim() == 1:
            whole = len(group.items) == model.num_items and torch.equal(group.items, everything)
            scores.append(part if whole else part[:, group.items.clamp(min=0)])
        else:
            scores.append(part.gather(1, group.items.clamp(min=0)))
        if bool((group.items < 0).any()):
            scores[-1] = scores[-1].masked_fill(group.items < 0, 0.0)
    return scores


def _parts(table: Tensor, groups: Sequence[Group]) -> list[Tensor]:
    """Return each group's rows of `table`; as one split where they tile it, whose backward is one concatenation."""
    spans = [g.rows.indices(len(table))[:2] for g in groups]
    cuts = sorted(set(spans))
    tiled = [start for start, _ in cuts] == [0, *(stop for _, stop in cuts[:-1])] and cuts[-1][1] == len(table)
    if not tiled:
        return [table[start:stop] for start, stop in spans]
    pieces = dict(zip(cuts, table.split([stop - start for start, stop in cuts]), strict=True))
    return [pieces[span] for span in spans]
