"""The students, and the wide teachers of the same kind: a user's vector and an item's, scored by inner product."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from recdistill.models.inner import SHORTEST, own_scores
from recdistill.models.tables import TableFactory
from recdistill.types import Past, Space
from recdistill.world import processes

MOST_SCORES = 2**26  # of a step's table of everyone's score of everything, 256 MB
PICKED = 32  # scores of one product of matrices that take about as long as one of a pair looked up for itself


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
        self.space, self.temperature, self.num_items, self.dim = space, temperature, num_items, dim
        self.user = table("user", num_users, dim)
        self.item = table("item", num_items, dim)

    def vectors(self, users: Tensor, past: Past, items: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return the vectors of `users` [B] (-1: unknown, zeros) and `items` [n] (-1: none, zeros): [B,D], [n,D]."""
        return self.user(*single(users)), self.item(*single(items))

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
    ) -> None:
        super().__init__()
        self.space, self.temperature, self.id_dropout = space, temperature, id_dropout
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
        known = history >= 0
        count = known.sum(1)
        asked, lengths = single(items)
        each = count if past.gates is None else torch.ones_like(history[known])
        rows = self.item(torch.cat([asked, history[known]]), torch.cat([lengths, each]))
        found, pooled = rows.split([len(items), len(each)])
        if past.gates is not None:
            whose, weight = known.nonzero()[:, 0], past.gates[known].unsqueeze(1)
            pooled = rows.new_zeros(len(users), self.dim).index_add(0, whose, pooled * weight)
        pooled = pooled / count.clamp(min=1).unsqueeze(1)
        return self.user(*single(users)), pooled, found

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


def unit(vectors: Tensor, space: Space) -> Tensor:
    """Return `vectors` as their inner product is meant: of length 1 in cosine space, as they are in dot space."""
    return _Unit.apply(vectors) if space == "cosine" else vectors


class _Unit(torch.autograd.Function):
    """Vectors over their lengths, in fewer passes over memory than its parts would take."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:  # pyrefly: ignore
        ctx.dtype = vectors.dtype
        if vectors.itemsize < 4:  # half precision is of products, not of lengths
            vectors = vectors.float()
        over = vectors.square().sum(-1, keepdim=True).clamp_(min=SHORTEST**2).rsqrt_()
        found = vectors * over
        ctx.save_for_backward(found, over)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # pyrefly: ignore
        found, over = ctx.saved_tensors
        along = (gradients[0] * found).sum(-1, keepdim=True)
        return torch.addcmul(gradients[0], found, along, value=-1).mul_(over).to(ctx.dtype)


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
    asked = [*(g.items.reshape(-1) for g in groups), *others, *plain]
    rows, ranks = max((g.rows.indices(len(users))[1] for g in groups), default=0), processes()
    count = sum(g.items.numel() * (1 if g.items.dim() == 1 else ranks) for g in groups)
    everything = torch.arange(model.num_items, device=users.device)
    pairs = ranks * rows * model.num_items
    whole = count >= model.num_items and pairs <= MOST_SCORES and pairs <= ranks * _work(groups, rows)
    wanted, pooled = everything if whole else torch.cat(asked), None
    if isinstance(model, TwoTower):
        identity, pooled, found = model.read(users, past, wanted)
        shared = model.tower(identity, pooled)
    else:
        shared, found = model.trunk(users, past, wanted)
    left = unit(model.head(shared), model.space)
    queries = left[:rows] / model.temperature
    if whole:
        right = unit(found, model.space)
        scores = _picked(queries @ right.T, everything, groups)
        compared, raw = [pick(right, items) for items in others], [pick(found, items) for items in plain]
        return Encoded(scores, shared, left, found, compared, raw, pooled, [slice(None)])
    sizes, own = [len(items) for items in asked], len(asked) - len(plain)
    parts = found.split(sizes)
    scores = []
    for group, part in zip(groups, parts, strict=False):
        if group.items.dim() == 1:
            scores.append(queries[group.rows] @ unit(part, model.space).T)
        else:
            each = part.view(*group.items.shape, -1)
            scores.append(own_scores(queries[group.rows], each, cosine=model.space == "cosine"))
    compared, raw = [unit(part, model.space) for part in parts[len(groups) : own]], list(parts[own:])
    ends, same = list(accumulate(sizes)), [*(g.items.dim() == 1 for g in groups), *alike]
    common = [slice(end - size, end) for end, size, one in zip(ends, sizes, same, strict=False) if one]
    return Encoded(scores, shared, left, found, compared, raw, pooled, common)


def _work(groups: Sequence[Group], rows: int) -> int:
    """Return what the scores of `groups` cost one by one, in scores that a product gives."""
    shared = sum(len(range(*g.rows.indices(rows))) * len(g.items) for g in groups if g.items.dim() == 1)
    return shared + PICKED * sum(g.items.numel() for g in groups if g.items.dim() != 1)


def _picked(table: Tensor, everything: Tensor, groups: Sequence[Group]) -> list[Tensor]:
    """Return the scores of `groups` from everybody's of everything, 0 for no item."""
    scores = []
    for group, part in zip(groups, _parts(table, groups), strict=True):
        if group.items.dim() == 1:
            whole = len(group.items) == len(everything) and torch.equal(group.items, everything)
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
