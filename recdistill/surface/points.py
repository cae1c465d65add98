"""The points of a surface at one width: every index built, tuned, and judged by what users get from it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recdistill.ann import EXHAUSTIVE, INDEX, filled, save_index, set_params
from recdistill.ann_tune import Tuned, least, operating_points
from recdistill.metrics import Values
from recdistill.serve_search import search_without
from recdistill.surface.front import thinned
from recdistill.types import Float, Int

TUNING_QUERIES = 500
SPREAD = 0.1  # of the items' norms over their mean, above which cells of an inverted file miss the long ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """What is searched at one width, and by whom."""

    width: int
    items: Float  # [I,w]
    queries: Float  # [n,w] of the evaluated users, as the bundle works them out
    seen: Sequence[Int]  # of each of them, the item rows that are left out
    folder: Path  # for the index files, with the bundle that holds the exact one


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One way to serve: a width, an index, its runtime parameters; and what it gives."""

    width: int
    factory: str
    params: str
    file: Path
    build_s: float
    recall: dict[int, float]  # by depth
    values: Values  # [n] of the metric, of each evaluated user
    seconds: float  # about how long a query took, many of them together

    @property
    def id(self) -> str:
        """Return what the point is called."""
        return " ".join(word for word in (f"d{self.width}", self.factory, self.params) if word)


Judge = Callable[[Int], Values]
"""Lists [n,k] of the evaluated users -> the metric of each, [n]."""


def points_at(at: Width, factories: Sequence[str], recall_k: Sequence[int], k: int, judge: Judge) -> Iterator[Point]:
    """Yield the points of exact search and of every other factory; writes the files of these to the width's folder.

    Only one index beside the exact one is in memory at a time. Call it with one FAISS thread, or the files differ.
    """
    rows = np.random.Generator(np.random.Philox(17)).permutation(len(at.queries))[:TUNING_QUERIES]
    tuning = np.ascontiguousarray(at.queries[np.sort(rows)])
    flat = filled(EXHAUSTIVE, at.items, 0)
    enough = {depth: least(flat, tuning, depth) for depth in recall_k}
    for n, factory in enumerate([EXHAUSTIVE, *(f for f in factories if f != EXHAUSTIVE)]):
        started = time.perf_counter()
        index = flat if factory == EXHAUSTIVE else filled(factory, at.items, 0)
        build_s = time.perf_counter() - started
        found = thinned(operating_points(index, at.items, tuning, enough))
        file = at.folder / "bundle" / INDEX
        if index is not flat:
            file = at.folder / f"{n}-{re.sub('[^A-Za-z0-9]+', '_', factory).strip('_')}.faiss"
            save_index(index, file)
        for tuned in found:
            yield _judged(at, factory, file, build_s, index, tuned, k, judge)


def _judged(
    at: Width, factory: str, file: Path, build_s: float, index: Any, tuned: Tuned, k: int, judge: Judge
) -> Point:
    """Return the point of one setting of `index`, which it is left with."""
    set_params(index, tuned.params)
    started = time.perf_counter()
    _, lists = search_without(index, at.queries, k, at.seen)
    seconds = (time.perf_counter() - started) / max(len(lists), 1)
    return Point(
        width=at.width,
        factory=factory,
        params=tuned.params,
        file=file,
        build_s=build_s,
        recall=tuned.recall,
        values=judge(lists),
        seconds=seconds,
    )


def norms(items: Float, factories: Sequence[str]) -> dict[str, Any]:
    """Return mean and spread (standard deviation over mean) of the lengths of `items` [I,w], and a `warning`.

    An inverted file assigns by direction and length together, so where lengths differ the best items lie in cells that
    are not probed: its recall falls from .87 to .58 as the spread of clustered vectors goes from 0 to .3.
    """
    length: NDArray[np.float32] = np.linalg.norm(items, axis=1)
    mean = float(length.mean())
    spread = float(length.std()) / mean if mean > 0 else 0.0
    inverted = [factory for factory in factories if "IVF" in factory]
    warning = ""
    if spread > SPREAD and inverted:
        warning = f"the lengths of items differ by {spread:.0%} of their mean, which costs inverted files "
        warning += f"({', '.join(inverted)}) recall: train in cosine space, or serve by a graph or an exact scan"
    return {"mean": mean, "spread": spread, "warning": warning}
