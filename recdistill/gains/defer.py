"""Whom to ask the teacher about, where it may be asked for a share of the users only.

A student that may ask its teacher while it serves, under a budget (Liu et al., 2025), is a gate: a user's list is
re-ranked by the teacher iff the predicted advantage A = metric(re-ranked) - metric(student) is above a threshold, the
(1 - rho) quantile, the best there is for a budget of rho. The prediction reads only what the student's list tells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recdistill.gains.paired import Real
from recdistill.metrics import METRICS, hits, relevant
from recdistill.serve_gate import FEATURES, Gate, list_features
from recdistill.types import Float, Int, Interactions

__all__ = ["FEATURES", "Curve", "Gate", "advantage", "asked", "fit_gate", "judge", "list_features"]
__all__ += ["reranked", "threshold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What asking for some users gains, a mean over all of them, budget by budget: [m] each."""

    budget: Real
    rate: Real  # the share that the gate asks for, never above the budget
    gain: Real  # by the gate
    random: Real  # by chance, in expectation: budget times the gain of asking for everybody
    entropy: Real  # by the entropy of the list alone
    oracle: Real  # by whoever knows the advantage, who asks for nobody that loses by it


def reranked(items: Int, teacher: Float) -> Int:
    """Return lists [n,K] in order of the teacher's scores [n,K] of them; equals stay as they were, -1 last."""
    order = np.argsort(np.where(items >= 0, -np.asarray(teacher, np.float64), np.inf), axis=1, kind="stable")
    return np.take_along_axis(items, order, axis=1)


def advantage(items: Int, teacher: Float, truth: Interactions, users: Int, *, k: int, metric: str = "ndcg") -> Real:
    """Return metric(re-ranked) - metric(student) within the first `k`, [n], of lists [n,K >= k] of `users` [n].

    `teacher` [n,K] scores the items of the lists; `metric` is one of METRICS. ValueError for a user without any truth,
    whose metric is not defined.
    """
    count = relevant(truth, users)
    if not count.all():
        raise ValueError(f"user {users[int(np.argmin(count))]} has no truth to be judged by")
    before, after = (
        METRICS[metric](hits(lists, truth, users), count, k) for lists in (items, reranked(items, teacher))
    )
    return np.asarray(after - before, np.float64)


def fit_gate(features: Real, advantages: Real, *, ridge: float = 1e-3) -> Gate:
    """Return the ridge regression of `advantages` [n] on `features` [n,F], in closed form.

    Features are standardised first and the penalty is ridge times n, so that it means the same for any unit and number
    of users; the mean is not shrunk. A feature that does not vary has no weight. ValueError without any user.
    """
    if not len(features):
        raise ValueError("a gate needs users to be fitted to")
    mean, spread = features.mean(0), features.std(0)
    varies = spread > 1e-12 * np.maximum(np.abs(mean), 1.0)
    spread = np.where(varies, spread, 1.0)
    x = np.where(varies, (features - mean) / spread, 0.0)
    shift = float(advantages.mean())
    gram = x.T @ x / len(x) + ridge * np.eye(x.shape[1])
    # Where features say the same and nothing is shrunk, the shortest of the solutions.
    weights = np.linalg.lstsq(gram, x.T @ (advantages - shift) / len(x), rcond=1e-12)[0]
    return Gate(mean, spread, np.asarray(weights, np.float64), shift)


def threshold(predicted: Real, budget: float) -> float:
    """Return the least eta of predictions [n] such that no more than the share `budget` in [0, 1] is above it.

    It is the (1 - budget) quantile; -inf, all are above, for a budget of 1. Equal predictions are asked for together or
    not at all. ValueError for a budget outside [0, 1].
    """
    room = _room(len(predicted), budget)
    if room >= len(predicted):
        return -math.inf
    return float(np.partition(predicted, len(predicted) - room - 1)[len(predicted) - room - 1])


def _room(n: int, budget: float) -> int:
    """Return how many of `n` users at most can be asked for: the largest m with m / n <= budget."""
    if not 0 <= budget <= 1:
        raise ValueError(f"a budget of {budget} is no share")
    room = math.floor(budget * n)  # which rounding may leave one off on either side
    return room + 1 if room < n and (room + 1) / n <= budget else room - (room > 0 and room / n > budget)


def judge(
    features: Real,
    advantages: Real,
    fitted: NDArray[np.bool_],
    *,
    budgets: Sequence[float] = tuple(i / 10 for i in range(11)),
    ridge: float = 1e-3,
) -> Curve:
    """Return the curve over users that are not `fitted` [n], by the gate that is fitted to those who are.

    features [n,F], the entropy first; advantages [n]. Thresholds are quantiles of the judged users' own predictions,
    which need no truth. A budget of 0 is the student alone, of 1 the teacher re-ranking everybody's list; the oracle
    never asks where it loses, so it may stand above both. ValueError if either part of the users is empty.
    """
    gate = fit_gate(features[fitted], advantages[fitted], ridge=ridge)
    features, gains = features[~fitted], advantages[~fitted]
    if not len(gains):
        raise ValueError("a gate needs users to be judged by")
    best = np.concatenate([[0.0], np.cumsum(np.sort(np.maximum(gains, 0.0))[::-1])]) / len(gains)
    rates, by_gate = asked(gate(features), gains, budgets)
    shares = np.asarray(budgets, np.float64)
    return Curve(
        budget=shares,
        rate=rates,
        gain=by_gate,
        random=shares * gains.mean(),
        entropy=asked(features[:, 0], gains, budgets)[1],
        oracle=best[[_room(len(gains), budget) for budget in budgets]],
    )


def asked(signal: Real, gains: Real, budgets: Sequence[float]) -> tuple[Real, Real]:
    """Return (the share asked for, the mean gain) where users whose `signal` [n] is above its threshold are asked for.

    gains [n] are their advantages; one value of each a budget.
    """
    above = [signal > threshold(signal, budget) for budget in budgets]
    return np.array([each.mean() for each in above]), np.array([gains[each].sum() / len(gains) for each in above])
