"""Items that a user does not have: drawn from all, and where the user has one, drawn again; exact, and without a copy.

What a user has is looked up in the user's own items, which are few, instead of in the pairs of the whole log.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from recdistill.topk_kernels import _compiled as compiled
from recdistill.types import Int, Interactions

Array = NDArray[Any]
REDRAWS = 8  # of items that a user has, before those that are left are drawn from what the user has not


class Owned(NamedTuple):
    """What every user has, each user's items rising."""

    indptr: Int  # [U+1]
    items: Array  # [n] int32 where item rows fit
    num_items: int


def owned(train: Interactions, num_items: int) -> Owned:
    """Return what the users of `train` have; a pair is in it once."""
    items = train.items.astype(np.int32 if num_items < 2**31 else np.int64)
    sort_rows(train.indptr, items)
    return Owned(train.indptr, items, num_items)


def reject(users: Tensor, items: Tensor, known: Owned, generator: Generator) -> Tensor:
    """Redraw, in place, each of `items` [B,N] that its user [B] has, until none is; return them.

    What a few redraws leave is drawn from what the user has not, so that no user is too fond of the catalogue for it to
    be exact; a user of the whole catalogue keeps what was drawn.
    """
    flat, who = items.view(-1).numpy(), users.numpy()
    bad = np.arange(len(flat))
    count = collisions(who, flat, items.shape[1], known.indptr, known.items, bad)
    for _ in range(REDRAWS):
        if not count:
            return items
        bad = bad[:count]
        flat[bad] = torch.randint(known.num_items, (count,), generator=generator).numpy()
        count = collisions(who, flat, items.shape[1], known.indptr, known.items, bad)
    if count:
        share = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
        settle(who, flat, items.shape[1], known.indptr, known.items, known.num_items, bad[:count], share)
    return items


@compiled()
def sort_rows(indptr: Array, items: Array) -> None:
    """Sort the items of each user in place."""
    for user in range(len(indptr) - 1):
        items[indptr[user] : indptr[user + 1]].sort()


@compiled()
def collisions(users: Array, items: Array, width: int, indptr: Array, mine: Array, bad: Array) -> int:
    """Keep of the places `bad` of `items` [B*N] those whose user has the item, in order; return how many they are."""
    count = 0
    for at in bad:
        user, item = users[at // width], items[at]
        low, end = indptr[user], indptr[user + 1]
        high = end
        while low < high:
            middle = (low + high) // 2
            if mine[middle] < item:
                low = middle + 1
            else:
                high = middle
        bad[count] = at
        count += low < end and mine[low] == item
    return count


@compiled()
def settle(
    users: Array, items: Array, width: int, indptr: Array, mine: Array, num_items: int, bad: Array, share: Array
) -> None:
    """Set the places `bad` of `items` to what their users have not: in order, the one at `share` [n] of all of them."""
    for place in range(len(bad)):
        at = bad[place]
        start, end = indptr[users[at // width]], indptr[users[at // width] + 1]
        free = num_items - (end - start)
        if free <= 0:
            continue
        wanted = min(int(share[place] * free), free - 1)
        low, high = start, end
        while low < high:  # as many of the user's items lie below the one wanted as were passed
            middle = (low + high) // 2
            if mine[middle] - (middle - start) <= wanted:
                low = middle + 1
            else:
                high = middle
        items[at] = wanted + (low - start)
