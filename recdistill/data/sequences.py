"""Each user's history as the models read it: what came before an interaction, or the latest of a user."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill.data.order import mixed
from recdistill.types import Interactions, Past


@dataclass(frozen=True)
class Sequences:
    """A user's training items in the order a model may read them; `timed` says whether that order is time's.

    What was taken at one moment stands in an order of no meaning: the stored one is that of item rows, which says
    something of the items and nothing of the user. A log without times has no before at all. There, a history is the
    user's other items, in such an order. Nothing is sorted until a history is asked for.
    """

    train: Interactions
    ordered: bool = False  # they stand in that order

    @classmethod
    def of(cls, train: Interactions) -> Sequences:
        """Return the histories of `train`."""
        return cls(train)

    @property
    def timed(self) -> bool:
        return self.train.times is not None

    @cached_property
    def indptr(self) -> Tensor:
        """Where each user's items start and end, [U+1]."""
        return mapped(self.train.indptr)

    @cached_property
    def owner(self) -> Tensor:
        """The user at each place, [n]."""
        return mapped(self.train.users())

    @cached_property
    def order(self) -> Tensor:
        """Which interaction of the log stands at each place, [n]."""
        if self.ordered:
            return torch.arange(len(self.train))
        users, items, when = self.train.users(), self.train.items, self.train.times
        when = np.zeros_like(users) if when is None else when
        return torch.from_numpy(np.lexsort((mixed(users, items), when, users)))

    @cached_property
    def place(self) -> Tensor:
        """Where each interaction of the log stands, [n]."""
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(place))
        return place

    @cached_property
    def items(self) -> Tensor:
        """The item at each place, [n]."""
        return mapped(self.train.items)[self.order]

    @cached_property
    def times(self) -> Tensor | None:
        """When each was taken, [n] microseconds, where that is known."""
        return None if self.train.times is None else mapped(self.train.times)[self.order]

    def before(self, rows: Tensor, length: int) -> Past:
        """Return what a model may know at each interaction `rows` [B] of the log, `length` items of it.

        With times the items before it, the latest last; without, the user's other items. Never the item itself.
        """
        if not length:
            return self._nothing(len(rows))
        at = self.place[rows].unsqueeze(1)
        start = self.indptr[self.owner[self.place[rows]]].unsqueeze(1)
        back = torch.arange(length, 0, -1)
        if self.timed:
            wanted, known = at - back, at - back >= start
        else:
            size = self.indptr[self.owner[self.place[rows]] + 1].unsqueeze(1) - start
            wanted, known = start + (at - start - back) % size.clamp(min=1), back < size
        return self._read(wanted, known)

    def latest(self, users: Tensor, length: int) -> Past:
        """Return the last `length` items of `users` [B]."""
        if not length:
            return self._nothing(len(users))
        wanted = self.indptr[users + 1].unsqueeze(1) - torch.arange(length, 0, -1)
        return self._read(wanted, wanted >= self.indptr[users].unsqueeze(1))

    def windows(self, length: int) -> Windows:
        """Return how every user's sequence is cut into windows of `length` targets; its first item is none."""
        count = self.indptr.diff()
        targets = (count - 1).clamp(min=0)
        each = -(-targets // length)
        owner = torch.repeat_interleave(torch.arange(len(count)), each)
        back = each.cumsum(0)[owner] - 1 - torch.arange(len(owner))  # windows of the same user after this one
        return Windows(owner, self.indptr[owner + 1] - 1 - back * length, (each * length - targets)[owner])

    def window(self, stop: Tensor, owner: Tensor, length: int) -> tuple[Past, Tensor]:
        """Return the inputs of windows [B] and after each place the item to predict, [B,L], -1 where there is none.

        A window's targets are the `length` places up to `stop` [B] of its `owner` [B], as far as there are such. The
        inputs are the items before the last of them: where the targets are fewer, more of the past is read.
        """
        first, last = self.indptr[owner].unsqueeze(1), self.indptr[owner + 1].unsqueeze(1) - 1
        stop = stop.unsqueeze(1)
        at = torch.minimum(stop, last) - torch.arange(length, 0, -1)
        taught = (at >= first) & (at + 1 > stop - length)
        return self._read(at, at >= first), torch.where(taught, self.items[(at + 1).clamp(min=0)], -1)

    def _nothing(self, rows: int) -> Past:
        none = torch.zeros(rows, 0, dtype=torch.int64)
        return Past(items=none, times=none if self.timed else None)

    def _read(self, wanted: Tensor, known: Tensor) -> Past:
        """Return the items at the places `wanted` [B,L], where `known` [B,L]."""
        if not len(self.items):
            return Past(items=torch.full(wanted.shape, -1))
        at = wanted.clamp(min=0)
        times = None if self.times is None else torch.where(known, self.times[at], 0)
        return Past(items=torch.where(known, self.items[at], -1), times=times)


class Windows(NamedTuple):
    """The windows of all users: their owners, the place of each one's last target, and how far that may move on."""

    owner: Tensor  # [W]
    stop: Tensor  # [W]
    room: Tensor  # [W]

    def moved(self, rows: Tensor, share: Tensor) -> Tensor:
        """Return the last targets of windows `rows` [B], all of a user moved by the `share` [U] of what they may."""
        return self.stop[rows] + (share[self.owner[rows]] * (self.room[rows] + 1)).long()


def joined(first: Past, second: Past) -> Past:
    """Return the rows of both, the first ones first."""
    both = first.times is not None and second.times is not None
    times = torch.cat([first.times, second.times]) if both else None  # pyrefly: ignore
    return Past(items=torch.cat([first.items, second.items]), times=times)


def cut(past: Past, rows: slice) -> Past:
    """Return some rows of `past`."""
    times, gates = (None if part is None else part[rows] for part in (past.times, past.gates))
    return Past(items=past.items[rows], times=times, gates=gates)


def mapped(array: NDArray[Any]) -> Tensor:
    """Return a tensor over the memory of `array`, which may be a file's: it is there to be read."""
    return torch.from_dlpack(array)
