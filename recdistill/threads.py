"""Parts of one work at once, on as many threads as torch has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Part = TypeVar("Part")
Done = TypeVar("Done")


def spread(work: Callable[[Part], Done], parts: Sequence[Part]) -> list[Done]:
    """Return what `work` makes of each of `parts`, in their order; each thread of torch's takes the next that is left.

    Within a part a product has one thread: threads that share it would wait for each other at its end. No gradients are
    recorded, whoever asks.
    """
    before = torch.get_num_threads()
    threads = min(before, len(parts))
    quiet = torch.no_grad()(work)
    if threads <= 1:
        return [quiet(part) for part in parts]
    torch.set_num_threads(1)
    try:
        return list(_pool(threads).map(quiet, parts))
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    # OpenMP keeps the number of threads for each thread that asks, so every new one must be told.
    return ThreadPoolExecutor(threads, "spread", initializer=torch.set_num_threads, initargs=(1,))
