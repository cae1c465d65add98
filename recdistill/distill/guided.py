"""Draws that read the student's own list: what it puts on top, and where it and the teacher disagree."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from recdistill.distill.draws import Draw, Lists, place, scores_at, without_replacement

FLOOR = 1e-5  # weight of an item that both rank alike, so that there is always something to draw
MOST = 50  # of the teacher's items below another that count: more would make its weight overflow


def student_top(lists: Lists, generator: Generator, *, k: int) -> Draw:  # noqa: ARG001
    """Return the first `k` items of the student's list, in its order, with the teacher's scores."""
    items = _student(lists)[:, :k]
    return Draw(items, scores_at(lists, place(items, lists.items)))


def student_ranked(lists: Lists, generator: Generator, *, k: int, temperature: float) -> Draw:
    """Return `k` of the student's list without replacement, weight exp(-(rank+1)/temperature), in its order."""
    student = _student(lists)
    log_weights = -torch.arange(1, student.shape[1] + 1) / temperature
    items = student.gather(1, without_replacement(log_weights, student, k, generator))
    return Draw(items, scores_at(lists, place(items, lists.items)))


def rank_gap(lists: Lists, generator: Generator, *, k: int, side: Literal["under", "over"], temperature: float) -> Draw:
    """Return `k` items without replacement that one ranks above the other, weight tanh(gap / temperature).

    `under`: of the teacher's list, in its order, those the student puts lower; `over`: of the student's list, in its
    order, those the teacher puts lower. An item absent from a list has the list's depth as its rank there, and no
    weight is below 1e-5. Lee and Kim (DCD, CIKM 2021); Kweon et al. (BD, WWW 2021).
    """
    student = _student(lists)
    own, other = (lists.items, student) if side == "under" else (student, lists.items)
    there = place(own, other)
    rank = torch.where(there < 0, other.shape[1], there)
    gap = (rank - torch.arange(own.shape[1])).clamp(min=0) / temperature
    places = without_replacement(torch.tanh(gap).clamp(min=FLOOR).log(), own, k, generator)
    at = places if side == "under" else there.gather(1, places)
    return Draw(own.gather(1, places), scores_at(lists, at))


def closure(lists: Lists, generator: Generator, *, k: int, n: int, temperature: float, beta: float) -> Draw:
    """Return the student's first `k` items, `n` that it ranks above the teacher's, and the rest of the teacher's `k`.

    The columns are S [k], Q [n] and T minus Q and S [k], -1 where there is none: the first list of two is S, the
    second what follows. Q, in the student's order, is drawn without replacement from its whole list, and may meet S,
    with weight exp((z + 1) / temperature), z of T standing at the item's rank or below it, 50 at most; who of T is
    not in the student's list is below everything. The gate is exp(-beta |T and Q| / k), the share of the second list.
    RCE-KD (ICLR 2026): a list that is closed under what the student ranks above its members bounds NDCG.
    """
    student, teacher = _student(lists), _columns(lists.items, k)
    rank = place(teacher, student)
    depth = student.shape[1]
    rank = torch.where(rank < 0, depth, rank)
    count = torch.zeros(len(rank), depth + 1, dtype=torch.int64).scatter_add_(1, rank, (teacher >= 0).long())
    below = count.flip(1).cumsum(1).flip(1)[:, :depth].clamp(max=MOST)
    first = _columns(student, k)
    second = _columns(student.gather(1, without_replacement((below + 1) / temperature, student, n, generator)), n)
    caught = place(teacher, second) >= 0
    rest = teacher.masked_fill(caught | (place(teacher, first) >= 0), -1)
    items = torch.cat([first, second, rest], dim=1)
    return Draw(items, scores_at(lists, place(items, lists.items)), gate=torch.exp(-beta * caught.sum(1) / k))


def _student(lists: Lists) -> Tensor:
    """Return the student's lists, which who wants such a draw has made."""
    assert lists.student is not None, "this draw needs the student's own lists"
    return lists.student


def _columns(items: Tensor, k: int) -> Tensor:
    """Return the first `k` columns of `items` [R,K], with -1 for those that it lacks: [R,k]."""
    return pad(items[:, :k], (0, max(k - items.shape[1], 0)), value=-1)


def fused(lists: Lists, generator: Generator, *, k: int, **_: float) -> Draw:  # noqa: ARG001
    """Return the first `k` of the list that several teachers make where a user is in their trainings."""
    assert lists.fused is not None, "this draw needs the lists along the teachers' trainings"
    items = _columns(lists.fused, k)
    return Draw(items, scores_at(lists, place(items, lists.items)))


def whole(lists: Lists, generator: Generator) -> Draw:  # noqa: ARG001
    """Return the whole catalogue for every row, as one row in memory, not scored: vectors score it."""
    items = torch.arange(lists.seen.num_items).expand(len(lists.items), -1)
    return Draw(items, torch.full((1, 1), -torch.inf).expand(items.shape))
