"""The teacher's queries lie evenly over the turns: all of them if they are quick, else as many as there is time for."""

from __future__ import annotations

import pytest

from recdistill.teacher_latency import evenly


def taken(each: float, *, leads: bool = False, turns: int = 100, repeats: int = 5, queries: int = 1000):
    """Return which queries were asked in each turn, and the times of each repeat, where each takes `each` seconds."""
    asked: list[list[int]] = []

    def ask(n: int) -> float:
        asked[-1].append(n)
        return each

    take, times = evenly(ask, queries=queries, seconds=60.0, turns=turns, repeats=repeats, leads=leads)
    for turn in range(turns):
        asked.append([])
        take(turn)
    return asked, times


def test_quick_queries_are_all_asked_once_and_in_order():
    asked, times = taken(0.001)
    assert [len(turn) for turn in asked] == [10] * 100
    assert [n for turn in asked for n in turn] == list(range(1000))
    assert [len(part) for part in times] == [200] * 5


def test_a_turn_of_quick_ones_begins_with_one_that_is_not_timed():
    asked, times = taken(0.001, leads=True)
    assert asked[:2] == [[-1, *range(10)], [9, *range(10, 20)]]
    assert [len(part) for part in times] == [200] * 5


@pytest.mark.parametrize(("each", "fit"), [(0.2, 300), (1.5, 40), (3.0, 20)])
def test_slow_queries_are_as_many_as_there_is_time_for_in_every_repeat(each, fit):
    _, times = taken(each)
    assert sum(map(len, times)) == pytest.approx(fit, abs=1)
    assert max(map(len, times)) - min(map(len, times)) <= 2


def test_fewer_queries_than_turns_are_spread_too():
    asked, times = taken(0.001, queries=50)
    assert sum(map(len, asked)) == 50
    assert max(map(len, asked)) == 1
    assert [len(part) for part in times] == [10] * 5
