"""Time as the ranker reads it: angles and logs by hand, nothing of what comes after the latest item."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from recdistill.models.clock import AGES, MOMENT, Clock, ages, moment
from recdistill.types import Interactions, Past

CLOCK = Clock(mean=1_000_000.0, spread=50_000.0)


def at(*seconds, items=None):
    times = torch.tensor([seconds]) * 1_000_000
    return Past(items=torch.arange(len(seconds))[None] if items is None else torch.tensor([items]), times=times)


def test_a_clock_is_the_mean_and_spread_of_the_log_in_seconds():
    train = Interactions(indptr=np.array([0, 2]), items=np.array([0, 1]), times=np.array([10, 30]) * 1_000_000)
    assert Clock.of(train) == (20.0, 10.0)
    assert Clock.of(Interactions(indptr=np.array([0, 2]), items=np.array([0, 1]))) is None


def test_a_moment_by_hand():
    when = int(datetime(2026, 3, 5, 18, 0, tzinfo=UTC).timestamp())  # a Thursday, as 1 January 1970 was
    found = moment(at(when - 1000, when - 7, when), Clock(when - 100, 50.0))[0].double()
    assert found[:2].tolist() == pytest.approx([-1, 0], abs=1e-6)  # 18 hours are three quarters of a day
    assert found[2].item() == pytest.approx(math.sin(2 * math.pi * 0.75 / 7), abs=1e-6)
    assert found[3].item() == pytest.approx(math.cos(2 * math.pi * 0.75 / 7), abs=1e-6)
    assert found[4:].tolist() == pytest.approx([2, math.log1p(7) / 10, math.log1p(1000) / 10], rel=1e-6)


def test_what_is_not_there_is_not_read():
    padded = moment(at(0, 0, 500, 900, items=[-1, -1, 3, 4]), CLOCK)
    torch.testing.assert_close(padded, moment(at(500, 900), CLOCK))
    alone = moment(at(0, 900, items=[-1, 4]), CLOCK)[0]
    assert alone[5:].tolist() == [0, 0]
    assert not moment(at(0, 0, items=[-1, -1]), CLOCK).any()
    assert moment(Past(items=torch.tensor([[1, 2]])), CLOCK).tolist() == [[0.0] * MOMENT]
    assert moment(Past(items=torch.zeros(2, 0, dtype=torch.int64)), CLOCK).shape == (2, MOMENT)


def test_ages_are_octaves_of_seconds_before_the_latest():
    assert ages(at(1000 - 7, 1000 - 3, 1000 - 1, 1000)).tolist() == [[3, 2, 1, 0]]
    assert ages(at(0, 0, 90, items=[-1, -1, 5])).tolist() == [[0, 0, 0]]
    ancient = Past(items=torch.tensor([[1, 2]]), times=torch.tensor([[-(2**62), 2**62]]))
    assert 0 <= int(ages(ancient).max()) < AGES


def test_a_date_keeps_its_seconds():
    """In float32 a date is right to two minutes: differences must be taken before it is rounded."""
    when = 1_767_225_600
    assert moment(at(when - 3, when), CLOCK)[0, 5].item() == pytest.approx(math.log1p(3) / 10, rel=1e-6)
