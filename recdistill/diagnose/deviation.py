"""Where a student deviates from its teacher: in how sure it is, and along which directions of the teacher's scores.

Students tend to exaggerate their teacher's confidence, and gradient descent its top directions (Nagarajan et al.,
NeurIPS 2023). Both are measured here, whatever their sign.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recdistill.diagnose.chances import Mask, Scores, log_odds
from recdistill.metrics import Values
from recdistill.topk import blocks
from recdistill.types import Int, Vectors

BLOCK = 65_536  # users whose vectors are taken together
ROUNDING = 1e-12  # of the teacher's scores: a residual below it is that of sums in float64


class Slope(NamedTuple):
    """The line of the student's log-odds on the teacher's: a slope above 1 exaggerates its confidence."""

    slope: float
    intercept: float
    unsure: float  # slope among the tenth of users of whom the teacher is the least sure
    users: int  # with finite log-odds of both


class Spectrum(NamedTuple):
    """The teacher's first directions [k], by falling energy; fewer where it has fewer."""

    teacher: Values  # share of the teacher's energy
    residual: Values  # share of the energy of student - teacher; NaN where that is rounding
    gain: Values  # the student's scores on the teacher's along it: 1 as the teacher, above 1 exaggerated
    popularity: Values  # correlation of item loadings with log(1 + count); NaN where all counts are the same


def top_odds(student: Scores, teacher: Scores, mask: Mask | None = None) -> tuple[Values, Values]:
    """Return the log-odds of the teacher's top item under the teacher and under the student, [n] each.

    Scores [n,L] of the same items, of which those in `mask` count. NaN for a row without any; block by block they can
    be put one after another.
    """
    known = np.where(np.isnan(teacher), -np.inf, teacher) if mask is None else np.where(mask, teacher, -np.inf)
    best = known.argmax(1)
    return log_odds(teacher, best, mask), log_odds(student, best, mask)


def exaggeration(teacher: Values, student: Values) -> Slope:
    """Return the least-squares line of what `top_odds` gave, [n] each; NaN where the teacher's do not differ."""
    there = np.isfinite(teacher) & np.isfinite(student)
    x, y = teacher[there], student[there]
    slope = _slope(x, y)
    unsure = np.argsort(x, kind="stable")[: -(-len(x) // 10)]
    intercept = float(y.mean() - slope * x.mean()) if len(x) else math.nan
    return Slope(slope, intercept, _slope(x[unsure], y[unsure]), len(x))


def spectrum_of_scores(student: Scores, teacher: Scores, counts: Int, *, k: int) -> Spectrum:
    """Return the spectrum of scores [n,L] of the same items for every user, whose interactions are `counts` [L].

    Each row is centred, since what all items share orders nothing. ValueError if a score is not finite.
    """
    if not (np.isfinite(student).all() and np.isfinite(teacher).all()):
        raise ValueError("a spectrum needs a score for every pair: give the scores of the same items, unmasked")
    s, t = (np.asarray(x, np.float64) - np.mean(x, axis=1, dtype=np.float64, keepdims=True) for x in (student, teacher))
    _, size, right = np.linalg.svd(t, full_matrices=False)
    right = right[: _rank(size, k)].T
    right *= np.where((t @ right).sum(0) < 0, -1.0, 1.0)  # so that on the whole users are moved towards what it loads
    return _spectrum(s, t, right, right, counts)


def spectrum_of_vectors(student: Vectors, teacher: Vectors, counts: Int, *, k: int) -> Spectrum:
    """Return what `spectrum_of_scores` would of all users and items, whose scores are inner products.

    The rows of both are the same users and items. It takes memory of the vectors and time linear in them: with
    [Us, Ut] = Q R and [Vs, Vt] = P S, both scores are products of Q, a small matrix, and P, so all that is asked is
    known from the small ones.
    """
    users = _triangle((student, teacher))
    both = np.concatenate([_centred(student.items), _centred(teacher.items)], axis=1)
    items = _upper(both)
    width = student.users.shape[1]
    s, t = users[:, :width] @ items[:, :width].T, users[:, width:] @ items[:, width:].T
    left, size, right = np.linalg.svd(t, full_matrices=False)
    rank = _rank(size, k)
    left, right = left[:, :rank], right[:rank].T
    loadings = both[:, width:] @ (users[:, width:].T @ left / size[:rank])
    total = np.asarray(teacher.users).sum(0, dtype=np.float64) @ both[:, width:].T @ loadings
    return _spectrum(s, t, right, loadings * np.where(total < 0, -1.0, 1.0), counts)


def _spectrum(s: Values, t: Values, right: Values, loadings: Values, counts: Int) -> Spectrum:
    """Return the spectrum from scores in any orthonormal basis, of which `right` are the teacher's directions."""
    along_s, along_t = s @ right, t @ right
    energy, total = (along_t**2).sum(0), float((t**2).sum())
    apart, whole = ((along_s - along_t) ** 2).sum(0), float(((s - t) ** 2).sum())
    beyond = whole > ROUNDING**2 * total
    return Spectrum(
        teacher=energy / max(total, 1e-300),
        residual=apart / whole if beyond else np.full(len(energy), np.nan),
        gain=(along_s * along_t).sum(0) / energy,
        popularity=_correlation(loadings, np.log1p(counts.astype(np.float64))),
    )


def _rank(size: Values, k: int) -> int:
    """Return how many of the first `k` singular values, which fall, are more than rounding."""
    return int((size[:k] > 1e-9 * max(size.max(initial=0.0), 1e-300)).sum())


def _triangle(sides: tuple[Vectors, Vectors]) -> Values:
    """Return the triangle R of the QR decomposition of both models' user vectors, side by side, block by block."""
    triangle: Values = np.zeros((0, sum(side.users.shape[1] for side in sides)))
    for start, stop in blocks(len(sides[0].users), BLOCK):
        part = np.concatenate([np.asarray(side.users[start:stop], np.float64) for side in sides], axis=1)
        triangle = _upper(np.concatenate([triangle, part]))
    return triangle


def _upper(matrix: Values) -> Values:
    return np.asarray(np.linalg.qr(matrix, mode="r"))


def _centred(vectors: NDArray[Any]) -> Values:
    """Return vectors less their mean: their products with any user are then centred."""
    exact = np.asarray(vectors, np.float64)
    return exact - exact.mean(0)


def _slope(x: Values, y: Values) -> float:
    x, y = x - x.mean() if len(x) else x, y - y.mean() if len(y) else y
    spread = float(x @ x)
    return float(x @ y) / spread if spread > 0 else math.nan


def _correlation(columns: Values, other: Values) -> Values:
    """Return the correlation of each of `columns` [L,k] with `other` [L], [k]; NaN where one of them is constant."""
    a, b = columns - columns.mean(0), other - other.mean()
    size = np.sqrt((a**2).sum(0) * (b @ b))
    return np.divide(b @ a, size, out=np.full(columns.shape[1], np.nan), where=size > 0)
