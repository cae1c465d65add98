"""The teacher's own items behind a narrow index: a projector to the teacher's vectors, folded into what is searched.

The reused teacher classifier (SimKD: Chen et al., CVPR 2022): a student learns to say the teacher's user vector h
through a projector, P u + c, and is judged by the teacher's item vectors w. As P is linear,
<P u + c, w> = <u, P^T w> + <c, w>: an index as narrow as the student, and no item tower to train. It is off by
|<P u + c - h, w>| <= |P u + c - h| |w|, so a projector that misses nothing gives the teacher's scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recdistill.errors import DataError
from recdistill.gains.paired import BLOCK, Real, moved, paired, same_rows
from recdistill.topk import blocks
from recdistill.types import Float, Vectors

STEP = 4  # an index's rows are as many floats as a multiple of it: 16 bytes
NOTHING = 1e-12  # of the largest eigenvalue, below which a direction holds float32's rounding alone


@dataclass(frozen=True, slots=True)
class Projector:
    """The line from a student's user vectors to the teacher's: P u + c."""

    matrix: Real  # P [Dt,Ds]
    shift: Real | None = None  # c [Dt], None for zeros


def solve(
    students: Float, teachers: Float, *, ridge: float = 0.0, shift: bool = True, items: Float | None = None
) -> Projector:
    """Return the projector of least squares from user vectors [n,Ds] to the teacher's [n,Dt], of the same users.

    It minimises sum_u |P u + c - h|^2 + ridge a |P|^2, c free, where a is the mean eigenvalue of the students' products
    (sums of squares, a dimension): so `ridge` has no unit. With `items` W [I,Dt] errors are those of scores,
    |W (P u + c - h)|^2, and the penalty is times the mean eigenvalue of W^T W. Without a penalty, that weight changes
    nothing that W can tell: what is least in every direction is least however they are weighted. Everything comes from
    products of D x D, summed block by block. Of several solutions it is the shortest. Users without a vector, which
    are zeros, take no part. DataError if nobody is left or a value is not finite, ValueError if rows differ in number.
    """
    mean_u, mean_h = _means(students, teachers)
    if not shift:
        mean_u, mean_h = np.zeros_like(mean_u), np.zeros_like(mean_h)
    gram, cross = np.zeros((len(mean_u), len(mean_u))), np.zeros((len(mean_h), len(mean_u)))
    for u, h in paired(students, teachers):
        gram += (u - mean_u).T @ (u - mean_u)
        cross += (h - mean_h).T @ (u - mean_u)
    spread, axes = np.linalg.eigh(gram)
    weight, turn = np.ones(len(mean_h)), np.eye(len(mean_h))
    if items is not None:
        weight, turn = np.linalg.eigh(_products(items, len(mean_h)))
    # Where both products are diagonal, the normal equations G P A + r P = G B fall apart into one number each.
    there = np.outer(weight > NOTHING * weight.max(), spread > NOTHING * spread.max())
    under = np.outer(weight, spread) + ridge * weight.mean() * spread.mean()
    over = weight[:, None] * (turn.T @ cross @ axes)
    matrix = turn @ np.divide(over, under, out=np.zeros_like(over), where=there) @ axes.T
    return Projector(matrix, mean_h - matrix @ mean_u if shift else None)


def _means(students: Float, teachers: Float) -> tuple[Real, Real]:
    count, left, right = 0, np.zeros(students.shape[1]), np.zeros(teachers.shape[1])
    for u, h in paired(students, teachers):
        count, left, right = count + len(u), left + u.sum(0), right + h.sum(0)
    if not count:
        fix = "take the vectors of one set of users, in one order"
        raise DataError("no user has both a student's and a teacher's vector", where="fold", fix=fix)
    return left / count, right / count


def _products(items: Float, width: int) -> Real:
    """Return W^T W, [Dt,Dt]."""
    if items.shape[1] != width:
        raise ValueError(f"items of {items.shape[1]} dimensions, users of {width}")
    total = np.zeros((width, width))
    for w, _ in paired(items, items):
        total += w.T @ w
    return total


def misses(students: Float, teachers: Float, projector: Projector) -> Real:
    """Return |P u + c - h| of each user, [n]: times |w|, no score of an item w is further from the teacher's."""
    same_rows(students, teachers)
    found = np.empty(len(students))
    shift = 0.0 if projector.shift is None else projector.shift
    for start, stop in blocks(len(students), BLOCK):
        said = np.asarray(students[start:stop], np.float64) @ projector.matrix.T + shift
        found[start:stop] = np.linalg.norm(said - teachers[start:stop], axis=1)
    return found


def fold(users: Float, items: Float, projector: Projector, *, bias: Float | None = None) -> Vectors:
    """Return vectors of the student's users [U,Ds] and the teacher's items [I,Dt] that score <P u + c, w> + bias.

    The items are W P, [I,Ds]. A shift, or the teacher's `bias` [I] of items, is one more dimension, W c + bias, in
    which users have 1; then zeros up to a multiple of four. Scores are those of a teacher whose score is an inner
    product. A teacher of cosines needs unit item vectors: lists are then right as they are, since the length of
    P u + c, by which a cosine divides, is one number a user and changes no order within a user's list; scores are
    the teacher's only after users are divided by it (and by the temperature). ValueError if `bias` is not one an item.
    """
    rows = moved(items, projector.matrix)
    if projector.shift is None and bias is None:
        return Vectors(users=np.asarray(users, np.float32), items=rows)
    level = np.zeros(len(items)) if bias is None else np.asarray(bias, np.float64)
    if level.shape != (len(items),):
        raise ValueError(f"biases of shape {level.shape} for {len(items)} items")
    if projector.shift is not None:
        level = level + moved(items, projector.shift[:, None])[:, 0]
    return Vectors(users=_widened(users, 1.0), items=_widened(rows, level))


def _widened(rows: Float, value: float | Real) -> Float:
    """Return rows [n,D] with `value` as one more column, and zeros up to a multiple of STEP."""
    n, dim = rows.shape
    found = np.zeros((n, -(-(dim + 1) // STEP) * STEP), np.float32)
    found[:, :dim], found[:, dim] = rows, value
    return found
