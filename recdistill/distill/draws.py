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

    def has(self, rows: Tensor, items: Tensor) -> Tensor:
        """Return whether the user of each of `rows` [m] has the item beside it [m], as booleans [m]."""
        return _has(self.keys, self.users[rows] * self.num_items + items)


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
    rows, catalogue = len(lists.items), lists.seen.num_items
    items = torch.randint(catalogue, (rows, n), generator=generator)
    listed = lists.items.sort(dim=1).values
    row = torch.arange(rows)
    depth = listed.shape[1]
    # Keys of the lists in one sorted line, so that a redraw looks up only the places that collided.
    keys = (row.unsqueeze(1) * (catalogue + 1) + listed + 1).reshape(-1)
    place = torch.arange(rows * n)
    flat = items.view(-1)
    for attempt in range(ATTEMPTS + 1):
        wanted, owner = flat[place], place // n
        in_list = (
            _has(keys, owner * (catalogue + 1) + wanted + 1) if depth else torch.zeros_like(wanted, dtype=torch.bool)
        )
        place = place[in_list | lists.seen.has(owner, wanted)]
        if attempt == ATTEMPTS or not len(place):
            break
        flat[place] = torch.randint(catalogue, (len(place),), generator=generator)
    flat[place] = -1
    return Draw(items, torch.full((rows, n), -torch.inf))


def _has(keys: Tensor, wanted: Tensor) -> Tensor:
    """Return which of `wanted` are among the sorted `keys`."""
    if not len(keys):
        return torch.zeros_like(wanted, dtype=torch.bool)
    return keys[torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)] == wanted
