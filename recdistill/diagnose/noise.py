"""How much gradient noise a teacher can take away: distillation as a control variate.

At temperature 1 the gradient of a row's logits is (q - y) - lam (p - y), whatever the student is: the second part is
noise that the teacher knows. Through the student's last layer, whose inputs are item vectors, a user's gradient is
a - lam b with a = V'(q - y), b = V'(p - y), and its second moment E|a - lam b|^2 is least at lam* = E<a,b> / E|b|^2,
where it is 1 - rho^2 of what it is without the teacher (Safaryan, Peste and Alistarh, NeurIPS 2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recdistill.diagnose.chances import Mask, Scores, log_softmax
from recdistill.metrics import Values


class Moments(NamedTuple):
    """Sums over rows; of several batches they add up."""

    cross: float  # sum of <a,b>
    teacher: float  # sum of |b|^2
    student: float  # sum of |a|^2
    rows: int


class Noise(NamedTuple):
    """What the moments say; NaN where there is nothing to divide by."""

    rho2: float  # share of the noise that the best weight takes away
    best: float  # that weight, lam*
    ratio: float  # noise at the weight asked about, over that without a teacher
    rows: int


def gradients(
    student: Scores, teacher: Scores, taken: Mask, vectors: NDArray[Any], mask: Mask | None = None
) -> tuple[Values, Values]:
    """Return a and b, [B,D] each, of rows that have something taken; others give zeros.

    Scores [B,L], what was `taken` [B,L] and `vectors` of the items, [B,L,D] or [L,D] shared by all rows; what is not in
    `mask` [B,L] is no item. A row's target y is spread evenly over what was taken.
    """
    taken = taken if mask is None else taken & mask
    count = taken.sum(1, keepdims=True)
    target = taken / np.maximum(count, 1)
    exact = np.asarray(vectors, np.float64)
    found = []
    for scores in (student, teacher):
        gap = np.where(count > 0, np.exp(log_softmax(scores, mask)) - target, 0.0)
        found.append(gap @ exact if exact.ndim == 2 else np.einsum("bl,bld->bd", gap, exact))
    return found[0], found[1]


def moments(student: Scores, teacher: Scores, taken: Mask, vectors: NDArray[Any], mask: Mask | None = None) -> Moments:
    """Return the moments of a batch; takes what `gradients` takes."""
    a, b = gradients(student, teacher, taken, vectors, mask)
    rows = int((taken if mask is None else taken & mask).any(1).sum())
    return Moments(float((a * b).sum()), float((b * b).sum()), float((a * a).sum()), rows)


def together(batches: Iterable[Moments]) -> Moments:
    """Return the moments of all `batches`, at least one, as of one."""
    cross, teacher, student, rows = zip(*batches, strict=True)
    return Moments(sum(cross), sum(teacher), sum(student), sum(rows))


def noise(of: Moments, weight: float) -> Noise:
    """Return rho^2, lam* and the noise ratio at `weight`: 1 - 2 weight E<a,b>/E|a|^2 + weight^2 E|b|^2/E|a|^2."""
    best = of.cross / of.teacher if of.teacher else math.nan
    if not of.student:
        return Noise(math.nan, best, math.nan, of.rows)
    rho2 = of.cross**2 / (of.student * of.teacher) if of.teacher else math.nan
    ratio = 1 - 2 * weight * of.cross / of.student + weight**2 * of.teacher / of.student
    return Noise(rho2, best, ratio, of.rows)
