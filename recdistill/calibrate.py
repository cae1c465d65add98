"""What a teacher's scores mean, measured on what is held out: a temperature for lists, a logistic line for chances.

A list softmax says with which chance the next thing a user takes is item i. Its temperature is the one that gives the
held-out items the highest likelihood (Guo et al., ICML 2017); differences of scores then mean log-odds within a list.
A logistic line sigmoid(a t + b) says with which chance a user takes item i at all, in a time as long as the one that
was held out (Platt, 1999). It is fitted to every candidate of the users, so its mean chance is the rate observed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recdistill.errors import StageError
from recdistill.heldout import Sheet, rows_at_once
from recdistill.topk import blocks

COLDEST, HOTTEST = 1e-3, 1e3  # the temperatures that are looked at
ROUNDS = 60
SMALLEST = 1e-3  # share of a Newton step that is tried before it is taken for the end


@dataclass(frozen=True, slots=True)
class Line:
    """What a calibrated score is: scale * score + shift."""

    scale: float = 1.0
    shift: float = 0.0


@torch.inference_mode()
def fit_temperature(sheets: Sequence[Sheet]) -> float:
    """Return the temperature of least list NLL, between 0.001 and 1000.

    The NLL is convex in 1/T: Newton steps, and halving wherever one leaves the interval that holds the minimum.
    """
    low, high, beta = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(ROUNDS):
        slope, bend = _list_slopes(sheets, beta)
        low, high = (low, beta) if slope > 0 else (beta, high)
        step = beta - slope / bend if bend > 0 else 0.0
        step = step if low < step < high else math.sqrt(low * high)
        done = abs(step - beta) < 1e-6 * beta
        beta = step
        if done:
            break
    return 1 / beta


def _list_slopes(sheets: Sequence[Sheet], beta: float) -> tuple[float, float]:
    """Return the first and second derivative of the list NLL by beta = 1 / T."""
    slope, bend = 0.0, 0.0
    for scores, held in sheets:
        mine = scores[torch.from_numpy(held.rows), torch.from_numpy(held.items)].double().numpy()
        scored = np.isfinite(mine)
        each = np.bincount(held.rows[scored], held.weight[scored], minlength=len(scores))
        slope -= float(mine[scored] @ held.weight[scored])
        for start, stop in blocks(len(scores), rows_at_once(scores)):
            t = scores[start:stop].double()
            known = torch.isfinite(t)
            p = (beta * t).softmax(1).nan_to_num()
            t = t.masked_fill(~known, 0.0)
            mean = (p * t).sum(1)
            count = torch.from_numpy(each[start:stop])
            slope += float(count @ mean)
            bend += float(count @ ((p * t * t).sum(1) - mean**2))
    return slope, bend


@torch.inference_mode()
def fit_line(sheets: Sequence[Sheet]) -> Line:
    """Return the logistic line of least cross-entropy over all candidates; every pair counts as much.

    Raises StageError if the scores say nothing of what was taken, or the reverse of it.
    """
    count, taken, first, second = 0, 0.0, 0.0, 0.0
    pairs = list(pairs_of(sheets))
    for t, y in pairs:
        count, taken = count + len(t), taken + _sum(y)
        first, second = first + _sum(t), second + _sum(t * t)
    if not taken:
        raise StageError("the teacher scored none of what is held out", where="labels.calibration", fix=USELESS)
    rate, mean = taken / count, first / count
    spread = math.sqrt(max(second / count - mean**2, 0.0)) or 1.0
    at = np.array([0.0, math.log(max(rate, 1e-12) / max(1 - rate, 1e-12))])
    value, gradient, hessian = _cross_entropy(pairs, at, mean, spread)
    for _ in range(ROUNDS):
        step, size = np.linalg.solve(hessian + 1e-9 * np.trace(hessian) * np.eye(2), gradient), 1.0
        then = _cross_entropy(pairs, at - step, mean, spread)
        while then[0] > value and size > SMALLEST:
            size /= 2
            then = _cross_entropy(pairs, at - size * step, mean, spread)
        if value - then[0] <= 1e-9 * value:
            break
        at, (value, gradient, hessian) = at - size * step, then
    if at[0] <= 0:
        what = "the teacher's scores do not rise with what users take"
        raise StageError(what, where="labels.calibration", fix=USELESS)
    scale = float(at[0]) / spread
    return Line(scale, float(at[1]) - scale * mean)


USELESS = "look at the teacher's quality first; a teacher no better than chance cannot be calibrated"


def pairs_of(sheets: Sequence[Sheet]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the scores of a block of candidates and whether each was taken: [c] f32, [c] bool."""
    for scores, held in sheets:
        taken = torch.zeros(scores.shape, dtype=torch.bool)
        taken[torch.from_numpy(held.rows), torch.from_numpy(held.items)] = True
        for start, stop in blocks(len(scores), rows_at_once(scores)):
            known = torch.isfinite(scores[start:stop])
            yield scores[start:stop][known], taken[start:stop][known]


def _cross_entropy(
    pairs: Sequence[tuple[Tensor, Tensor]], at: np.ndarray[Any, Any], mean: float, spread: float
) -> tuple[float, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the summed cross-entropy of sigmoid(a (t - mean) / spread + b), its gradient and Hessian by (a, b)."""
    value, gradient, hessian = 0.0, np.zeros(2), np.zeros((2, 2))
    for t, taken in pairs:
        y = taken.float()
        x = (t - mean) / spread
        z = at[0] * x + at[1]
        p = torch.sigmoid(z)
        value += _sum(torch.nn.functional.softplus(z) - y * z)
        gradient += np.array([_sum((p - y) * x), _sum(p - y)])
        bend = p * (1 - p)
        cross = _sum(bend * x)
        hessian += np.array([[_sum(bend * x * x), cross], [cross, _sum(bend)]])
    return value, gradient, hessian


def _sum(values: Tensor) -> float:
    """Return a sum of many floats, which only doubles can hold."""
    return float(values.sum(dtype=torch.float64))
