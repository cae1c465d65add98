"""Which part each row of a log is in, a block of whole users at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from recdistill.data.order import mixed
from recdistill.types import Int

Codes = NDArray[np.int8]  # [rows]: 0 train, 1 valid, 2 test
TRAIN, VALID, TEST = 0, 1, 2
BINS = 22  # bits of a value that one reading tells: 32 MiB of counts


def held_out(counts: Int, valid_fraction: float, test_fraction: float) -> tuple[Int, Int]:
    """Return how many of each user's `counts` interactions are valid and test.

    The fraction rounded down, but at least one each; users with fewer than three stay in train whole, and every
    other keeps at least one there.
    """
    enough = counts >= 3
    # The small number keeps 0.29 * 100 from becoming 28.
    valid, test = (np.floor(counts * f + 1e-9).astype(np.int64) for f in (valid_fraction, test_fraction))
    valid = np.minimum(np.maximum(valid, 1), counts - 2)
    test = np.minimum(np.maximum(test, 1), counts - 1 - valid)
    return np.where(enough, valid, 0), np.where(enough, test, 0)


def last(user: Int, order: Int, valid: Int, test: Int) -> Codes:
    """Give the last `test[u]` rows of each user in `order` (by user) to test and those before to valid."""
    ends = np.cumsum(np.bincount(user, minlength=len(test)))
    after = np.empty(len(user), np.int64)
    after[order] = ends[user[order]] - 1 - np.arange(len(user))
    return np.where(after < test[user], TEST, np.where(after < (test + valid)[user], VALID, TRAIN)).astype(np.int8)


def by_moments(time: Int, valid_at: int, test_at: int) -> Codes:
    """Cut at two moments; rows of the very moment of a cut fall after it."""
    return np.where(time >= test_at, TEST, np.where(time >= valid_at, VALID, TRAIN)).astype(np.int8)


def moments(rows: int, valid_fraction: float, test_fraction: float, times: Callable[[], Iterable[Int]]) -> list[int]:
    """Return the first moment of valid and that of test of a log of `rows` rows, whose `times` come in blocks."""
    cuts = (1 - test_fraction - valid_fraction, 1 - test_fraction)
    return order_statistics(times, [min(rows - 1, int(np.floor(rows * cut + 1e-9))) for cut in cuts])


def order_statistics(blocks: Callable[[], Iterable[Int]], ranks: Sequence[int]) -> list[int]:
    """Return the values at places `ranks`, from 0, of all `blocks()` sorted.

    They are read three times where values spread over fewer than 2^44, and never held: one reading finds the ends,
    each other the next bits of the values at `ranks`, by counting the values that share the bits before.
    """
    ends = [(int(block.min()), int(block.max())) for block in blocks() if len(block)]
    low, high = min(first for first, _ in ends), max(end for _, end in ends)
    shift = max(0, (high - low).bit_length() - BINS)
    found, left = [low] * len(ranks), list(ranks)
    width = (high - low) >> shift
    while True:
        counts = {start: np.zeros(width + 1, np.int64) for start in found}
        for block in blocks():
            for start, count in counts.items():
                place = (block - start) >> shift
                inside = place[(place >= 0) & (place <= width)]
                count += np.bincount(inside, minlength=width + 1)
        for at, start in enumerate(found):
            up_to = np.cumsum(counts[start])
            place = int(np.searchsorted(up_to, left[at], side="right"))
            left[at] -= int(up_to[place - 1]) if place else 0
            found[at] = start + (place << shift)
        if shift == 0:
            return found
        width = (1 << min(shift, BINS)) - 1
        shift = max(0, shift - BINS)


def chronological(user: Int, item: Int, time: Int) -> Int:
    """Return the order of rows by user and time, which they already have, ties by a hash of the pair."""
    tied = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    order, among = np.arange(len(user)), np.zeros(len(user), bool)
    among[1:] |= tied
    among[:-1] |= tied
    rows = np.flatnonzero(among)
    order[rows] = rows[np.lexsort((mixed(user[rows], item[rows]), time[rows], user[rows]))]
    return order
