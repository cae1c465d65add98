"""Edits of histories: which items a model looks at, which few of them decide, and what it reads without some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from recdistill.data.sequences import Sequences
from recdistill.diagnose.chances import Mask
from recdistill.diagnose.inherit import moved
from recdistill.diagnose.lists import top
from recdistill.metrics import Values
from recdistill.models.build import Model
from recdistill.models.encoders import Group
from recdistill.models.gates import confidence, gate_gradients, of_first
from recdistill.topk import blocks
from recdistill.types import Int, Interactions, Past

ROWS = 256  # users whose gates are differentiated at once


def gates_of(
    model: Model, read: Sequences, users: Int, trained: Mask, listed: Int, *, history: int, length: int
) -> Values:
    """Return how much a gate on each of the last items that `users` [n] have in `read` moves what a model is sure of.

    [n,length], the latest last, 0 where there is none. What it is sure of is the chance of the first of `listed` [n,K]
    among these, -1 where there are fewer; `history` is how many items the model reads, at least `length`, and `trained`
    [n] says whom it knows by their id.
    """
    model.requires_grad_(False)
    asked, items = torch.from_numpy(np.where(trained, users, -1)), torch.from_numpy(listed)
    found = np.zeros((len(users), length))
    for start, stop in blocks(len(users), ROWS):
        past = read.latest(torch.from_numpy(users[start:stop]), history)
        gates = _gates(model, asked[start:stop], past, items[start:stop])
        found[start:stop] = gates[:, history - length :].numpy()
    return found


def _gates(model: Model, users: Tensor, past: Past, items: Tensor) -> Tensor:
    """Return the gradients of one block, [B,L] of its past [B,L] and lists [B,K]."""

    def sure(gates: Tensor) -> Tensor:
        scores = model.score(users, replace(past, gates=gates), [Group(items)])[0]
        return confidence(scores, **of_first(items))

    return gate_gradients(sure, past.items >= 0)


def flipping(ask: Callable[[Mask], Int], before: Int, gates: Values, known: Mask, most: int) -> tuple[Mask, Int]:
    """Return the fewest items without which the first of the lists `before` [n,K] is another, and the lists then.

    Those are left out that move its chance up the most, by `gates` [n,L] at `known` [n,L] places; `ask` gives the
    lists [n,K] without some. Nothing is left out of a history of which no `most` such items are enough: [n,L].
    """
    gone, after = np.zeros(known.shape, bool), before.copy()
    for count in range(1, most + 1):
        left = ~np.asarray(gone.any(1))
        tried = heaviest(gates, known, count)
        lists = ask(np.where(left[:, None], tried, gone))
        new = left & (moved(before, lists) == 1)
        gone[new], after[new] = tried[new], lists[new]
    return gone, after


def heaviest(gates: Values, known: Mask, count: int) -> Mask:
    """Return the `count` places [n,L] of the largest gates above 0, fewer where no other item would be left."""
    best = top(gates, count, known & (gates > 0))
    best = np.where(np.arange(best.shape[1]) < known.sum(1, keepdims=True) - 1, best, -1)
    gone = np.zeros((len(gates), gates.shape[1] + 1), bool)
    np.put_along_axis(gone, np.where(best < 0, gates.shape[1], best), True, axis=1)
    return gone[:, :-1]


def oldest(known: Mask, count: int) -> Mask:
    """Return the first `count` of the `known` [n,L] places, none of a history that has no more than these."""
    return known & (np.cumsum(known, axis=1) <= count) & (known.sum(1, keepdims=True) > count)


def without(read: Sequences, users: Int, gone: Mask) -> Sequences:
    """Return `read` without the places `gone` [n,L] of the last L items of `users` [n]; others keep all of theirs."""
    row, column = np.nonzero(gone)
    ends = read.indptr.numpy()[users + 1]
    kept = torch.ones(len(read.items), dtype=torch.bool)
    kept[torch.from_numpy(ends[row] - gone.shape[1] + column)] = False
    owner = read.owner[kept]
    counts = torch.bincount(owner, minlength=len(read.indptr) - 1)
    left = Interactions(
        indptr=np.concatenate([np.zeros(1, np.int64), counts.cumsum(0).numpy()]),
        items=read.items[kept].numpy(),
        times=None if read.times is None else read.times[kept].numpy(),
    )
    return Sequences(left, ordered=True)
