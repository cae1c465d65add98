"""Which items a term compares: vectorised draws from a teacher's lists, a function of their generator alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

ATTEMPTS = 16  # redraws of a collision before the place stays empty


class Lists(NamedTuple):
    """The teacher's lists of the users at hand, and what else of theirs an unseen draw must avoid."""

    items: Tensor  # [R,K], -1 where shorter
    scores: Tensor  # [R,K], -inf where shorter
    seen: Seen


class Seen(NamedTuple):
    """Membership of (user, item) pairs, for rejection: exact, by binary search over sorted keys."""

    users: Tensor  # [R]
    keys: Tensor  # sorted user * num_items + item, of every training interaction
    num_items: int

    def has(self, items: Tensor) -> Tensor:
        """Return which of `items` [R,n] the row's user has, [R,n]."""
        wanted = self.users.unsqueeze(1) * self.num_items + items
        at = torch.searchsorted(self.keys, wanted).clamp(max=max(len(self.keys) - 1, 0))
        return self.keys[at] == wanted if len(self.keys) else torch.zeros_like(items, dtype=torch.bool)


class Draw(NamedTuple):
    """Drawn items [R,n] with their teacher scores, -inf where the teacher has not said."""

    items: Tensor
    scores: Tensor


def top(lists: Lists, generator: Generator, *, k: int) -> Draw:  # noqa: ARG001
    """Return the first `k` items of each list, in its order."""
    return Draw(lists.items[:, :k], lists.scores[:, :k])


def ranked(lists: Lists, generator: Generator, *, k: int, temperature: float) -> Draw:
    """Return `k` items without replacement, weight exp(-(rank+1)/temperature), in the list's order.

    Gumbel-top-k (Kool et al., ICML 2019): the k largest of log-weight plus Gumbel noise are such a draw.
    """
    rows, depth = lists.items.shape
    k = min(k, depth)
    noise = -torch.log(-torch.log(torch.rand(rows, depth, generator=generator).clamp(1e-20, 1 - 1e-7)))
    keys = noise - torch.arange(1, depth + 1) / temperature
    keys = keys.masked_fill(lists.items < 0, -torch.inf)
    places = keys.topk(k, dim=1).indices.sort(dim=1).values
    return Draw(lists.items.gather(1, places), lists.scores.gather(1, places))


def unseen(lists: Lists, generator: Generator, *, n: int) -> Draw:
    """Return `n` uniform items, none of the user's own or in its list; places that keep colliding stay -1."""
    rows = len(lists.items)
    items = torch.randint(lists.seen.num_items, (rows, n), generator=generator)
    listed = lists.items.sort(dim=1).values.contiguous()

    def taken(items: Tensor) -> Tensor:
        at = torch.searchsorted(listed, items).clamp(max=listed.shape[1] - 1)
        return (listed.gather(1, at) == items) | lists.seen.has(items)

    bad = taken(items)
    for _ in range(ATTEMPTS):
        if not bool(bad.any()):
            break
        items = torch.where(bad, torch.randint(lists.seen.num_items, (rows, n), generator=generator), items)
        bad = taken(items)
    return Draw(items.masked_fill(bad, -1), torch.full((rows, n), -torch.inf))
