"""What a student is taught at a daily refresh: what it said, moved as the teacher moved.

Delta-KD (Cao et al., 2025) does not copy the teacher but the shift that training again made: the target is proportional
to pi_s (pi_new / pi_old)^alpha, in scores s_deployed + alpha (t_new - t_old). On a quiet day nothing moves.
"""

from __future__ import annotations

import numpy as np

from recdistill.gains.paired import Real, same_rows
from recdistill.types import Float, Int, Vectors


def refreshed(
    deployed: Vectors,
    today: Vectors,
    yesterday: Vectors,
    *,
    users: Int,
    items: Int,
    alpha: float = 1.0,
    level: bool = False,
) -> Vectors:
    """Return vectors [U,D] and [I,D] whose inner product is s_deployed + alpha (t_today - t_yesterday).

    `today` is the teacher's of today, U users and I items. `users` [U] and `items` [I] are the rows of the same ones in
    `yesterday` and `deployed`, the teacher and the student of the day before, -1 for who is new. Whoever is new on
    either side is scored by today's teacher alone, t_today. Within a list that stands beside scores of the student,
    which is right where both have one scale and, for each user, one level; but a softmax teaches no level. With
    `level`, an old user's scores of new items are moved by the mean, over the other items, of what their scores are
    above t_today. Inner products are to be scores: a model of cosines is given with its temperature in its users. D is
    Ds + 3 Dt, or Ds + 2 Dt if alpha is 1.

    ValueError if the rows do not fit each other.
    """
    same_rows(deployed.users, yesterday.users)
    same_rows(deployed.items, yesterday.items)
    same_rows(today.users, users)
    same_rows(today.items, items)
    old = users >= 0
    left = [
        _rows(deployed.users, users),
        -_rows(yesterday.users, users),
        np.where(old[:, None], -today.users, 0),
        today.users,
    ]
    # One block of today's teacher is for everybody; of a pair that has a yesterday, a share is taken back.
    right = [
        _rows(deployed.items, items),
        alpha * _rows(yesterday.items, items),
        np.where((items >= 0)[:, None], (1.0 - alpha) * today.items, 0),
    ]
    if level:
        right = [_levelled(part, items) for part in right]
    if alpha == 1.0:
        del left[2], right[2]
    return Vectors(users=_beside(left), items=_beside([*right, today.items]))


def _levelled(vectors: Float, rows: Int) -> Float:
    """Return `vectors` [I,D] with the mean of those that have a yesterday for all that have none."""
    old = rows >= 0
    mean = vectors[old].mean(0, dtype=np.float64) if old.any() else np.zeros(vectors.shape[1])
    return np.where(old[:, None], vectors, mean)


def _rows(vectors: Float, rows: Int) -> Float:
    """Return vectors [rows], zeros at -1."""
    if not len(vectors):
        return np.zeros((len(rows), vectors.shape[1]), np.float32)
    return np.where((rows >= 0)[:, None], np.asarray(vectors)[np.maximum(rows, 0)], 0).astype(np.float32)


def _beside(parts: list[Float]) -> Float:
    return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)


def overlap(before: Int, after: Int, k: int) -> Real:
    """Return the share of the first `k` that two lists of a user have in common, [n], over the longer of both.

    Lists [n,>=1] hold items of one numbering, each at most once, -1 where there is none. Two empty lists are the same:
    1. ValueError if rows differ in number.
    """
    same_rows(before, after)
    left, right = before[:, :k].astype(np.int64), after[:, :k].astype(np.int64)
    width = max(int(left.max(initial=0)), int(right.max(initial=0))) + 1
    row = np.arange(len(left))[:, None] * width
    common = (np.isin(row + left, (row + right)[right >= 0]) & (left >= 0)).sum(1)
    longer = np.maximum((left >= 0).sum(1), (right >= 0).sum(1))
    return np.where(longer > 0, common / np.maximum(longer, 1), 1.0)


def churn(before: Int, after: Int, k: int) -> Real:
    """Return what a refresh changes of each user's first `k`, [n]: 1 - `overlap`, 0 for two lists of the same items."""
    return 1.0 - overlap(before, after, k)
