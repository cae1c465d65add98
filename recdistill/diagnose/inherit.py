"""What a student takes over from its teacher besides quality: where it looks, what it shows, what it misses.

Students inherit more than accuracy (Ojha et al., NeurIPS 2023). Two models of one log agree anyway, so an agreement
says something only beside that of a student of the same kind that never met the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from recdistill.diagnose.chances import Mask
from recdistill.diagnose.fidelity import overlap
from recdistill.diagnose.lists import found, places, top
from recdistill.metrics import Values, bootstrap, interval
from recdistill.types import Int


class Transfer(NamedTuple):
    """How much more a student agrees with the teacher than an independent one, with its 95% interval over users."""

    index: float  # student - independent
    low: float
    high: float
    student: float
    independent: float
    users: int


def iou(first: Int, second: Int, k: int) -> Values:
    """Return the intersection over union of the first `k` of two sets of lists, [n]; NaN where both are empty."""
    first, second = first[:, :k], second[:, :k]
    common = (places(first, second) < second.shape[1]).sum(1)
    union = (first >= 0).sum(1) + (second >= 0).sum(1) - common
    return np.divide(common, union, out=np.full(len(first), np.nan), where=union > 0)


def attribution_iou(first: Values, second: Values, k: int, mask: Mask | None = None) -> Values:
    """Return the IoU of the `k` places that two attributions [n,L] give most, [n]; `mask` [n,L] says what is a place.

    Attributions count by value: give their magnitude where the sign does not matter. NaN for a row without places.
    """
    return iou(top(first, k, mask), top(second, k, mask), k)


def diversity(models: Sequence[Int], k: int) -> Values:
    """Return 1 - the mean IoU of the first `k` over all pairs of `models`, lists [n,K] each: [n].

    Guo et al. (2024) measure it on attention: take `top` of attributions for lists. ValueError for fewer than two.
    """
    if len(models) < 2:
        raise ValueError("diversity is between models: give the lists of two or more")
    return 1 - np.mean([iou(a, b, k) for a, b in combinations(models, 2)], axis=0)


def error_overlap(first: Int, second: Int, rows: Int, items: Int, k: int) -> Values:
    """Return, of the held-out items that either model misses in its first `k`, the share that both miss: [n].

    Lists [n,K] of both; `rows` [p] and `items` [p] say whose and which the held-out items are. NaN where neither
    misses any.
    """
    n = len(first)
    missed = [~found(lists[:, :k], rows, items) for lists in (first, second)]
    both = np.bincount(rows[missed[0] & missed[1]], minlength=n)
    either = np.bincount(rows[missed[0] | missed[1]], minlength=n)
    return np.divide(both, either, out=np.full(n, np.nan), where=either > 0)


def moved(before: Int, after: Int) -> Values:
    """Return 1 for each user whose list [n,K] begins with another item than before, else 0: [n].

    NaN for a user who had no list before.
    """
    return np.where(before[:, 0] >= 0, before[:, 0] != after[:, 0], np.nan)


def attack_transfer(before: Int, after: Int, flips: Mask) -> Values:
    """Return 1 for each user whose first item is another after an edit that changes the teacher's first item, [n].

    `flips` [n] says for whom there is such an edit; `before` and `after` [n,K] are the model's lists without and with
    it. 0 for a first item that stays, NaN where there is no such edit. Ojha et al. (NeurIPS 2023), of images.
    """
    return np.where(flips, moved(before, after), np.nan)


def invariance(one: tuple[Int, Int], other: tuple[Int, Int], k: int) -> Values:
    """Return 1 - |e - e'|, e and e' the share of the first `k` that an edit takes away from either of two models: [n].

    Each is lists [n,K] before and after the edit. So models that care as little, or as much, agree. Ojha et al.
    (NeurIPS 2023), of crops and colours.
    """
    first, second = (overlap(after, before, k) for before, after in (one, other))
    return 1 - np.abs(first - second)


def transfer_index(student: Values, independent: Values | None, *, times: int, seed: int) -> Transfer:
    """Return agree(student, teacher) - agree(independent, teacher) with a paired bootstrap interval over users.

    Both are agreements with the same teacher, one value a user [n]; users of which one is NaN are left out. ValueError
    without the independent student, or without users. Ojha et al. (NeurIPS 2023).
    """
    if independent is None:
        raise ValueError(
            "a transfer index needs an independent student, since two models of one log agree anyway: train the "
            "student without distillation terms, on the same data and seed, and give its agreement with the teacher"
        )
    both = np.stack([student, independent], axis=1)
    both = both[np.isfinite(both).all(1)]
    if not len(both):
        raise ValueError("no user has both agreements: measure both students on the same users")
    means = bootstrap(both, times, seed)
    low, high = interval(means[:, 0] - means[:, 1])
    with_teacher, without = (float(value) for value in both.mean(0))
    return Transfer(with_teacher - without, low, high, with_teacher, without, len(both))
