"""Which items a term compares: vectorised draws from a teacher's lists, a function of their generator alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from recdistill.distill.draw_kernels import among

LIKELIEST = 1 - 1e-7  # quantile of the largest noise
ATTEMPTS = 16  # redraws of a collision before the place stays empty


class Lists(NamedTuple):
    """What draws for the rows at hand read: the teacher's lists, what is the rows' own, and on request more.

    Rows are users and what is listed items; for the other side it is the other way round.
    """

    items: Tensor  # [R,K], -1 where shorter
    scores: Tensor  # [R,K], -inf where shorter
    seen: Seen
    student: Tensor | None = None  # [R,M] the student's own list as it was last refreshed, -1 where shorter
    fused: Tensor | None = None  # [R,K'] the list of a trajectory of teachers as the rows' places in it say
    groups: Tensor | None = None  # [I] the popularity group of each item, 0 the least popular
    trust: Tensor | None = None  # [R] how far the teacher is to be trusted with each row


class Seen(NamedTuple):
    """What the rows' users have, as sorted keys."""

    users: Tensor  # [R]
    keys: Tensor  # sorted user * num_items + item, of every training interaction
    num_items: int

    def bounds(self) -> Tensor:
        """Return where the keys of each row's user start and end, [2,R]."""
        return torch.searchsorted(self.keys, torch.stack([self.users, self.users + 1]) * self.num_items)


class Draw(NamedTuple):
    """Drawn items [R,n] with their teacher scores, -inf where the teacher has not said."""

    items: Tensor
    scores: Tensor
    logq: Tensor | None = None  # [R,n] log of how often each is expected among the draws; None: not sampled
    gate: Tensor | None = None  # [R] share of the second of two lists


def own_items(seen: Seen) -> tuple[Tensor, Tensor]:
    """Return (row, item) of everything that the rows' users have."""
    bounds = seen.bounds()
    count = bounds[1] - bounds[0]
    row = torch.repeat_interleave(torch.arange(len(count)), count)
    within = torch.arange(len(row)) - torch.repeat_interleave(count.cumsum(0) - count, count)
    return row, seen.keys[bounds[0][row] + within] % seen.num_items


def top(lists: Lists, generator: Generator, *, k: int) -> Draw:  # noqa: ARG001
    """Return the first `k` items of each list, in its order."""
    return Draw(lists.items[:, :k], lists.scores[:, :k])


def ranked(lists: Lists, generator: Generator, *, k: int, temperature: float) -> Draw:
    """Return `k` items without replacement, weight exp(-(rank+1)/temperature), in the list's order."""
    depth = lists.items.shape[1]
    places = without_replacement(-torch.arange(1, depth + 1) / temperature, lists.items, k, generator)
    return Draw(lists.items.gather(1, places), lists.scores.gather(1, places))


def without_replacement(log_weights: Tensor, items: Tensor, k: int, generator: Generator) -> Tensor:
    """Return `k` distinct places of each row of `items` [R,K] in rising order, weight exp(log_weights), [R,min(k,K)].

    log_weights [K] or [R,K], finite. Places without an item (-1) come only when no others are left.
    Gumbel-top-k (Kool et al., ICML 2019): the k largest of log-weight plus Gumbel noise are such a draw.
    """
    depth = items.shape[1]
    chance, k = torch.rand(items.shape, generator=generator).clamp_(1e-20, LIKELIEST), min(k, depth)
    highest = _gumbel(torch.tensor(LIKELIEST, dtype=chance.dtype))
    # Weights fall as a rule, and noise is bounded: what is too far down to come among the first k is not looked at.
    enough = log_weights[..., min(2 * k, depth) - 1 : min(2 * k, depth)] - highest
    head = max(k, int((log_weights > enough).sum(-1).max())) if depth else 0
    for stop in (head, depth):
        keys = _gumbel(chance[:, :stop]).add_(log_weights[..., :stop]).masked_fill_(items[:, :stop] < 0, -torch.inf)
        best, places = keys.topk(k, dim=1, sorted=False)
        if stop == depth or bool((best.amin(1) > log_weights[..., stop:].amax(-1) + highest).all()):
            break
    return places.sort(dim=1).values


