"""How far a student does what its teacher does: agreement of their lists, and of their chances, one value a user.

Fidelity is not quality: a student may match its teacher less and still rank better (Stanton et al., NeurIPS 2021).
Lists [n,K] hold item rows, best first, -1 where a list is shorter. A user whose teacher has no list gets NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recdistill.diagnose.chances import Mask, Scores, log_softmax
from recdistill.diagnose.lists import places
from recdistill.metrics import Values
from recdistill.types import Int


class Fidelity(NamedTuple):
    """Agreement of two sets of lists, one value a user [n] each; NaN where the teacher has no list."""

    top: Values  # 1 where both put the same item first
    overlap: Values  # share of the first k that both have
    rbo: Values  # rank-biased overlap


def fidelity(student: Int, teacher: Int, *, k: int, persistence: float) -> Fidelity:
    """Return how far `student` [n,K] agrees with `teacher` [n,M]: at the top, in the first `k`, and along the lists."""
    return Fidelity(top_agreement(student, teacher), overlap(student, teacher, k), rbo(student, teacher, persistence))


def top_agreement(student: Int, teacher: Int) -> Values:
    """Return 1 for each user whose lists begin with the same item, else 0: [n]."""
    return np.where(_told(teacher), student[:, 0] == teacher[:, 0], np.nan)


def overlap(student: Int, teacher: Int, k: int) -> Values:
    """Return the share of the first `k` that two lists have in common, [n].

    Of lists that are both shorter than `k` it is the share of the longer one.
    """
    student, teacher = student[:, :k], teacher[:, :k]
    common = (places(student, teacher) < teacher.shape[1]).sum(1)
    longer = np.maximum(_lengths(student), _lengths(teacher))
    return np.where(_told(teacher), common / np.maximum(longer, 1), np.nan)


def rbo(student: Int, teacher: Int, persistence: float) -> Values:
    """Return the extrapolated rank-biased overlap of two lists, which may differ in length: [n].

    `persistence` in (0, 1) is the chance to look one place further: the first 1 / (1 - persistence) places count most.
    1 for equal lists and for a list that begins the other, 0 for disjoint ones, and for an empty list of the student.
    ValueError for another persistence. Webber, Moffat and Zobel (ACM TOIS 2010), equation 32.
    """
    if not 0 < persistence < 1:
        raise ValueError(f"persistence is the chance to look further, between 0 and 1, not {persistence}")
    n, width = len(student), max(student.shape[1], teacher.shape[1])
    place = places(student, teacher)
    # An item is in both prefixes from the depth on at which the later of the two lists has it.
    later = np.maximum(place, np.arange(student.shape[1]))
    row, column = np.nonzero(place < teacher.shape[1])
    common = np.bincount(row * width + later[row, column], minlength=n * width).reshape(n, width).cumsum(1)
    lengths = _lengths(student), _lengths(teacher)
    short, long = np.minimum(*lengths)[:, None], np.maximum(*lengths)[:, None]
    at_short = np.take_along_axis(common, np.maximum(short - 1, 0), 1)
    at_long = np.take_along_axis(common, np.maximum(long - 1, 0), 1)
    depth, less = np.arange(1, width + 1), np.maximum(short, 1)
    # Past its end the shorter list is taken to agree as much as it did up to there.
    beyond = np.where(depth > short, at_short * (depth - short) / less, 0.0)
    seen = np.where(depth <= long, (common + beyond) / depth * persistence**depth, 0.0).sum(1)
    rest = ((at_long - at_short) / np.maximum(long, 1) + at_short / less) * persistence**long
    value = seen * (1 - persistence) / persistence + rest[:, 0]
    return np.where(_told(teacher), np.where(short[:, 0] > 0, value, 0.0), np.nan)


def divergence(student: Scores, teacher: Scores, mask: Mask | None = None) -> Values:
    """Return KL(softmax(teacher) || softmax(student)) of each row in nats, at temperature 1: [n].

    Both are scores [n,L] of the same items, of which those in `mask` [n,L] count. inf where the student gives no
    chance (-inf) to what the teacher gives one; NaN for a row in which the teacher has no score at all.
    """
    p, q = log_softmax(teacher, mask), log_softmax(student, mask)
    known = p > -np.inf
    terms = np.exp(p) * np.subtract(p, q, out=np.zeros_like(p), where=known)
    # Rounding may leave -1e-17 of a sum that cannot be negative.
    return np.where(known.any(1), np.maximum(terms.sum(1), 0.0), np.nan)


def _lengths(lists: Int) -> Int:
    return (lists >= 0).sum(1)


def _told(teacher: Int) -> Mask:
    return np.asarray((teacher >= 0).any(1))
