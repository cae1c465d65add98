"""The limits that a way to serve may be held to, by the names that the command line gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from recdistill.errors import ConfigError
from recdistill.serving_plan import Limit
from recdistill.surface_form import Point, Surface

MB = 1e6  # as the report writes bytes
AT_MOST: Mapping[str, Callable[[Point], float | None]] = {
    "--p50-ms": lambda point: point.latency.total.p50_ms,
    "--p95-ms": lambda point: point.latency.total.p95_ms,
    "--p99-ms": lambda point: point.latency.total.p99_ms,
    "--memory-mb": lambda point: point.bytes / MB,
}
QUALITY, OF_TEACHER, RECALL = "--min-quality", "--min-quality-of-teacher", "--min-recall"
NDCG = {"--min-ndcg": QUALITY, "--min-ndcg-of-teacher": OF_TEACHER}  # what they are called where the metric is NDCG
NAMES = (*AT_MOST, *NDCG, QUALITY, OF_TEACHER, RECALL)
SOME = "such as --p95-ms 2 --memory-mb 200 --min-quality-of-teacher 0.95"


def limits(surface: Surface, asked: Mapping[str, float]) -> tuple[Limit, ...]:
    """Return the limits of `asked`, bounds by name, that points of `surface` can be held to.

    Milliseconds are of the whole answer, memory in 10^6 bytes, quality a mean over users, recall a share at the
    surface's k (else the least depth that was measured). Raises ConfigError if there is none, or one means nothing.
    """
    if not asked:
        raise ConfigError("no limit was given, so every way to serve would do", where="usage", fix=f"give one, {SOME}")
    found: list[Limit] = []
    for name, bound in asked.items():
        if not (math.isfinite(bound) and bound > 0):
            raise ConfigError(f"{bound:g} is no limit", where=name, fix="give a number above 0")
        if name in AT_MOST:
            found.append(Limit(name=name, bound=bound, most=True, read=AT_MOST[name]))
        else:
            found.append(Limit(name=name, bound=bound, most=False, read=_least(surface, name, asked)))
    return tuple(found)


def _least(surface: Surface, name: str, asked: Mapping[str, float]) -> Callable[[Point], float | None]:
    """Return what a limit from below reads of a point."""
    meant = NDCG.get(name, name)
    if name in NDCG and surface.metric != "ndcg":
        raise ConfigError(f"the surface was measured by {surface.metric}", where=name, fix=f"use {meant}")
    if name in NDCG and meant in asked:
        raise ConfigError(f"{meant} says the same", where=name, fix="leave one of the two out")
    if meant == RECALL:
        return _recall(surface, asked[name])
    if meant == QUALITY:
        return lambda point: point.quality
    teacher = None if surface.teacher is None else surface.teacher.quality
    if teacher is None or teacher <= 0:
        why = "this run has no teacher that was measured" if teacher is None else "the teacher's quality is 0"
        what = f"{why}, so that there is nothing to take a share of"
        raise ConfigError(what, where=name, fix="use " + next(n for n in (*NDCG, QUALITY) if _same(n, surface)))
    return lambda point: None if point.quality is None else point.quality / teacher


def _recall(surface: Surface, bound: float) -> Callable[[Point], float | None]:
    if bound > 1:
        raise ConfigError(f"{bound:g} is no share", where=RECALL, fix="give a number up to 1, such as 0.95")
    depth = recall_depth(surface)
    if depth is None:
        raise ConfigError("the surface holds no recall", where=RECALL, fix="leave it out, or measure the surface again")
    return lambda point: point.recall.get(depth)


def recall_depth(surface: Surface) -> str | None:
    """Return at which depth a surface's recall is told of: the surface's k, else the least; None without any."""
    depths = sorted({depth for point in surface.points for depth in point.recall}, key=lambda d: (len(d), d))
    return str(surface.k) if str(surface.k) in depths else next(iter(depths), None)


def _same(name: str, surface: Surface) -> bool:
    """Say whether `name` bounds a surface's quality as it is."""
    return name == QUALITY or (NDCG.get(name) == QUALITY and surface.metric == "ndcg")
