"""What a user has, or has in a list, compiled: one look at each drawn item, most of which are neither."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recdistill.topk_kernels import _compiled as compiled

Array = NDArray[Any]

FEW = 4  # items of one row that are looked for one by one, without a filter of what the row has


@compiled()
def among(
    rows: Array, items: Array, lists: Array, keys: Array, starts: Array, ends: Array, offsets: Array, found: Array
) -> None:
    """Write into `found` [m] whether each of `items` [m] is in the list of its row, or one of the row's own.

    `rows` [m] rise; `lists` [R,K]; row r's own items are `keys[starts[r]:ends[r]] - offsets[r]`, and rise. A row that
    is asked for many items first marks what it has in a small table, and only marked ones are looked for.
    """
    depth = lists.shape[1]
    width = 64
    while width < 16 * depth:
        width *= 2
    marks = np.zeros(width, dtype=np.bool_)
    first = 0
    while first < len(rows):
        row, last = rows[first], first + 1
        while last < len(rows) and rows[last] == row:
            last += 1
        start, end, offset, many = starts[row], ends[row], offsets[row], last - first > FEW
        if many:
            marks[:] = False
            for place in range(depth):
                marks[lists[row, place] & (width - 1)] = True
            for place in range(start, end):
                marks[(keys[place] - offset) & (width - 1)] = True
        for at in range(first, last):
            item = items[at]
            if many and not marks[item & (width - 1)]:
                found[at] = False
                continue
            has = False
            for place in range(depth):
                has |= lists[row, place] == item
            low, high = start, end
            while low < high:
                middle = (low + high) // 2
                if keys[middle] < item + offset:
                    low = middle + 1
                else:
                    high = middle
            found[at] = has or (low < end and keys[low] == item + offset)
        first = last
