"""Whose an interaction is, without a column that says so: a few bytes for every 64 of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill.topk_kernels import _compiled as compiled
from recdistill.types import Int, Interactions

STEP = 6  # 2**STEP interactions share a place to search from


class Owners(NamedTuple):
    """Where each user's interactions start, and the owner of every 2**STEP-th one."""

    indptr: Int  # [U+1]
    first: Int  # [n / 2**STEP]

    def of(self, rows: Tensor) -> Tensor:
        """Return the user of each of `rows` [B] of the log, [B]."""
        found = np.empty(len(rows), np.int64)
        find(rows.numpy(), self.indptr, self.first, found)
        return torch.from_numpy(found)


def owners_of(train: Interactions) -> Owners:
    """Return who owns what in `train`."""
    starts = np.arange(0, len(train), 2**STEP)
    return Owners(train.indptr, np.searchsorted(train.indptr, starts, side="right") - 1)


@compiled()
def find(rows: NDArray[Any], indptr: NDArray[Any], first: NDArray[Any], found: NDArray[Any]) -> None:
    """Write into `found` [B] the user of each of `rows` [B]."""
    for i in range(len(rows)):
        user = first[rows[i] >> STEP]
        while indptr[user + 1] <= rows[i]:
            user += 1
        found[i] = user
