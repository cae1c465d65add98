"""When a term counts, and how much: a function of how far the training is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A term's share of its weight over the epochs: 0 before `start`, rising over `ramp`, 0 again from `stop` on."""

    start: float = 0.0
    ramp: float = 0.0
    stop: float | None = None
    epochs: int = 1  # of the whole training
    switch: float = 0.0  # the epoch from which a loss that has two forms takes its second

    def at(self, share: float) -> float:
        """Return how much the term counts when `share` of the training is done."""
        epoch = share * self.epochs
        if epoch < self.start or (self.stop is not None and epoch >= self.stop):
            return 0.0
        return min(1.0, (epoch - self.start) / self.ramp) if self.ramp else 1.0

    def switched(self, share: float) -> float:
        """Return 1 where the second form of the loss is on, else 0."""
        return float(share * self.epochs >= self.switch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a training in which not everything learns."""

    until: float  # share of the training at which it ends
    users: bool = True  # whether the table of users learns
    items: bool = True
    task: bool = True  # whether the student's own loss counts
    columns: tuple[int, int] | None = None  # of the vectors, those that learn; None for all of them


WHOLE = Part(until=1.0)


def part_at(parts: Sequence[Part], share: float) -> Part:
    """Return the first of `parts` that has not ended when `share` of the training is done; after all, everything."""
    return next((part for part in parts if share < part.until), WHOLE)


def risen(share: float, hottest: float) -> float:
    """Return 1 - (T - 1) / `hottest`, T falling evenly from `hottest` to 1: by what a teacher's scores are multiplied.

    phi of Continuation-KD (Jafari et al., Findings of EMNLP 2022): from 1 / `hottest` to 1.
    """
    return 1.0 - (hottest - 1.0) * (1.0 - share) / hottest
