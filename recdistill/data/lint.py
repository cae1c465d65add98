"""What is wrong with a split, measured: unseen users and items, id order, pairs and times that leak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recdistill.data.order import stable_order
from recdistill.types import Int

Finding = Literal["cold_users", "cold_items", "id_order", "overlap", "time_leakage", "count_token"]
COLD = 0.5
ORDERED = 0.9
LENGTHS = 4  # different ones, from which on they are no chance
BLOCK = 1 << 20  # rows that are compared at a time


@dataclass(frozen=True, slots=True)
class Rows:
    """The interactions of one part, row by row."""

    user: Int  # [n]
    item: Int  # [n]
    time: Int | None = None  # [n]


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted of a split, block by block; the arrays are added to in place."""

    train_items: NDArray[np.bool_]  # [I] has a row in train
    held_items: Int  # [3,I] rows of each part, but for train
    rows: Int  # [3] rows of each part
    users: Int  # [3] users of each part
    unseen: Int  # [3] users of each part without a row in train
    twice: Int  # [3] pairs of each part that are in an earlier one
    correlation: NDArray[np.float64]  # [2] sum over users, and how many
    above: Int  # [2] held-out rows above all that the user has in train, and of how many
    token: Int  # [2] users with an item that counts their others, and of how many
    lengths: set[int]  # how many rows the first of these have

    @classmethod
    def of(cls, items: int) -> Counts:
        """Return the counts of nothing."""
        return cls(
            train_items=np.zeros(items, bool),
            held_items=np.zeros((3, items), np.int64),
            rows=np.zeros(3, np.int64),
            users=np.zeros(3, np.int64),
            unseen=np.zeros(3, np.int64),
            twice=np.zeros(3, np.int64),
            correlation=np.zeros(2),
            above=np.zeros(2, np.int64),
            token=np.zeros(2, np.int64),
            lengths=set(),
        )


def lint(
    train: Rows, valid: Rows, test: Rows, *, item_order: Int, kind: str, item_numbers: Int | None = None
) -> list[dict[str, Any]]:
    """Return the findings on a split: name, part, value, threshold, severity (info or refuse) and text.

    `item_order[i]` is the place of item row `i` among the caller's ids in their own order, numbers as numbers
    even where they are written as text. `item_numbers[i]` is its id, where ids are whole
    numbers. `kind` is how the split was made.
    """
    parts = (train, valid, test)
    user, item = (np.concatenate([getattr(p, name) for p in parts]) for name in ("user", "item"))
    part = np.repeat(np.arange(3, dtype=np.int8), [len(p.user) for p in parts])
    times = [p.time for p in parts if p.time is not None]
    time = np.concatenate(times) if len(times) == 3 else None
    by_user = np.argsort(user, kind="stable")
    whole = Rows(user[by_user], item[by_user], None if time is None else time[by_user])
    counts = Counts.of(len(item_order))
    count(counts, whole, part[by_user], item_order=item_order, item_numbers=item_numbers)
    return findings(counts, train.time, test.time, kind=kind, tokens=item_numbers is not None)


def count(counts: Counts, rows: Rows, part: NDArray[np.int8], *, item_order: Int, item_numbers: Int | None) -> None:
    """Add a block of `rows` in order of users, with the part of each, to `counts`; no user is in two blocks.

    `item_order` and `item_numbers` are those of `lint`.
    """
    if not len(rows.user):
        return
    user = rows.user - rows.user[0]
    by_part = [np.flatnonzero(part == p) for p in range(3)]
    counts.train_items[rows.item[by_part[0]]] = True
    having = [np.bincount(user[at], minlength=int(user[-1]) + 1) > 0 for at in by_part]
    for p, at in enumerate(by_part):
        counts.rows[p] += len(at)
        counts.users[p] += np.count_nonzero(having[p])
        counts.unseen[p] += np.count_nonzero(having[p] & ~having[0])
        if p:
            np.add.at(counts.held_items[p], rows.item[at], 1)
    order = item_order[rows.item]
    pair = user * len(item_order) + order
    by_id = stable_order(pair)
    time = np.zeros(len(user), np.int64) if rows.time is None else rows.time
    each = _correlations(user, part, time, by_id)
    counts.correlation[:] += [each.sum(), len(each)]
    counts.above[:] += _above(user, part, order)
    counts.twice[:] += _twice(pair, by_id, part)
    if item_numbers is not None:
        hit = _token(user, item_numbers[rows.item])
        counts.token[:] += (len(hit), int(np.count_nonzero(having[0] | having[1] | having[2])))
        if len(counts.lengths) <= LENGTHS:
            counts.lengths.update(np.unique(hit).tolist())


