"""Counting what rows share, compiled: a count for every other row, of which only the few largest are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recdistill.topk_kernels import _compiled as compiled

Array = NDArray[Any]


@compiled()
def nearest(starts: Array, columns: Array, across_starts: Array, across: Array, others: Array, counts: Array) -> None:
    """Write the rows that share the most columns with each, and how many, equal counts by lower row: both [n,k].

    `columns[starts[i]:starts[i+1]]` are those of row i, `across[across_starts[j]:across_starts[j+1]]` the rows of
    column j. What is not written stays: others -1 and counts 0 say that there is none.
    """
    most = others.shape[1]
    shared = np.zeros(len(starts) - 1, dtype=np.int32)
    touched = np.empty(len(starts) - 1, dtype=np.int64)
    for row in range(len(starts) - 1):
        many = 0
        for at in range(starts[row], starts[row + 1]):
            column = columns[at]
            for place in range(across_starts[column], across_starts[column + 1]):
                other = across[place]
                if shared[other] == 0:
                    touched[many] = other
                    many += 1
                shared[other] += 1
        for at in range(many):
            other = touched[at]
            count = shared[other]
            shared[other] = 0
            place = most
            while place > 0 and other != row:
                before = counts[row, place - 1]
                if before > count or (before == count and others[row, place - 1] < other):
                    break
                place -= 1
                if place + 1 < most:
                    counts[row, place + 1], others[row, place + 1] = before, others[row, place]
            if place < most:
                counts[row, place], others[row, place] = count, other
