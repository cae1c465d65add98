"""How teachers speak as one, by the chances they gave what is held out: which of them, with what weight, for whom.

`chances` [M,n] are log p_m(i|u), what member m said of each held-out interaction, and `weight` [n] what that counts
for; the weights sum to 1. A mixture says p = sum_m w_m p_m, which in log-probabilities is a logsumexp: averaging scores
instead would let the loudest member decide. Teachers are judged by the mean of -log p (list NLL): the error of a
student taught by probabilities grows with theirs, not with the order that they give (Menon et al., ICML 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recdistill.types import Int

Real = NDArray[np.float64]

STEPS = 2000
GAIN = 1e-9  # of the NLL in one EM step, below which it ends


def nll(chances: Real, weight: Real) -> float:
    """Return the mean of -log p: chances [n], weight [n]."""
    return float(-(chances * weight).sum())


def mixed(chances: Real, share: Real) -> Real:
    """Return the log-chances of the mixture with `share` [M] of each member: [n]."""
    with np.errstate(divide="ignore"):
        return np.logaddexp.reduce(chances + np.log(share)[:, None], axis=0)


def forward(chances: Real, weight: Real, most: int) -> list[int]:
    """Return which members to mix in equal shares: the best first, then whoever lowers the NLL most, `most` at most."""
    chosen: list[int] = []
    sofar, best = np.full(chances.shape[1], -np.inf), np.inf
    while len(chosen) < min(most, len(chances)):
        left = [m for m in range(len(chances)) if m not in chosen]
        sums = {m: np.logaddexp(sofar, chances[m]) for m in left}
        values = {m: nll(sums[m] - np.log(len(chosen) + 1), weight) for m in left}
        m = min(left, key=lambda one: values[one])
        if values[m] >= best:
            break
        chosen, sofar, best = [*chosen, m], sums[m], values[m]
    return chosen


def shares(chances: Real, weight: Real) -> Real:
    """Return the shares [M] of members that minimise the mixture's NLL, by expectation maximisation.

    The NLL is convex in the shares, and no step raises it, so it ends at the least there is.
    """
    share = np.full(len(chances), 1 / len(chances))
    last = nll(mixed(chances, share), weight)
    for _ in range(STEPS):
        with np.errstate(divide="ignore"):
            joint = chances + np.log(share)[:, None]
        share = (np.exp(joint - np.logaddexp.reduce(joint, axis=0)) * weight).sum(1)
        share = share / share.sum()
        value = nll(mixed(chances, share), weight)
        if last - value < GAIN:
            break
        last = value
    return share


def routes(chances: Real, weight: Real, segment: Int, segments: int) -> list[int]:
    """Return for each segment the member of least NLL on it; one where nothing is held out has the best of all.

    segment [n] is that of each held-out interaction's user.
    """
    overall = int(np.argmin([nll(one, weight) for one in chances]))
    found = []
    for s in range(segments):
        at = segment == s
        found.append(int(np.argmin([nll(one[at], weight[at]) for one in chances])) if at.any() else overall)
    return found


def segments_of(count: Int, edges: Sequence[float]) -> Int:
    """Return the segment of users who did `count` [U] interactions: how many of the rising `edges` lie below."""
    return np.searchsorted(np.asarray(edges, np.float64), count, side="left").astype(np.int64)


def edges_of(count: Int, segments: int) -> list[float]:
    """Return the edges that cut users into `segments` groups as equal in size as ties allow; fewer if they must."""
    inner = np.quantile(count, np.arange(1, segments) / segments, method="lower") if len(count) else np.zeros(0)
    return sorted({float(edge) for edge in inner if edge < count.max()})
