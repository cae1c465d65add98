"""Histories on which student and teacher disagree: the edits of a user's history that move them apart most.

Jafari, Rezagholizadeh and Ghodsi (2023) climb the squared difference of two networks' outputs in the input. A history
is a set, so the climb is one of edits: the gradient by the pooled history says to first order what dropping one of its
items, or inserting another, does to the difference, and the best few edits together are a history that can be scored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill.models.gates import pool
from recdistill.transfer.histories import padded, places
from recdistill.types import Int, Interactions, Synthetic

Gain = NDArray[np.floating]


class Side(NamedTuple):
    """One of the two models, for a block of users."""

    items: Tensor  # [I,D] the vectors whose mean is a history
    scores: Callable[[Tensor], Tensor]  # that mean [B,D] -> scores of each user's list [B,K]; differentiable


class Gains(NamedTuple):
    """What each edit alone adds to the disagreement, to first order; -inf where it cannot be made."""

    drop: Tensor  # [B,L] of each item of the history
    insert: Tensor  # [B,A] of each item that might be in it


def disagreement(teacher: Tensor, student: Tensor, listed: Tensor | None = None) -> Tensor:
    """Return the mean squared difference of two models' scores [B,K] over each row's list, both centred on it: [B].

    listed [B,K] says which columns are items (all if None). Adding a number to a row of scores changes nothing.
    """
    apart = teacher - student
    if listed is None:
        return (apart - apart.mean(1, keepdim=True)).square().mean(1)
    count = listed.sum(1, keepdim=True).clamp(min=1)
    apart = torch.where(listed, apart, 0.0)
    centred = torch.where(listed, apart - apart.sum(1, keepdim=True) / count, 0.0)
    return centred.square().sum(1) / count.squeeze(1)


def slopes(teacher: Side, student: Side, at: tuple[Tensor, Tensor], listed: Tensor | None = None) -> list[Tensor]:
    """Return d disagreement / d pooled, of the teacher's and the student's pooled histories `at`: [B,Dt], [B,Ds]."""
    with torch.enable_grad():
        left, right = (pooled.detach().requires_grad_() for pooled in at)
        total = disagreement(teacher.scores(left), student.scores(right), listed).sum()
        return list(torch.autograd.grad(total, (left, right), materialize_grads=True))


def gains(history: Tensor, absent: Tensor, teacher: Side, student: Side, listed: Tensor | None = None) -> Gains:
    """Return what each edit of `history` [B,L] (-1: no item) adds to the disagreement; `absent` [A] may be inserted.

    A mean p of n items goes to p + (p - e) / (n - 1) without item e and to p + (e - p) / (n + 1) with it. Where scores
    are linear in the mean the disagreement is convex, and these are lower bounds. A history is not emptied, and what
    is in it is not inserted again. Memory: B x A numbers.
    """
    known = history >= 0
    count = known.sum(1, keepdim=True)
    found = [side.items[history.clamp(min=0)] for side in (teacher, student)]  # [B,L,D] each
    means = pool(found[0], known), pool(found[1], known)
    drop, insert = torch.zeros(()), torch.zeros(())
    for side, vectors, mean, slope in zip(
        (teacher, student), found, means, slopes(teacher, student, means, listed), strict=True
    ):
        here = (slope * mean).sum(1, keepdim=True)
        drop = drop + (here - (vectors @ slope.unsqueeze(2)).squeeze(2)) / (count - 1).clamp(min=1)
        insert = insert + (slope @ side.items[absent].T - here) / (count + 1)
    size = max(len(teacher.items), 1)
    keys = torch.arange(len(history), device=history.device).unsqueeze(1) * size
    held = torch.isin(keys + absent, (keys + history)[known])
    return Gains(drop.masked_fill(~known | (count < 2), -torch.inf), insert.masked_fill(held, -torch.inf))


def flipped(train: Interactions, users: Int, drop: Gain, insert: Gain, absent: Int, count: int) -> Synthetic:
    """Return the histories of `users` [B] after at most `count` edits each: those of the largest gain above 0.

    drop [B,L] is what dropping each item of a history gains, in the order of `padded`; insert [B,A] what each of the
    distinct `absent` [A] does. The item that is least worth dropping always stays. What is inserted is given the
    moment of the latest item, so a model that reads the latest few reads it; nobody gave it a weight or an event, so
    the result has neither. Every user must have a history.
    """
    sizes = np.diff(train.indptr)[users]
    assert (sizes > 0).all()
    there = np.arange(drop.shape[1]) < sizes[:, None]
    allowed = np.where(there, drop, -np.inf)
    allowed[np.arange(len(users)), np.where(there, drop, np.inf).argmin(1)] = -np.inf
    every = np.concatenate([allowed, insert], axis=1)
    best = np.argpartition(-every, min(count, every.shape[1] - 1), axis=1)[:, :count]
    chosen = np.zeros(every.shape, dtype=np.bool_)
    np.put_along_axis(chosen, best, True, axis=1)
    chosen &= every > 0

    row, at = places(train, users)
    kept = ~chosen[row, np.arange(len(row)) - (np.cumsum(sizes) - sizes)[row]]
    to, column = np.nonzero(chosen[:, drop.shape[1] :])
    rows, items = np.concatenate([row[kept], to]), np.concatenate([np.asarray(train.items)[at[kept]], absent[column]])
    times = None
    if train.times is not None:
        last = np.asarray(train.indptr)[users + 1] - 1
        times = np.asarray(train.times)[np.concatenate([at[kept], last[to]])]
    order = np.lexsort((items, rows) if times is None else (items, times, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(users)))]).astype(np.int64)
    return Synthetic(
        interactions=Interactions(indptr=indptr, items=items[order], times=None if times is None else times[order]),
        parents=np.stack([users, np.full(len(users), -1)], axis=1).astype(np.int64),
        mu=np.ones(len(users)),
    )


def flips(
    train: Interactions,
    users: Int,
    absent: Int,
    count: int,
    teacher: Side,
    student: Side,
    listed: Tensor | None = None,
) -> Synthetic:
    """Return the histories of `users` [B] after the at most `count` edits that move student and teacher apart most.

    One block: the lists that both sides score are those of `users`, listed [B,K]. `absent` [A] are the distinct items
    that may be inserted. The student moves, so these are worth making again as it does (Jafari et al., 2023).
    """
    history, device = torch.from_numpy(padded(train, users)), teacher.items.device
    found = gains(history.to(device), torch.from_numpy(absent).to(device), teacher, student, listed)
    drop, insert = (part.cpu().double().numpy() for part in found)
    return flipped(train, users, drop, insert, absent, count)
