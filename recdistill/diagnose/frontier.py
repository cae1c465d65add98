"""What distillation trades: precision for recall, and the teacher's selectivity is what trades them.

Precision is what a student shows being likely; recall is what is true being likely to it. A sharper teacher, softmax of
beta times its scores, teaches more of the first and less of the second (Cha and Cho, NeurIPS 2025). One point is of one
student; points of students of several beta, side by side, are the frontier.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from recdistill.diagnose.buckets import tail_recall
from recdistill.diagnose.chances import Mask, Scores, log_softmax
from recdistill.metrics import Values, coverage, hits, precision, relevant
from recdistill.types import Int, Interactions


class Trade(NamedTuple):
    """Precision and recall of one distribution towards another, in nats, one value a row [n] each."""

    precision: Values  # E_{x ~ student} log p(x)
    recall: Values  # E_{x ~ p} log student(x)


class Point(NamedTuple):
    """One student on the frontier: the first two are its precision side, the others its recall side."""

    relevance: float  # share of the first k that is held out
    teacher_chance: float  # mean log-chance that the teacher gives the first k
    likelihood: float  # mean log-chance that the student gives what is held out
    coverage: float  # share of the catalogue that somebody is shown
    tail_recall: float  # recall@k of the tail's held-out items


def trade(student: Scores, truth: Scores, mask: Mask | None = None) -> Trade:
    """Return precision and recall of softmax(student) towards softmax(truth), scores [n,L] of the same items.

    -inf where one gives no chance to what the other does. Cha and Cho (NeurIPS 2025).
    """
    q, p = log_softmax(student, mask), log_softmax(truth, mask)
    return Trade(_expected(q, p), _expected(p, q))


def teacher_chance(lists: Int, teacher: Scores, k: int) -> Values:
    """Return the mean of the teacher's log-chances of the first `k` of `lists` [n,K], [n]; NaN for an empty list.

    `teacher` [n,I] are scores of the whole catalogue, -inf where an item is no candidate: block by block of users.
    """
    shown = lists[:, :k]
    there = shown >= 0
    logs = np.where(there, np.take_along_axis(log_softmax(teacher), np.maximum(shown, 0), 1), 0.0)
    return np.divide(logs.sum(1), there.sum(1), out=np.full(len(lists), np.nan), where=there.any(1))


def likelihood(student: Scores, rows: Int, items: Int) -> Values:
    """Return the mean of the student's log-chances of what is held out, [n]; NaN for a user without any.

    `student` [n,I] are scores of the whole catalogue, -inf where an item is no candidate; `rows` [p] and `items` [p]
    say whose and which the held-out items are. Those that are no candidates could not be told, and are left out.
    """
    logs = log_softmax(student)[rows, items]
    told = np.isfinite(logs)
    count = np.bincount(rows[told], minlength=len(student))
    total = np.bincount(rows[told], logs[told], minlength=len(student))
    return np.divide(total, count, out=np.full(len(student), np.nan), where=count > 0)


def point(
    lists: Int,
    chance: Values,
    likely: Values,
    train: Interactions,
    truth: Interactions,
    users: Int,
    *,
    num_items: int,
    k: int,
) -> Point:
    """Return the point of one student with `lists` [n,K] of `users` [n].

    `chance` and `likely` [n] are what `teacher_chance` and `likelihood` gave; means are over users that have a value.
    The teacher is the same for all points, at temperature 1, whatever was taught.
    """
    relevance = precision(hits(lists, truth, users), relevant(truth, users), k)
    tail = tail_recall(lists, train, truth, users, num_items=num_items, k=k)
    return Point(_mean(relevance), _mean(chance), _mean(likely), coverage(lists, num_items, k), _mean(tail))


def _expected(of: Values, log: Values) -> Values:
    """Return the mean of `log` under the chances whose logarithm is `of`, [n,L] each; what has no chance adds none."""
    chance = np.exp(of)
    return (chance * np.where(chance > 0, log, 0.0)).sum(1)


def _mean(values: Values) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
