"""Several teachers, each at a moment of its training: which moment a user is ready for, and what list that makes.

Kang et al. (HetComp, WWW 2023). R rows, M teachers, C moments (checkpoints) of each in the order of training, K places
of a list. An item of -1 is none. What a row's place is in each teacher's training, [R,M], says which lists it learns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from recdistill.distill.draws import place

DECAY = 10.0  # ranks in which an item's importance falls by e
NOTHING = 1e-12  # a distance that only rounding keeps from 0


def fused(lists: Tensor, places: Tensor, k: int) -> Tensor:
    """Return the `k` items that a row's teachers hold most important where it is in their training: [R,k].

    lists [R,M,C,K], places [R,M]. A teacher's importance of an item of its list is exp(-rank/10) times its consistency,
    the mean of exp(-rank/10) over the teacher's C moments, 0 where absent; teachers are summed. Ranks are from 0.
    Sums that are equal in float32 stand by item row; -1 where there are fewer than `k` items.
    """
    rows, members, moments, depth = lists.shape
    current = _at(lists, places)
    wanted = current.reshape(rows * members, depth)
    each = [_importance(place(wanted, lists[:, :, c].reshape(rows * members, depth))) for c in range(moments)]
    worth = _importance(torch.arange(depth)) * torch.stack(each).mean(0)
    items, order = current.reshape(rows, -1).sort(dim=1, stable=True)
    worth = worth.view(rows, -1).gather(1, order)
    # Equal items stand side by side now: each takes the column that is its number among the row's distinct ones.
    new = torch.ones_like(items, dtype=torch.bool)
    new[:, 1:] = items[:, 1:] != items[:, :-1]
    column = new.long().cumsum(1) - 1
    total = torch.zeros_like(worth).scatter_add_(1, column, worth)
    distinct = torch.full_like(items, -1).scatter_(1, column, items)
    # Rounded, so that the order in which teachers were added decides nothing. Distinct items stand by row already.
    total = total.float().masked_fill(distinct < 0, -torch.inf)
    best = total.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return pad(distinct.gather(1, best), (0, k - best.shape[1]), value=-1)


def advance(
    lists: Tensor, places: Tensor, student: Tensor, *, k: int, alpha: float, decay: float, moves: int
) -> Tensor:
    """Return `places` [R,M], each one further where the student's list [R,k'] is ready for the teacher's next: [R,M].

    lists [R,M,C,K]. With D = 1 - NDCG@k of the student's list against the teacher's at a moment, an item's gain being
    2^exp(-rank/10) - 1 of its rank there, it moves on where D(now) / D(next) is above alpha * decay^moves or below 1,
    or D(next) is 0; `moves` counts the times that were asked before. No place goes beyond the last.
    """
    last = lists.shape[2] - 1
    following = (places + 1).clamp(max=last)
    now, then = (_distance(_at(lists, where), student, k) for where in (places, following))
    ready = (now > alpha * decay**moves * then) | (now < then) | (then < NOTHING)
    return torch.where(ready, following, places)


def _distance(lists: Tensor, student: Tensor, k: int) -> Tensor:
    """Return 1 - NDCG@k of `student` [R,k'] against each of `lists` [R,M,K]; 1 against a list of nothing: [R,M]."""
    rows, members, depth = lists.shape
    student = student[:, :k].unsqueeze(1).expand(rows, members, -1).reshape(rows * members, -1)
    at = place(student, lists.reshape(rows * members, depth)).view(rows, members, -1)
    ranks = torch.arange(depth).expand(rows, members, depth).masked_fill(lists < 0, -1)[:, :, :k]
    found, best = _dcg(at), _dcg(ranks)
    return 1 - found / torch.where(best > 0, best, 1.0)


def _dcg(ranks: Tensor) -> Tensor:
    """Return the discounted gain of a list whose items have `ranks` [R,M,n] in the ideal one, -1 not there: [R,M]."""
    gain = torch.exp2(_importance(ranks)) - 1
    return (gain / torch.log2(torch.arange(2, ranks.shape[2] + 2, dtype=gain.dtype))).sum(2)


def _importance(ranks: Tensor) -> Tensor:
    """Return exp(-rank/10), 0 for a rank of -1, in float64."""
    return torch.where(ranks < 0, 0.0, torch.exp(-ranks.double() / DECAY))


def _at(lists: Tensor, places: Tensor) -> Tensor:
    """Return the list of each teacher at the row's place: lists [R,M,C,K], places [R,M] -> [R,M,K]."""
    return lists.gather(2, places[:, :, None, None].expand(-1, -1, 1, lists.shape[3])).squeeze(2)
