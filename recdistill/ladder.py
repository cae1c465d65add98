"""Fewer and fewer users to learn from: those of whom the student was the least sure so far stay.

Knowledge condensation (Li et al., ECCV 2022): a record of each user's uncertainty, and a set that shrinks step by step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POWER = 0.03  # of how often a user was looked at, beside the mean of what was seen (the authors' code)


def rungs(users: int, *, keep: float, steps: int, most: int) -> list[int]:
    """Return how many of `users` are left after 0, 1, ... `most` cuts: `steps` equal ones down to the share `keep`."""
    floor, cut = int(keep * users), int(users * (1 - keep) / steps)
    sizes = [users]
    for done in range(most):
        sizes.append(floor if done + 1 >= steps else max(floor, sizes[-1] - cut))
    return sizes


def doubts(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the entropy of each row's softmax over its list [n,K], over that of an even one; -inf is no item: [n]."""
    known = np.isfinite(scores)
    top = np.where(known, scores, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    p = np.where(known, np.exp(np.where(known, scores - np.where(np.isfinite(top), top, 0.0), 0.0)), 0.0)
    p /= np.maximum(p.sum(1, keepdims=True), 1e-300)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
    return entropy / np.log(np.maximum(known.sum(1), 2))


def left(
    record: NDArray[np.float64], times: NDArray[np.int64], before: NDArray[np.int32], size: int
) -> NDArray[np.int32]:
    """Return the `size` users of `before` [n] of the largest value, in rising order.

    A user's value is (times / the most times)^POWER times the mean of its `record` [U], the sum over the `times` [U] it
    was looked at. Equal values come in order of users.
    """
    value = (times[before] / max(int(times.max(initial=1)), 1)) ** POWER * record[before] / np.maximum(times[before], 1)
    return np.sort(before[np.argsort(-value, kind="stable")[:size]])
