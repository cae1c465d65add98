"""What is wrong with a split, measured: unseen users and items, id order, pairs and times that leak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recdistill.types import Int

Finding = Literal["cold_users", "cold_items", "id_order", "overlap", "time_leakage", "count_token"]
COLD = 0.5
ORDERED = 0.9


@dataclass(frozen=True, slots=True)
class Rows:
    """The interactions of one part, row by row."""

    user: Int  # [n]
    item: Int  # [n]
    time: Int | None = None  # [n]


def lint(
    train: Rows, valid: Rows, test: Rows, *, item_order: Int, kind: str, item_numbers: Int | None = None
) -> list[dict[str, Any]]:
    """Return the findings on a split: name, part, value, threshold, severity (info or refuse) and text.

    `item_order[i]` is the place of item row `i` among the caller's ids in their own order, numbers as numbers
    even where they are written as text. `item_numbers[i]` is its id, where ids are whole
    numbers. `kind` is how the split was made.
    """
    findings = [*_cold(train, valid, "valid"), *_cold(train, test, "test")]
    findings += [_id_order((train, valid, test), item_order), *_overlap(train, valid, test, len(item_order))]
    if train.time is not None and test.time is not None:
        findings.append(_time_leakage(train.time, test.time, kind))
    if item_numbers is not None:
        findings.append(_count_token((train, valid, test), item_numbers))
    return findings


def refused(findings: Sequence[Mapping[str, Any]], allow: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the findings that forbid the split and that `allow` does not name."""
    return [f for f in findings if f["severity"] == "refuse" and f["name"] not in allow]


def _finding(name: Finding, part: str, value: float, threshold: float, refuse: bool, text: str) -> dict[str, Any]:
    severity = "refuse" if refuse else "info"
    rounded = round(float(value), 6)
    return {"name": name, "part": part, "value": rounded, "threshold": threshold, "severity": severity, "text": text}


def _cold(train: Rows, held: Rows, part: str) -> list[dict[str, Any]]:
    """Measure how much of a part nothing was learned about: users by head, items by row."""
    users = np.unique(held.user)
    unseen = float(np.mean(~np.isin(users, train.user))) if len(users) else 0.0
    rows = float(np.mean(~np.isin(held.item, train.item))) if len(held.item) else 0.0
    who = f"{unseen:.1%} of the {part} users ({round(unseen * len(users))} of {len(users)}) have no row in train"
    if unseen > COLD:
        who += ": metrics would be about users the model has never seen"
        who += "; use split.kind: user_chronological, or accept it with split.allow: [cold_users]"
    what = f"{rows:.1%} of the {part} rows are of items with no row in train"
    if rows > COLD:
        what += ": no model that learns items from interactions can find them"
        what += "; hold out less, or accept it with split.allow: [cold_items]"
    return [
        _finding("cold_users", part, unseen, COLD, unseen > COLD, who),
        _finding("cold_items", part, rows, COLD, rows > COLD, what),
    ]


def _id_order(parts: Sequence[Rows], item_order: Int) -> dict[str, Any]:
    user = np.concatenate([p.user for p in parts])
    order = item_order[np.concatenate([p.item for p in parts])]
    part = np.repeat(np.arange(3), [len(p.user) for p in parts])
    times = [p.time for p in parts if p.time is not None]
    time = np.concatenate(times) if len(times) == 3 else np.zeros(len(user), np.int64)
    correlation = order_correlation(user, part, time, order)
    above = _share_above(user, part, order)
    text = f"mean rank correlation of train-valid-test position and item id within a user: {correlation:.3f}"
    text += f"; {above:.1%} of the held-out ids are larger than all of the user's train ids"
    refuse = correlation > ORDERED and above > ORDERED
    if refuse:
        text += ": the log is sorted by id and was split by position, so the held-out part is the largest ids"
        text += "; use split.kind: user_random, or accept it with split.allow: [id_order] if ids really follow time"
    return _finding("id_order", "held-out", correlation, ORDERED, refuse, text)


