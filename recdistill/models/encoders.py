"""The students, and the wide teachers of the same kind: a user's vector and an item's, scored by inner product."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from recdistill.models.groups import Group, picked, scored, spans, work
from recdistill.models.lengths import prefixes
from recdistill.models.rounding import by_row, cutter, straight
from recdistill.models.tables import TableFactory
from recdistill.models.together import scores_together
from recdistill.types import Past, Space
from recdistill.world import processes

MOST_SCORES = 2**26  # of a step's table of everyone's score of everything, 256 MB


class MF(nn.Module):
    """Matrix factorisation: one row a user, one row an item."""

    def __init__(
        self,
        table: TableFactory,
        *,
        num_users: int,
        num_items: int,
        dim: int,
        space: Space,
        temperature: float,
        nested: Sequence[int] = (),
        bits: int = 0,
    ) -> None:
        super().__init__()
        self.space, self.temperature, self.num_items, self.dim = space, temperature, num_items, dim
        self.nested = tuple(nested)  # how many of the first numbers of a vector are a student of their own
        self.bits = bits  # of a number of an item's vector as it serves, which training then knows; 0: all
        self.user = table("user", num_users, dim)
        self.item = table("item", num_items, dim)

    def vectors(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return the vectors of `users` [B] (-1: unknown, zeros) and `items` [n] (-1: none, zeros): [B,D], [n,D]."""
        return _kept(self, self.user(*single(users))), self.item(*single(items))

    def trunk(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `head` turns into the vectors of `users`, and the vectors of `items`."""
        return self.vectors(users, past, items)

    def head(self, shared: Tensor) -> Tensor:
        """Return the vectors of users from what `trunk` gives: they are the same."""
        return shared

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
        nested: Sequence[int] = (),
        bits: int = 0,
    ) -> None:
        super().__init__()
        self.space, self.temperature, self.id_dropout = space, temperature, id_dropout
        self.nested, self.bits = tuple(nested), bits
        self.num_items, self.dim = num_items, dim
        self.user = table("user", num_users, dim)
        self.item = table("item", num_items, dim)
        widths = [2 * dim, *hidden, dim] if hidden else []
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def vectors(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of `users` [B] with their `past` and of `items` [n] (-1: none): [B,D], [n,D]."""
        shared, found = self.trunk(users, past, items)
        return self.head(shared), found

    def trunk(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last hidden layer of `users` (their vector where there is none), and the vectors of `items`."""
        identity, pooled, found = self.read(users, past, items)
        return self.tower(identity, pooled), found

    def read(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the id vectors of `users`, their pooled histories, both [B,D], and the vectors of `items`, [n,D]."""
        history = past.items
        if self.training and self.id_dropout:
            users = users.masked_fill(hidden(users, history, self.id_dropout), -1)
        count = (history >= 0).sum(1)
        if self.training and self.bits:  # rows are rounded before they are summed, so each is a bag of its own
            asked, lengths = single(torch.cat([items, history.reshape(-1)]))
            found, each = self.item(asked, lengths).split([len(items), history.numel()])
            pooled = _kept(self, each).view(*history.shape, -1).sum(1)
        else:
            found, pooled = self._summed(items, past)
        pooled = pooled / count.clamp(min=1).unsqueeze(1)
        return _kept(self, self.user(*single(users))), pooled, found

    def _summed(self, items: Tensor, past: Past) -> tuple[Tensor, Tensor]:
        """Return the vectors of `items` [n,D] and the sums of the histories', [B,D]."""
        known = past.items >= 0
        asked, lengths = single(items)
        each = known.sum(1) if past.gates is None else torch.ones_like(past.items[known])
        rows = self.item(torch.cat([asked, past.items[known]]), torch.cat([lengths, each]))
        found, pooled = rows.split([len(items), len(each)])
        if past.gates is not None:
            whose, weight = known.nonzero()[:, 0], past.gates[known].unsqueeze(1)
            pooled = rows.new_zeros(len(past.items), self.dim).index_add(0, whose, pooled * weight)
        return found, pooled

    def tower(self, identity: Tensor, pooled: Tensor) -> Tensor:
        """Return the last hidden layer, the vector where there is none, from id vectors and pooled histories [B,D]."""
        x = torch.cat([identity, pooled], dim=1) if len(self.layers) else identity + pooled
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return x

    def head(self, shared: Tensor) -> Tensor:
        """Return the vectors of users from what `trunk` gives: the last layer, of those that there are."""
        return self.layers[-1](shared) if len(self.layers) else shared

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

    def trunk(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `head` reads of `users`, [B,D'], and the vectors of `items`, [n,D]."""
        ...

    def head(self, shared: Tensor) -> Tensor:
        """Return the vectors of users, [B,D]."""
        ...

    def score(self, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
        """Return the scores of each group, [rows,K]."""
        ...


def hidden(users: Tensor, history: Tensor, share: float) -> Tensor:
    """Return which rows hide their user id, [B]: a hash of the row's content, so that no random state is kept."""
    last = history[:, -1] if history.shape[1] else torch.zeros_like(users)
    mixed = (users * 2_654_435_761 + last * 40_503 + 12_345) * 2_246_822_519 % 2**31
    return mixed % 10_000 < share * 10_000


def _kept(model: MF | TwoTower, rows: Tensor) -> Tensor:
    """Return `rows` [n,D] of tables as training should see them: rounded as they serve, if `model` is told to."""
    return straight(rows, by_row(rows.detach())) if model.training and model.bits and len(rows) else rows


def pick(rows: Tensor, wanted: Tensor) -> Tensor:
    """Return `rows[wanted]`, zeros for -1; its gradient adds up in one order, unlike that of plain indexing."""
    found = nn.functional.embedding(wanted.clamp(min=0), rows)
    return found * (wanted >= 0).unsqueeze(-1)


def single(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return bags of one row each, an empty bag for -1: the number of bags is fixed, as row-wise sharding needs."""
    known = rows >= 0
    return (rows if known.all() else rows[known]), known.to(rows.dtype)


class Encoded(NamedTuple):
    """What one lookup gave."""

    scores: list[Tensor]  # of each group, [rows,K]
    shared: Tensor  # [B,D'] what the head reads of each user
    left: Tensor  # [B,D] user vectors as they are compared
    found: Tensor  # [n,D] item vectors before they are made comparable, as the lookup returned them
    others: list[Tensor]  # [m,D] item vectors of each further request, as they are compared
    plain: list[Tensor]  # [m,D] those of requests for what the lookup returned
    pooled: Tensor | None  # [B,D] pooled histories, where the model reads some: `shared` is a function of them
    alike: list[slice]  # parts of `found` that every process looks up, of the same items


def score_by_vectors(model: Encoder, users: Tensor, past: Past, groups: Sequence[Group]) -> list[Tensor]:
    """Return the scores of each group by inner product of the model's vectors, [rows,K]."""
    return encode(model, users, past, groups).scores


def encode(
    model: Encoder,
    users: Tensor,
    past: Past,
    groups: Sequence[Group],
    others: Sequence[Tensor] = (),
    plain: Sequence[Tensor] = (),
    alike: Sequence[bool] = (),
) -> Encoded:
    """Look everything up once: scores of `groups` over the first users, vectors of the items of `others` [m] each.

    Vectors of items of `plain` [m] each are given as the lookup returned them, zeros for -1, as a history reads them.
    `alike` says of which of `others` every process asks the same. Where the groups of all processes ask for so much
    that it costs no more, everything is scored and then picked. Whether it is done depends on shapes alone, and on
    those of all processes together, so that one and many do the same.
    """
    return encode_widths(model, users, past, groups, others, plain, alike)[-1]


def encode_widths(
    model: Encoder,
    users: Tensor,
    past: Past,
    groups: Sequence[Group],
    others: Sequence[Tensor] = (),
    plain: Sequence[Tensor] = (),
    alike: Sequence[bool] = (),
    widths: Sequence[int] = (),
) -> list[Encoded]:
    """Return what `encode` does, by the first numbers of the vectors up to each of `widths`, and last by all of them.

    One lookup serves all: scores, and the vectors that are compared, are those of the first numbers alone. `shared`,
    `found`, `plain` and `pooled` are what was looked up, in every one.
    """
    asked = [*(g.items.reshape(-1) for g in groups), *others, *plain]
    rows, ranks = max((g.rows.indices(len(users))[1] for g in groups), default=0), processes()
    count = sum(g.items.numel() * (1 if g.items.dim() == 1 else ranks) for g in groups)
    everything = torch.arange(model.num_items, device=users.device)
    pairs = ranks * rows * model.num_items * (1 + len(widths))
    whole = count >= model.num_items and pairs <= MOST_SCORES and pairs <= ranks * work(groups, rows)
    wanted, pooled = everything if whole else torch.cat(asked), None
    if isinstance(model, TwoTower):
        identity, pooled, found = model.read(users, past, wanted)
        shared = model.tower(identity, pooled)
    else:
        shared, found = model.trunk(users, past, wanted)
    vectors = model.head(shared)
    ends = (*widths, vectors.shape[1])
    lefts = prefixes(vectors, ends, model.space)
    bits = model.bits if isinstance(model, MF | TwoTower) and model.training else 0
    cosine, heat = model.space == "cosine", model.temperature
    alone = not (whole or widths or bits or others or plain) and found.device.type == "cpu"
    if alone and (rows_own := spans(groups, len(users))) is not None:
        scores = scores_together(vectors, found, rows_own, cosine=cosine, temperature=heat)
        return [Encoded(scores, shared, lefts[0], found, [], [], pooled, [])]
    queries = [left[:rows] / model.temperature for left in lefts]
    cuts = cutter(found, ends, model.space, bits=bits)
    if whole:
        rights = cuts(found)
        tables = [picked(left @ right.T, everything, groups) for left, right in zip(queries, rights, strict=True)]
        compared = [[pick(right, items) for items in others] for right in rights]
        raw, common = [pick(found, items) for items in plain], [slice(None)]
    else:
        sizes, own = [len(items) for items in asked], len(asked) - len(plain)
        parts = found.split(sizes)
        told = {"cosine": cosine, "rounded": bits > 0}
        each = [scored(g, p, vectors, queries, cuts, heat, **told) for g, p in zip(groups, parts, strict=False)]
        tables = [[scores[w] for scores in each] for w in range(len(ends))]
        given = [cuts(part) for part in parts[len(groups) : own]]
        compared, raw = [[cut[w] for cut in given] for w in range(len(ends))], list(parts[own:])
        stops, same = list(accumulate(sizes)), [*(g.items.dim() == 1 for g in groups), *alike]
        common = [slice(end - size, end) for end, size, one in zip(stops, sizes, same, strict=False) if one]
    sides = zip(tables, lefts, compared, strict=True)
    return [Encoded(scores, shared, left, found, rest, raw, pooled, common) for scores, left, rest in sides]