def findings(
    counts: Counts, train_time: Int | None, test_time: Int | None, *, kind: str, tokens: bool
) -> list[dict[str, Any]]:
    """Return the findings of `lint` from the counts of all rows and the times of train and test, in any order."""
    found = [*_cold(counts, 1, "valid"), *_cold(counts, 2, "test"), _id_order(counts)]
    found += [_overlap(counts, 1, "valid"), _overlap(counts, 2, "test")]
    if train_time is not None and test_time is not None:
        found.append(_time_leakage(train_time, test_time, kind))
    if tokens:
        found.append(_count_token(counts))
    return found


def refused(findings: Sequence[Mapping[str, Any]], allow: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the findings that forbid the split and that `allow` does not name."""
    return [f for f in findings if f["severity"] == "refuse" and f["name"] not in allow]


def _finding(name: Finding, part: str, value: float, threshold: float, refuse: bool, text: str) -> dict[str, Any]:
    severity = "refuse" if refuse else "info"
    rounded = round(float(value), 6)
    return {"name": name, "part": part, "value": rounded, "threshold": threshold, "severity": severity, "text": text}


def _cold(counts: Counts, part: int, name: str) -> list[dict[str, Any]]:
    """Measure how much of a part nothing was learned about: users by head, items by row."""
    held, total = int(counts.users[part]), int(counts.rows[part])
    users = float(counts.unseen[part] / held) if held else 0.0
    rows = float(counts.held_items[part][~counts.train_items].sum() / total) if total else 0.0
    who = f"{users:.1%} of the {name} users ({counts.unseen[part]} of {held}) have no row in train"
    if users > COLD:
        who += ": metrics would be about users the model has never seen"
        who += "; use split.kind: user_chronological, or accept it with split.allow: [cold_users]"
    what = f"{rows:.1%} of the {name} rows are of items with no row in train"
    if rows > COLD:
        what += ": no model that learns items from interactions can find them"
        what += "; hold out less, or accept it with split.allow: [cold_items]"
    return [
        _finding("cold_users", name, users, COLD, users > COLD, who),
        _finding("cold_items", name, rows, COLD, rows > COLD, what),
    ]


def _id_order(counts: Counts) -> dict[str, Any]:
    total, users = counts.correlation
    correlation = float(total / users) if users else 0.0
    above = float(counts.above[0] / counts.above[1]) if counts.above[1] else 0.0
    text = f"mean rank correlation of train-valid-test position and item id within a user: {correlation:.3f}"
    text += f"; {above:.1%} of the held-out ids are larger than all of the user's train ids"
    refuse = correlation > ORDERED and above > ORDERED
    if refuse:
        text += ": the log is sorted by id and was split by position, so the held-out part is the largest ids"
        text += "; use split.kind: user_random, or accept it with split.allow: [id_order] if ids really follow time"
    return _finding("id_order", "held-out", correlation, ORDERED, refuse, text)


def order_correlation(user: Int, part: NDArray[np.integer], time: Int, order: Int) -> float:
    """Return the mean over users of Spearman's correlation of (part, time) with `order`, [n] each, by user.

    It is divided by the largest value that ties in (part, time) allow, so that a split by position gives 1 even
    where nothing says the order within a part. Users all in one part, or all tied, do not count.
    """
    each = _correlations(user, part, time, np.lexsort((order, user)))
    return float(np.mean(each)) if len(each) else 0.0


def _correlations(user: Int, part: NDArray[np.integer], time: Int, by_id: Int) -> NDArray[np.float64]:
    """Return the correlation of each user that counts; `by_id` orders the rows by user and id."""
    if len(user) == 0:
        return np.empty(0)
    by_place = _by_place(user, part, time)
    same = np.ones(len(user), bool)
    for key in (user, part, time):
        ordered = key[by_place]
        same[1:] &= ordered[1:] == ordered[:-1]
    same[0] = False
    group = np.cumsum(~same) - 1
    size = np.bincount(group)
    middle = np.cumsum(size) - (size + 1) / 2  # the mean of the places of a group
    rows = np.bincount(user)
    # Rows of one user stand together by place and by id, so both have the mean place of the user's rows.
    mean = (np.cumsum(rows) - (rows + 1) / 2)[user]
    x, y = np.empty(len(user)), np.empty(len(user))
    x[by_place], y[by_id] = middle[group], np.arange(len(user))
    x, y = x - mean, y - mean
    found = np.bincount(user, x * y)
    best = np.bincount(user, x[by_place] * y[by_id])  # by_place, by_id and the rows themselves are all by user
    held = np.bincount(user, part > 0)
    counts = (best > 1e-9) & (held > 0) & (held < rows)
    return found[counts] / best[counts]


def _by_place(user: Int, part: NDArray[np.integer], time: Int) -> Int:
    """Return the order of rows by user, part, time: often the one they have."""
    key, low = user * 3 + part, int(time.min())
    span = int(time.max()) - low + 1
    if (int(key.max()) + 1) * span >= 2**63:
        return np.lexsort((time, part, user))
    key = key * span + (time - low)
    return np.arange(len(key)) if (key[1:] >= key[:-1]).all() else stable_order(key)


def _above(user: Int, part: NDArray[np.integer], order: Int) -> tuple[int, int]:
    """Count held-out rows whose id is above every train id of the user, of users with two train rows or more."""
    top = np.full(int(user[-1]) + 1, -1, np.int64)
    train = np.flatnonzero(part == 0)
    several = np.bincount(user[train], minlength=len(top)) > 1
    if len(train):
        first = np.flatnonzero(np.diff(user[train], prepend=-1))
        top[user[train][first]] = np.maximum.reduceat(order[train], first)
    rows = np.flatnonzero((part > 0) & several[user])
    return int(np.count_nonzero(order[rows] > top[user[rows]])), len(rows)


def _twice(pair: Int, by_id: Int, part: NDArray[np.integer]) -> list[int]:
    """Count the rows of each part whose pair is in an earlier part too."""
    ordered = pair[by_id]
    again = ordered[1:] == ordered[:-1]
    rows = by_id[np.append(again, False) | np.insert(again, 0, False)]
    earlier = [pair[rows[part[rows] < p]] for p in range(3)]
    return [int(np.isin(pair[rows[part[rows] == p]], earlier[p]).sum()) for p in range(3)]


def _overlap(counts: Counts, part: int, name: str) -> dict[str, Any]:
    twice = int(counts.twice[part])
    text = f"{twice} of the {counts.rows[part]} {name} pairs (user, item) are also in an earlier part"
    if twice:
        text += ": the model has seen the answer; remove them from one part, or accept it with split.allow: [overlap]"
    return _finding("overlap", name, twice, 0, twice > 0, text)


def _time_leakage(train: Int, test: Int, kind: str) -> dict[str, Any]:
    start = int(test.min()) if len(test) else 0
    late = sum(int(np.count_nonzero(train[at : at + BLOCK] >= start)) for at in range(0, len(train), BLOCK))
    share = late / len(train) if len(train) and len(test) else 0.0
    text = f"{share:.1%} of the train rows are not earlier than the first test row"
    if kind != "global_time" and share:
        text += ": the model knows of others what came after; split.kind: global_time has none of this"
    return _finding("time_leakage", "train", share, 0.0, kind == "global_time" and share > 0, text)


def _token(user: Int, number: Int) -> Int:
    """Return how many rows each user has who has an item whose id is the number of their other items."""
    count = np.bincount(user)
    first = np.flatnonzero(np.diff(user, prepend=-1))
    # A length that is the user's largest id says nothing: ids that count up from 0 have that by themselves.
    largest = np.zeros(len(count), number.dtype)
    largest[user[first]] = np.maximum(np.maximum.reduceat(number, first), 0)
    hit = np.unique(user[(number == count[user] - 1) & (number < largest[user])])
    return count[hit]


def _count_token(counts: Counts) -> dict[str, Any]:
    """Look for lists that begin with their length (CiteULike's users.dat) and were read as if it were an item."""
    hit, users = counts.token
    share = int(hit) / max(1, int(users))
    text = f"{share:.1%} of the users have an item whose id is the number of their other items"
    refuse = share > ORDERED and len(counts.lengths) > LENGTHS
    if refuse:
        text += ": the length at the head of each list was read as an item; import the file with the importer for it"
        text += ", or accept it with split.allow: [count_token]"
    return _finding("count_token", "all", share, ORDERED, refuse, text)
