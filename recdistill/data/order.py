"""An order of what happened at one moment: the same everywhere, and of no meaning."""

from __future__ import annotations

import numpy as np

from recdistill.types import Int


def mixed(user: Int, item: Int) -> Int:
    """Return a hash of each (user, item), [n], that breaks ties in time.

    To break them by id would leak the order of ids: a model would learn that the next item has the larger one.
    """
    x = user.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + item.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x ^ (x >> np.uint64(31))).view(np.int64)


def stable_order(key: Int) -> Int:
    """Return the order of `key` [n], not negative, ties by place.

    Where there is room the place is kept in the low bits of the key: numbers alone sort twice as fast as places do.
    """
    bits = max(1, len(key) - 1).bit_length()
    if int(key.max(initial=0)) >> (63 - bits):
        return np.argsort(key, kind="stable")
    packed = np.sort((key << bits) | np.arange(len(key)))
    return packed & ((1 << bits) - 1)
