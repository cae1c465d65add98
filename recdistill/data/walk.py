"""The order in which an epoch goes through its rows: a permutation, kept if it is small and computed if it is not.

A kept one takes 8 bytes a row, and several are alive at once. A computed one takes none: a row's place is enciphered by
a few Feistel rounds over the next power of four, again and again until it falls among the rows (Black & Rogaway,
Ciphers with Arbitrary Finite Domains, CT-RSA 2002).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from recdistill.topk_kernels import _compiled as compiled

KEPT_ROWS = 2**24  # 128 MB
ROUNDS = 6


def walk(seed: int, kept_rows: int = KEPT_ROWS) -> Callable[[int, int, int, int], Tensor]:
    """Return the function (kind, step, rows, total) -> which of `total` a step takes, [rows].

    It walks a fresh permutation each epoch; a batch larger than the data goes round it again.
    """

    @lru_cache(maxsize=6)
    def order(kind: int, epoch: int, total: int) -> Tensor:
        return torch.randperm(total, generator=generator_of(seed, kind, epoch))

    def take(kind: int, step: int, rows: int, total: int) -> Tensor:
        each = max(1, total // rows)
        at = ((step % each) * rows + torch.arange(rows)) % total
        if total <= kept_rows:
            return order(kind, step // each, total)[at]
        keys = np.random.SeedSequence([seed % 2**63, kind, step // each]).generate_state(ROUNDS, np.uint64)
        places = at.numpy()
        permute(places, total, keys)
        return torch.from_numpy(places)

    return take


def generator_of(seed: int, kind: int, step: int) -> Generator:
    """Return the source of what is drawn of one `kind` at one `step`."""
    mixed = np.random.SeedSequence([seed % 2**63, kind, step]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(mixed) % 2**63)


@compiled()
def permute(places: NDArray[Any], total: int, keys: NDArray[Any]) -> None:
    """Put in the stead of each of `places` [B], all below `total`, where a permutation that `keys` choose sends it."""
    half = 1
    while 4**half < total:
        half += 1
    bits, low = np.uint64(half), np.uint64(2**half - 1)
    for i in range(len(places)):
        x = np.uint64(places[i])
        while True:
            left, right = x >> bits, x & low
            for key in keys:
                mixed = (right + key) * np.uint64(0x9E3779B97F4A7C15)
                mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
                left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(29))) & low)
            x = (left << bits) | right
            if x < np.uint64(total):
                break
        places[i] = np.int64(x)