def _gumbel(chance: Tensor) -> Tensor:
    """Return the Gumbel noise at quantiles in (0, 1)."""
    return -torch.log(-torch.log(chance))


def unseen(lists: Lists, generator: Generator, *, n: int, logq: bool = True) -> Draw:
    """Return `n` uniform items, none of the user's own or in its list; places that keep colliding stay -1.

    With `logq`, that is log(n / m), m of the items that are neither the user's own nor in its list, in every place of
    the row.
    """
    rows, catalogue = len(lists.items), lists.seen.num_items
    items = torch.randint(catalogue, (rows, n), generator=generator)
    bounds = lists.seen.bounds()
    left = torch.arange(rows * n)
    flat = items.view(-1)
    for attempt in range(ATTEMPTS + 1):
        left = left[_taken(lists, bounds, left // n, flat[left])]
        if attempt == ATTEMPTS or not len(left):
            break
        flat[left] = torch.randint(catalogue, (len(left),), generator=generator)
    flat[left] = -1
    drawn = Draw(items, torch.full((rows, n), -torch.inf))
    if not logq:
        return drawn
    owner, owned = own_items(lists.seen)
    both = torch.bincount(owner[_taken(lists, torch.zeros_like(bounds), owner, owned)], minlength=rows)
    free = catalogue - (bounds[1] - bounds[0]) - (lists.items >= 0).sum(1) + both
    share = torch.log(n / free.clamp(min=1).double()).float()
    return drawn._replace(logq=share.unsqueeze(1).expand(rows, n))


def own(lists: Lists, generator: Generator, *, n: int) -> Draw:
    """Return `n` of each user's own items without replacement, each as likely; -1 where it has fewer."""
    row, item = own_items(lists.seen)
    order = torch.rand(len(row), generator=generator).argsort()
    order = order[row[order].sort(stable=True).indices]
    count = torch.bincount(row, minlength=len(lists.items))
    within = torch.arange(len(row)) - torch.repeat_interleave(count.cumsum(0) - count, count)
    items = torch.full((len(lists.items), n), -1)
    items[row[order][within < n], within[within < n]] = item[order][within < n]
    return Draw(items, scores_at(lists, place(items, lists.items)))


def owned(lists: Lists, items: Tensor) -> Tensor:
    """Return which of `items` [R,n] are the row's own, whatever its list holds; -1 is nobody's."""
    rows = torch.arange(len(items)).repeat_interleave(items.shape[1])
    nothing = lists._replace(items=lists.items[:, :0])
    return _taken(nothing, lists.seen.bounds(), rows, items.reshape(-1).contiguous()).view(items.shape) & (items >= 0)


def scores_at(lists: Lists, at: Tensor) -> Tensor:
    """Return the teacher's scores of the places `at` [R,n] of its lists, -inf of -1: [R,n]."""
    scores = pad(lists.scores, (0, 1), value=-torch.inf)  # one column more for what is nowhere
    return scores.gather(1, torch.where(at < 0, lists.scores.shape[1], at))


def _taken(lists: Lists, bounds: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """Return whether each of `items` [m] is in the list of its row, or among its user's own within `bounds` [2,R].

    `rows` [m] rise.
    """
    found = np.empty(len(rows), dtype=np.bool_)
    offsets = lists.seen.users * lists.seen.num_items
    given = (rows, items, lists.items, lists.seen.keys, bounds[0], bounds[1], offsets)
    among(*(part.numpy() for part in given), found)
    return torch.from_numpy(found)


def pairs(lists: Lists, generator: Generator, *, n: int, groups: int, temperature: float) -> Draw:
    """Return `n` pairs of each popularity group, the better item at columns 2j, the other at 2j+1: [R,groups*n*2].

    The two ranks of a pair, counted from 0 within the list's items of the group, are drawn without replacement with
    probability falling as exp(-rank / temperature); pairs do not depend on each other. A group with fewer than two
    items in the list gives items -1. Chen et al. (UnKD, WSDM 2023).
    """
    assert lists.groups is not None, "pairs need the items' groups"
    rows, depth = lists.items.shape
    if not depth:
        return Draw(torch.full((rows, 2 * groups * n), -1), torch.full((rows, 2 * groups * n), -torch.inf))
    group = torch.where(lists.items < 0, groups, lists.groups[lists.items.clamp(min=0)])
    # Sorted by group, and stably, so that the item of rank r of a group stands at the group's first place plus r.
    order = group.sort(dim=1, stable=True).indices
    size = torch.zeros(rows, groups + 1, dtype=torch.int64).scatter_add_(1, group, torch.ones_like(group))
    first = (size.cumsum(1) - size)[:, :groups, None, None]
    size = size[:, :groups, None].expand(rows, groups, n)
    ranks = _two_ranks(size, torch.rand(3, rows, groups, n, generator=generator, dtype=torch.float64), temperature)
    there = (size > 1).unsqueeze(3).expand_as(ranks).reshape(rows, -1)
    at = order.gather(1, (first + ranks).view(rows, -1).clamp(max=depth - 1))
    items, scores = lists.items.gather(1, at), lists.scores.gather(1, at)
    return Draw(items.masked_fill(~there, -1), scores.masked_fill(~there, -torch.inf))


def popularity_groups(counts: Tensor, groups: int) -> Tensor:
    """Return the group of each item, 0 the least popular, such that groups hold about the same sum of `counts` [I].

    Items stand by count, equal ones by row, and each takes the stretch of its count on a line cut in `groups` equal
    parts; its group is the part in which its middle lies. So a group's sum is off by no more than the largest count.
    """
    sorted_counts, order = counts.long().sort(stable=True)
    total = int(sorted_counts.sum())
    middle = 2 * sorted_counts.cumsum(0) - sorted_counts  # in halves of an interaction, so that nothing is rounded
    group = torch.empty_like(order)
    group[order] = (middle * groups // max(2 * total, 1)).clamp(max=groups - 1)
    return group


def place(wanted: Tensor, listed: Tensor) -> Tensor:
    """Return where in its row of `listed` [R,K] each item of `wanted` [R,n] stands first, -1 where nowhere: [R,n].

    An item of -1 is none and stands nowhere.
    """
    if not listed.shape[1]:
        return torch.full_like(wanted, -1)
    ordered, order = listed.contiguous().sort(dim=1, stable=True)
    at = torch.searchsorted(ordered, wanted.contiguous()).clamp(max=listed.shape[1] - 1)
    return order.gather(1, at).masked_fill((ordered.gather(1, at) != wanted) | (wanted < 0), -1)


def _two_ranks(size: Tensor, chance: Tensor, temperature: float) -> Tensor:
    """Return two distinct ranks below `size` [...], the smaller first, from three uniform numbers [3,...]: [...,2].

    They are drawn one after the other with weight exp(-rank / temperature): by inverting the distribution, so that
    no noise is drawn for the ranks that are not. The second is below or above the first, with the two masses.
    """
    a = _rank(size, chance[0], temperature)
    rest = size - a - 1
    below = -torch.expm1(-a.double() / temperature)
    above = torch.exp(-(a.double() + 1) / temperature) * -torch.expm1(-rest.double() / temperature)
    lower = chance[1] * (below + above) < below
    b = torch.where(lower, _rank(a, chance[2], temperature), a + 1 + _rank(rest, chance[2], temperature))
    return torch.stack([torch.minimum(a, b), torch.maximum(a, b)], dim=-1)


def _rank(size: Tensor, chance: Tensor, temperature: float) -> Tensor:
    """Return the rank in [0, size) at quantile `chance` where weights are exp(-rank / temperature); 0 of size 0."""
    rank = torch.floor(-temperature * torch.log1p(chance * torch.expm1(-size.double() / temperature)))
    return torch.minimum(rank.long(), size - 1).clamp(min=0)
