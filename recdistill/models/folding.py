"""More ids than rows: who shares a row with whom, where a table of one row an id would be too large."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHARED = 10  # one row of so many is shared by the ids that have none of their own
MIX = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: neighbours, who are often alike, part


def fold_rows(counts: NDArray[np.int64], rows: int) -> Tensor:
    """Return the row of each id, [n] int32, in a table of `rows` < n rows; `counts` [n] says how often an id was seen.

    The ids that were seen most often keep a row each; a tenth of the rows, at least one, is shared by the others, who
    would learn little of themselves. Of ids that were seen as often the first keep theirs. So a log decides, and not
    the order in which ranks meet ids: the rows are the same in every world.
    """
    shared = max(1, rows // SHARED)
    order = np.argsort(-counts, kind="stable")
    found = np.empty(len(counts), np.int32)
    found[order[: rows - shared]] = np.arange(rows - shared)
    rest = np.sort(order[rows - shared :])
    found[rest] = rows - shared + ((rest.astype(np.uint64) * MIX) >> np.uint64(32)) % np.uint64(shared)
    return torch.from_numpy(found)


def representatives(ids: Tensor, rows: int) -> Tensor:
    """Return for each of `rows` rows the first id in it, [rows], -1 for a row that nobody is in."""
    found = torch.full((rows,), -1, dtype=torch.int64)
    return found.index_copy_(0, ids.long().flip(0), torch.arange(len(ids)).flip(0))
