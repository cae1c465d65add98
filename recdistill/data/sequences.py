"""Each user's history as the models read it: what came before an interaction, or the latest of a user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recdistill.types import Interactions


@dataclass(frozen=True, slots=True)
class Sequences:
    """A user's training items in the order a model may read them; `timed` says whether that order is time's.

    A log without times has no before. There, a history is the user's other items, in an order shuffled once: the
    stored order is that of item rows, which says something of the items and nothing of the user.
    """

    indptr: Tensor  # [U+1]
    items: Tensor  # [n]
    place: Tensor  # [n] where each interaction of the log stands in `items`
    owner: Tensor  # [n] the user at each place of `items`
    timed: bool

    @classmethod
    def of(cls, train: Interactions) -> Sequences:
        """Return the histories of `train`."""
        users = train.users()
        order = np.arange(len(train))
        if train.times is None:
            noise = np.random.Generator(np.random.Philox(7)).random(len(train))
            order = np.lexsort((noise, users))
        place = np.empty(len(train), dtype=np.int64)
        place[order] = np.arange(len(train))
        return cls(
            indptr=torch.from_numpy(np.array(train.indptr)),
            items=torch.from_numpy(np.array(train.items)[order]),
            place=torch.from_numpy(place),
            owner=torch.from_numpy(users),
            timed=train.times is not None,
        )

    def before(self, rows: Tensor, length: int) -> Tensor:
        """Return what a model may know at each interaction `rows` [B] of the log: [B,length], -1 where shorter.

        With times the items before it, the latest last (at one moment, those of smaller rows); without, the user's
        other items. Never the item itself.
        """
        if length == 0:
            return torch.zeros(len(rows), 0, dtype=torch.int64)
        at = self.place[rows].unsqueeze(1)
        start = self.indptr[self.owner[self.place[rows]]].unsqueeze(1)
        back = torch.arange(length, 0, -1)
        if self.timed:
            wanted, known = at - back, at - back >= start
        else:
            size = self.indptr[self.owner[self.place[rows]] + 1].unsqueeze(1) - start
            wanted, known = start + (at - start - back) % size.clamp(min=1), back < size
        return torch.where(known, self.items[wanted.clamp(min=0)], -1)

    def latest(self, users: Tensor, length: int) -> Tensor:
        """Return the last `length` items of `users` [B], the latest last: [B,length], -1 where shorter."""
        if length == 0 or not len(self.items):
            return torch.full((len(users), length), -1)
        wanted = self.indptr[users + 1].unsqueeze(1) - torch.arange(length, 0, -1)
        return torch.where(wanted >= self.indptr[users].unsqueeze(1), self.items[wanted.clamp(min=0)], -1)