def order_correlation(user: Int, part: Int, time: Int, order: Int) -> float:
    """Return the mean over users of Spearman's correlation of (part, time) with `order`, [n] each.

    It is divided by the largest value that ties in (part, time) allow, so that a split by position gives 1 even
    where nothing says the order within a part. Users all in one part, or all tied, do not count.
    """
    if len(user) == 0:
        return 0.0
    by_place, by_id = np.lexsort((time, part, user)), np.lexsort((order, user))
    same = np.ones(len(user), bool)
    for key in (user, part, time):
        same[1:] &= np.diff(key[by_place]) == 0
    same[0] = False
    group = np.cumsum(~same) - 1
    middle = np.bincount(group, np.arange(len(user))) / np.bincount(group)
    count = np.maximum(np.bincount(user), 1)

    def centred(place: NDArray[np.float64]) -> NDArray[np.float64]:
        return place - (np.bincount(user, place) / count)[user]

    x, y = np.empty(len(user)), np.empty(len(user))
    x[by_place], y[by_id] = middle[group], np.arange(len(user))
    x, y = centred(x), centred(y)
    found = np.bincount(user, x * y)
    best = np.bincount(user[by_place], x[by_place] * y[by_id])
    held = np.bincount(user, part > 0)
    counts = (best > 1e-9) & (held > 0) & (held < np.bincount(user))
    return float(np.mean(found[counts] / best[counts])) if counts.any() else 0.0


def _share_above(user: Int, part: Int, order: Int) -> float:
    """Return the share of held-out rows whose id is above every train id of a user with two train rows or more."""
    top = np.full(int(user.max(initial=0)) + 1, -1, np.int64)
    train = part == 0
    np.maximum.at(top, user[train], order[train])
    several = np.bincount(user[train], minlength=len(top)) > 1
    rows = ~train & several[user]
    return float(np.mean(order[rows] > top[user[rows]])) if rows.any() else 0.0


def _overlap(train: Rows, valid: Rows, test: Rows, items: int) -> list[dict[str, Any]]:
    seen, found = train.user * items + train.item, list[dict[str, Any]]()
    for part, rows in (("valid", valid), ("test", test)):
        pairs = rows.user * items + rows.item
        twice = np.flatnonzero(np.isin(pairs, seen))
        text = f"{len(twice)} of the {len(pairs)} {part} pairs (user, item) are also in an earlier part"
        if len(twice):
            text += (
                ": the model has seen the answer; remove them from one part, or accept it with split.allow: [overlap]"
            )
        found.append(_finding("overlap", part, len(twice), 0, len(twice) > 0, text))
        seen = np.concatenate([seen, pairs])
    return found


def _time_leakage(train: Int, test: Int, kind: str) -> dict[str, Any]:
    start = int(test.min()) if len(test) else 0
    share = float(np.mean(train >= start)) if len(train) and len(test) else 0.0
    text = f"{share:.1%} of the train rows are not earlier than the first test row"
    if kind != "global_time" and share:
        text += ": the model knows of others what came after; split.kind: global_time has none of this"
    return _finding("time_leakage", "train", share, 0.0, kind == "global_time" and share > 0, text)


def _count_token(parts: Sequence[Rows], item_numbers: Int) -> dict[str, Any]:
    """Look for lists that begin with their length (CiteULike's users.dat) and were read as if it were an item."""
    user = np.concatenate([p.user for p in parts])
    number = item_numbers[np.concatenate([p.item for p in parts])]
    count = np.bincount(user)
    # A length that is the user's largest id says nothing: ids that count up from 0 have that by themselves.
    largest = np.zeros(len(count), number.dtype)
    np.maximum.at(largest, user, number)
    hit = np.unique(user[(number == count[user] - 1) & (number < largest[user])])
    share = len(hit) / max(1, np.count_nonzero(count))
    text = f"{share:.1%} of the users have an item whose id is the number of their other items"
    refuse = bool(share > ORDERED and len(np.unique(count[hit])) > 4)
    if refuse:
        text += ": the length at the head of each list was read as an item; import the file with the importer for it"
        text += ", or accept it with split.allow: [count_token]"
    return _finding("count_token", "all", share, ORDERED, refuse, text)
