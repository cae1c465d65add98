"""What a model may read of a user's history at an interaction, and of a user to serve."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.data.sequences import Sequences
from recdistill.types import Interactions

ITEMS = [[10, 11, 12, 13], [], [20], [30, 31, 32]]
INDPTR = np.array([0, 4, 4, 5, 8])


def log(*, timed):
    items = np.concatenate([np.array(row, dtype=np.int64) for row in ITEMS])
    times = np.concatenate([np.arange(len(row), dtype=np.int64) for row in ITEMS]) if timed else None
    return Interactions(indptr=INDPTR, items=items, times=times)


def before(length, *, timed):
    sequences = Sequences.of(log(timed=timed))
    return sequences.before(torch.arange(8), length).items.tolist()


def owners():
    return [(u, at) for u, row in enumerate(ITEMS) for at in range(len(row))]


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_with_times_it_is_what_came_before_the_latest_last(length):
    for (user, at), found in zip(owners(), before(length, timed=True), strict=True):
        past = ITEMS[user][:at][-length:]
        assert found == [-1] * (length - len(past)) + past


def test_without_times_it_is_the_users_other_items():
    for (user, at), found in zip(owners(), before(6, timed=False), strict=True):
        others = [item for item in ITEMS[user] if item != ITEMS[user][at]]
        assert sorted(found) == sorted([-1] * (6 - len(others)) + others)
        assert found[: 6 - len(others)] == [-1] * (6 - len(others))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_without_times_a_short_history_is_of_distinct_other_items(length):
    for (user, at), found in zip(owners(), before(length, timed=False), strict=True):
        known = [item for item in found if item >= 0]
        assert len(known) == min(length, len(ITEMS[user]) - 1)
        assert len(set(known)) == len(known)
        assert set(known) <= set(ITEMS[user]) - {ITEMS[user][at]}


def test_without_times_the_stored_order_does_not_show():
    items = np.arange(200, dtype=np.int64)
    sequences = Sequences.of(Interactions(indptr=np.array([0, 200]), items=items))
    latest = sequences.latest(torch.tensor([0]), 50).items[0].double()
    assert len(latest.unique()) == 50
    assert 60 < latest.mean() < 140  # the last fifty rows would average 174.5


def test_the_shuffle_is_the_same_each_time():
    first, second = (Sequences.of(log(timed=False)).items for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("length", [1, 3, 6])
def test_latest_is_the_end_of_each_history(length):
    found = Sequences.of(log(timed=True)).latest(torch.tensor([3, 1, 0, 2, 0]), length).items.tolist()
    for user, row in zip([3, 1, 0, 2, 0], found, strict=True):
        past = ITEMS[user][-length:]
        assert row == [-1] * (length - len(past)) + past


def test_latest_without_times_holds_the_users_items():
    found = Sequences.of(log(timed=False)).latest(torch.arange(4), 4).items.tolist()
    assert [sorted(i for i in row if i >= 0) for row in found] == ITEMS


def test_a_history_of_no_length_is_empty():
    sequences = Sequences.of(log(timed=True))
    assert sequences.before(torch.arange(8), 0).items.shape == (8, 0)
    assert sequences.latest(torch.arange(4), 0).items.shape == (4, 0)
    assert sequences.before(torch.arange(8), 0).items.dtype == torch.int64


def test_an_empty_log_has_empty_histories():
    empty = Interactions(indptr=np.zeros(4, np.int64), items=np.zeros(0, np.int64))
    assert Sequences.of(empty).latest(torch.tensor([0, 2]), 2).items.tolist() == [[-1, -1]] * 2


# Windows


LENGTHS = (0, 1, 2, 5, 6, 7, 12)  # of the users' sequences


def long_log():
    indptr = np.concatenate([[0], np.cumsum(LENGTHS)])
    return Interactions(indptr=indptr, items=np.arange(indptr[-1]) + 100, times=np.arange(indptr[-1]) * 10)


def cut_up(length, share):
    """Return (owner, items, times, targets) of every window, all moved by `share` of their room."""
    sequences = Sequences.of(long_log())
    windows = sequences.windows(length)
    rows = torch.arange(len(windows.owner))
    stop = windows.moved(rows, torch.full((len(LENGTHS),), share))
    past, targets = sequences.window(stop, windows.owner, length)
    assert past.items.shape == targets.shape == past.times.shape == (len(rows), length)
    return list(zip(windows.owner.tolist(), past.items.tolist(), past.times.tolist(), targets.tolist(), strict=True))


@pytest.mark.parametrize("share", [0.0, 0.4, 0.999])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 20])
def test_windows_teach_every_item_but_a_users_first_once(length, share):
    start = np.concatenate([[0], np.cumsum(LENGTHS)])
    taught = {user: [] for user in range(len(LENGTHS))}
    for owner, _, _, targets in cut_up(length, share):
        taught[owner] += [item for item in targets if item >= 0]
    for user, found in taught.items():
        assert sorted(found) == [100 + at for at in range(start[user] + 1, start[user + 1])]


@pytest.mark.parametrize("share", [0.0, 0.4, 0.999])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 20])
def test_a_windows_target_is_the_item_after_its_place(length, share):
    first = np.concatenate([[0], np.cumsum(LENGTHS)]) + 100
    for owner, items, times, targets in cut_up(length, share):
        known = [item for item in items if item >= 0]
        assert items == [-1] * (length - len(known)) + known
        assert known == list(range(known[0], known[0] + len(known)))  # the items of a user are numbered through here
        assert known[0] == max(first[owner], known[-1] + 1 - length)  # all of the past that there is room for
        assert times == [0 if item < 0 else (item - 100) * 10 for item in items]
        assert any(target >= 0 for target in targets)
        for item, target in zip(items, targets, strict=True):
            assert target in (-1, item + 1)
            assert item >= 0 or target == -1


def test_how_many_windows_there_are_does_not_depend_on_where_they_lie():
    # 1, 4, 5, 6 and 11 targets, three to a window.
    owners = [owner for owner, *_ in cut_up(3, 0.0)]
    assert owners == [owner for owner, *_ in cut_up(3, 0.999)] == [2, 3, 3, 4, 4, 5, 5, 6, 6, 6, 6]


def test_windows_that_move_teach_an_item_from_another_past():
    def places(share):
        return {target: at for *_, targets in cut_up(5, share) for at, target in enumerate(targets) if target >= 0}

    assert places(0.0) != places(0.999)


def test_a_log_of_single_items_has_no_windows():
    alone = Interactions(indptr=np.arange(4), items=np.arange(3), times=np.zeros(3, np.int64))
    assert len(Sequences.of(alone).windows(3).owner) == 0


def test_at_one_moment_the_order_is_not_that_of_item_rows():
    """Among items taken at once the larger row must not come next more often than by chance."""
    users, each = 400, 6
    items = np.sort(np.random.default_rng(0).integers(0, 10_000, (users, each)), axis=1)
    train = Interactions(
        indptr=np.arange(users + 1) * each, items=items.ravel(), times=np.tile([1, 1, 1, 5, 5, 5], users)
    )
    sequences = Sequences.of(train)
    read = sequences.latest(torch.arange(users), each)
    assert read.times.tolist() == [[1, 1, 1, 5, 5, 5]] * users
    rises = (read.items[:, [1, 2, 4, 5]] > read.items[:, [0, 1, 3, 4]]).double().mean().item()
    assert rises == pytest.approx(0.5, abs=0.05)
    assert read.items[:, :3].sort(1).values.tolist() == items[:, :3].tolist()
    found = sequences.before(torch.arange(users * each), each)
    for row in range(0, users * each, 7):
        later = found.times[row][found.items[row] >= 0]
        assert (later <= int(train.times[row])).all()
        assert int(train.items[row]) not in found.items[row].tolist()
