"""The histories of a log on which two trained towers disagree: `flips`, of all users, a block of rows at a time.

Both are asked of nobody's history, with the id hidden, as the teacher is who lists what is made here. They are compared
over what the teacher ranks first for the history as it was (Jafari, Rezagholizadeh and Ghodsi, arXiv 2301.12006).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recdistill.models.encoders import TwoTower
from recdistill.models.gates import pool
from recdistill.models.lengths import unit
from recdistill.scoring import SCORES_PER_BLOCK
from recdistill.topk import blocks
from recdistill.transfer.flips import Side, disagreement, flips
from recdistill.transfer.histories import joined, longest, padded
from recdistill.types import Float, Int, Interactions, Synthetic


class Tower(NamedTuple):
    """A model with what is multiplied by its scores before they are taught."""

    model: TwoTower
    scale: float = 1.0


class Disputed(NamedTuple):
    """Histories, and how far apart the two models are on them."""

    synthetic: Synthetic
    apart: Float  # [S,2] the mean squared difference of their centred scores, of the parent and of this history


def disputed(
    train: Interactions, teacher: Tower, student: Tower, *, history: int, depth: int, count: int, users: Int
) -> Disputed:
    """Return the history of each of `users` [S], who all have one, after at most `count` edits that part the models.

    Of a history its latest items are edited, so many that what is inserted is among the `history` that both models
    read. What somebody took may be inserted; a list has `depth` items that the history does not hold. Memory: a block
    of rows times items. Raises AssertionError unless count < history.
    """
    assert count < history, "there is no room for what is inserted"
    base, known = longest(train, history - count), np.unique(np.asarray(train.items))
    both = [_read(tower, known) for tower in (teacher, student)]
    made, apart = list[Synthetic](), list[Float]()
    row = max(4 * len(known), depth * teacher.model.dim)  # numbers that a user needs at once
    for start, stop in blocks(len(users), max(1, SCORES_PER_BLOCK // row)):
        block = users[start:stop]
        past = torch.from_numpy(padded(base, block))
        with torch.no_grad():
            listed, there = _listed(both[0], past, known, depth)
        sides = [one.side(listed) for one in both]
        made.append(flips(base, block, known, count, sides[0], sides[1], there))
        after = torch.from_numpy(padded(made[-1].interactions, np.arange(len(block))))
        with torch.no_grad():
            apart.append(np.stack([_apart(sides, rows, there) for rows in (past, after)], axis=1))
    nothing = np.zeros((0, 2), np.float32)
    return Disputed(joined(made), np.concatenate([nothing, *apart]))


class _Read(NamedTuple):
    """A tower ready to be asked of means of histories."""

    rows: Tensor  # [I,D] the vectors that a history is the mean of
    right: Tensor  # [I,D] the items' as they are compared
    left: Callable[[Tensor], Tensor]  # means [B,D] -> nobody's vectors [B,D], over the temperature

    def side(self, listed: Tensor) -> Side:
        """Return how it scores `listed` [B,K], each row's own items."""
        chosen = self.right[listed]

        def scores(pooled: Tensor) -> Tensor:
            return (chosen @ self.left(pooled).unsqueeze(2)).squeeze(2)

        return Side(self.rows, scores)


def _read(tower: Tower, known: Int) -> _Read:
    """Return `tower` with no vector for an item outside `known`, which nobody took: as where lists are made."""
    model, there = tower.model, torch.zeros(tower.model.num_items, 1)
    there[torch.from_numpy(known)] = 1.0
    with torch.no_grad():
        rows = model.item(torch.arange(model.num_items)) * there

    def left(pooled: Tensor) -> Tensor:
        found = model.head(model.tower(torch.zeros_like(pooled), pooled))
        return unit(found, model.space) * (tower.scale / model.temperature)

    return _Read(rows, unit(rows, model.space), left)


def _listed(teacher: _Read, past: Tensor, known: Int, depth: int) -> tuple[Tensor, Tensor]:
    """Return the teacher's best `depth` of the `known` items for each history [B,L], and which places hold one."""
    scores = torch.full((len(past), len(teacher.rows)), -torch.inf)
    at = torch.from_numpy(known)
    scores[:, at] = teacher.left(pool(teacher.rows[past.clamp(min=0)], past >= 0)) @ teacher.right[at].T
    row, column = (past >= 0).nonzero(as_tuple=True)
    scores[row, past[row, column]] = -torch.inf
    best = scores.topk(min(depth, scores.shape[1]), dim=1)
    return best.indices, torch.isfinite(best.values)


def _apart(sides: list[Side], past: Tensor, there: Tensor) -> Float:
    """Return the disagreement on each history [B,L] over its list: [B]."""
    teacher, student = (side.scores(pool(side.items[past.clamp(min=0)], past >= 0)) for side in sides)
    return disagreement(teacher, student, there).numpy()
