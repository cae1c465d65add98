"""Which ways to serve nothing beats, and which settings of one index are worth measuring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recdistill.ann_tune import Tuned

MOST = 6  # settings of one index
LEAST = 0.7  # recall below which a setting is measured only if the index has none above


def unbeaten(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows of `costs` [n,m] no other is at most equal to in every column and below in one: [n]."""
    at_most = (costs[:, None] <= costs[None]).all(2)
    below = (costs[:, None] < costs[None]).any(2)
    return np.logical_not(np.any(at_most & below, axis=0))


def thinned(points: Sequence[Tuned], most: int = MOST, least: float = LEAST) -> list[Tuned]:
    """Return at most `most` of the settings `points`, by rising work: both ends, and between them evenly by log work.

    Those whose recall is below `least` are left out, unless all are: then the one of best recall stands alone.
    """
    kept = [point for point in points if min(point.recall.values()) >= least] or list(points[-1:])
    if len(kept) <= most:
        return kept
    place = np.log([max(point.work, 1.0) for point in kept])
    wanted = np.linspace(place[0], place[-1], most)
    return [kept[i] for i in sorted({int(np.abs(place - at).argmin()) for at in wanted})]
