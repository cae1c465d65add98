"""Time as a model reads it: the moment of a user's latest item, and how long before it each other one was."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from recdistill.types import Interactions, Past

SECOND = 1_000_000  # in microseconds
HOUR, DAY, WEEK = 3600.0, 86_400.0, 604_800.0
AGES = 32  # buckets of an age: the whole part of log2(1 + seconds), up to 136 years
MOMENT = 7  # numbers that say when it is


class Clock(NamedTuple):
    """Mean and spread of the training log's times, in seconds: what an absolute time is told against."""

    mean: float
    spread: float

    @classmethod
    def of(cls, train: Interactions) -> Clock | None:
        """Return the clock of a log; None if it has no times."""
        if train.times is None or not len(train.times):
            return None
        seconds = train.times / SECOND
        return cls(float(seconds.mean()), max(float(seconds.std()), 1.0))


def moment(past: Past, clock: Clock) -> Tensor:
    """Return when it is for each row of `past`, [B,MOMENT]: hour and weekday as angles, the date, pace and span.

    The moment is that of the latest item, which is all that is known when lists are made ahead of the visit. Pace is
    the log of the seconds since the item before it, span that since the first item of the history. Rows without
    history are zeros.
    """
    known = past.items >= 0
    if past.times is None or past.times.shape[1] == 0:
        return torch.zeros(len(past), MOMENT, device=past.items.device)
    # Differences are taken in whole microseconds: a date in float32 is only right to a minute.
    last = past.times[:, -1]
    seconds = last.double() / SECOND
    day, week = (2 * math.pi * (seconds % period) / period for period in (DAY, WEEK))
    first = torch.where(known, past.times, last.unsqueeze(1)).amin(1)
    one_back = past.times[:, -2] if past.times.shape[1] > 1 else last
    one_back = torch.where(known[:, -2], one_back, last) if past.times.shape[1] > 1 else last
    told = [
        torch.sin(day),
        torch.cos(day),
        torch.sin(week),
        torch.cos(week),
        (seconds - clock.mean) / clock.spread,
        torch.log1p((last - one_back) / SECOND) / 10,
        torch.log1p((last - first) / SECOND) / 10,
    ]
    return torch.stack(told, dim=1).float() * known[:, -1:]


def ages(past: Past) -> Tensor:
    """Return the bucket of each item's age at the moment of the latest, [B,L] in [0,AGES); 0 where unknown."""
    if past.times is None:
        return torch.zeros_like(past.items)
    apart = (past.times[:, -1:] - past.times).clamp(min=0).double() / SECOND
    return torch.log2(1 + apart).long().clamp(max=AGES - 1).masked_fill(past.items < 0, 0)
