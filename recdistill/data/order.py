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
