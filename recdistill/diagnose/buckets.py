"""Who a distillation helps and who it costs: quality by how active users are and how popular the items are.

A gain on average may hide groups that lose, where the teacher cannot be relied on, and students move towards their
teacher's popularity profile; so the worst cell is always named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from recdistill.diagnose.chances import Mask
from recdistill.distill.draws import popularity_groups
from recdistill.evaluate import Lists, popularity
from recdistill.folds import pick
from recdistill.metrics import Values, bootstrap, coverage, hits, interval, recall, relevant
from recdistill.types import Int, Interactions

FIFTHS, TAIL = 5, 2  # the tail is the two least popular fifths of all training interactions


class Cell(NamedTuple):
    """One group of users on one group of items; recall@k of those items, a mean over users, NaN without any."""

    activity: int  # from 0, the least active
    popularity: int  # from 0, the least popular
    users: int  # of the group, to whom an item of the other was held out
    student: float
    teacher: float
    scratch: float
    difference: float  # student - scratch, with its 95% interval over users
    low: float
    high: float


class Table(NamedTuple):
    """All cells, by activity, then popularity, and the one of least difference; None if all are empty.

    The worst of many cells looks worse than it is: judge it by its interval, and that with care.
    """

    cells: tuple[Cell, ...]
    worst: Cell | None


class Profile(NamedTuple):
    """What lists show, whoever they are for."""

    popularity: float  # mean training interactions of what is shown
    coverage: float  # share of the catalogue that somebody is shown
    tail_recall: float  # recall@k of the held-out items of the tail; NaN without any


def activity_groups(activity: Int, groups: int) -> Int:
    """Return the group of each user by training interactions, `activity` [n], 0 the least active: [n].

    Groups differ in size by one user at most; of equally active users those of lower rows come first.
    """
    group = np.empty(len(activity), np.int64)
    for number, part in enumerate(np.array_split(np.argsort(activity, kind="stable"), groups)):
        group[part] = number
    return group


def buckets(
    lists: Lists,
    train: Interactions,
    truth: Interactions,
    users: Int,
    *,
    num_items: int,
    groups: tuple[int, int],
    k: int,
    times: int,
    seed: int,
) -> Table:
    """Return the table of `groups` (of activity, of popularity): recall@k of what is held out, by cell.

    `lists` holds for each seed of `student`, `teacher` and `scratch` lists [n,K] of `users` [n]; KeyError without one.
    Users are cut into equal groups by interactions in `train`, items into groups of equal interactions; held out is
    `truth`. All cells of a model count each user once, by the share of that user's held-out items of the group.
    """
    active = activity_groups(relevant(train, users), groups[0])
    item_group = _by_mass(train, num_items, groups[1])
    found: dict[tuple[int, int], Cell] = {}
    for g in range(groups[1]):
        part = pick(truth, item_group[np.asarray(truth.items)] == g)
        values = _recalls(lists, part, users, k)
        there = relevant(part, users) > 0
        for a in range(groups[0]):
            mine = there & (active == a)
            found[a, g] = _cell(a, g, {model: each[mine] for model, each in values.items()}, times, seed)
    cells = tuple(found[at] for at in sorted(found))
    return Table(cells, min((c for c in cells if c.users), key=lambda c: c.difference, default=None))


def profile(lists: Int, train: Interactions, truth: Interactions, users: Int, *, num_items: int, k: int) -> Profile:
    """Return how popular, how various and how deep in the tail the first `k` of `lists` [n,K] of `users` [n] are."""
    counts = np.bincount(train.items, minlength=num_items)
    each = tail_recall(lists, train, truth, users, num_items=num_items, k=k)
    deep = float(each.mean()) if len(each) else math.nan
    return Profile(float(popularity(lists, counts, k).mean()), coverage(lists, num_items, k), deep)


def tail_recall(lists: Int, train: Interactions, truth: Interactions, users: Int, *, num_items: int, k: int) -> Values:
    """Return recall@k of the tail's items for each user to whom one is held out, [m], m <= n, in order of users.

    The tail is the items of the two least popular fifths of training interactions.
    """
    part = pick(truth, in_tail(train, num_items)[np.asarray(truth.items)])
    return _recalls({"lists": [lists]}, part, users, k)["lists"][relevant(part, users) > 0]


def in_tail(train: Interactions, num_items: int) -> Mask:
    """Return which items are of the two least popular fifths of training interactions, [I]."""
    return _by_mass(train, num_items, FIFTHS) < TAIL


def _by_mass(train: Interactions, num_items: int, groups: int) -> Int:
    counts = np.bincount(train.items, minlength=num_items)
    return popularity_groups(torch.from_numpy(counts), groups).numpy()


def _recalls(lists: Mapping[str, Sequence[Int]], truth: Interactions, users: Int, k: int) -> dict[str, Values]:
    """Return each model's mean recall over its seeds, [n], 0 for a user without anything to find."""
    count = np.maximum(relevant(truth, users), 1)
    return {
        model: np.mean([recall(hits(each, truth, users), count, k) for each in seeds], axis=0)
        for model, seeds in lists.items()
    }


def _cell(activity: int, group: int, values: Mapping[str, Values], times: int, seed: int) -> Cell:
    both = np.stack([values["student"], values["scratch"]], axis=1)
    if not len(both):
        return Cell(activity, group, 0, *[math.nan] * 6)
    means = bootstrap(both, times, seed)
    low, high = interval(means[:, 0] - means[:, 1])
    student, teacher, scratch = (float(values[model].mean()) for model in ("student", "teacher", "scratch"))
    return Cell(activity, group, len(both), student, teacher, scratch, student - scratch, low, high)
