"""Which measured way to serve is the cheapest that keeps every limit, and what each limit costs. Pure functions.

Cheapest is what holds the fewest bytes; of equals, the lowest p95; of equals, the highest quality. Quality is compared
by its mean over users, as gates compare it. A value that was not measured keeps no limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from recdistill.surface_form import Point

NEAREST = 3  # misses that are told of


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What one number of a point may be at `most`, or must be at least."""

    name: str  # as the command line has it: --p95-ms
    bound: float
    most: bool
    read: Callable[[Point], float | None]

    def value(self, point: Point) -> float:
        """Return what `point` measured, NaN where it did not."""
        found = self.read(point)
        return math.nan if found is None else found

    def miss(self, point: Point) -> float:
        """Return how far beyond the bound `point` is, as a share of the bound: 0 if it keeps it, inf if unmeasured."""
        value = self.value(point)
        if math.isnan(value):
            return math.inf
        beyond = value - self.bound if self.most else self.bound - value
        return beyond / abs(self.bound) if beyond > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A limit moved to `value` alone, which is as little as it takes, and the point that this admits."""

    limit: Limit
    value: float
    point: Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A point that keeps not every limit, and by how much it misses: (limit, value, share of the bound)."""

    point: Point
    missed: tuple[tuple[Limit, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPlan:
    """What to serve, and what else there is to choose."""

    limits: tuple[Limit, ...]
    picked: Point | None  # None where no point keeps every limit
    best: Point | None = None  # of those that do, the one of the highest quality
    fastest: Point | None = None  # and the one of the lowest p95
    feasible: int = 0
    binding: tuple[Step, ...] = ()  # limits that keep a cheaper point out, each with the next such point
    furthest: tuple[Step, ...] = ()  # those limits dropped altogether, where that admits a still cheaper point
    better: tuple[Step, ...] = ()  # limits that keep a point of higher quality than `best` out
    alone: tuple[Step, ...] = ()  # of a plan without a pick: limits of which one alone, moved so far, gives one
    conflicts: tuple[tuple[Limit, ...], ...] = ()  # smallest sets of limits that no point keeps together
    nearest: tuple[Miss, ...] = ()


def cost(point: Point) -> tuple[float, float, float, str]:
    """Return what orders points from the cheapest: bytes, p95, less quality, and the name so that equals have one."""
    p95, quality = point.latency.total.p95_ms, point.quality
    return (
        float(point.bytes),
        math.inf if p95 is None else p95,
        math.inf if quality is None else -quality,
        point.id,
    )


def speed(point: Point) -> tuple[float, tuple[float, float, float, str]]:
    """Return what orders points from the fastest: p95, and of equals the cost."""
    found = cost(point)
    return found[1], found


def plan(points: Sequence[Point], limits: Sequence[Limit]) -> ServingPlan:
    """Return the cheapest of `points` that keeps all `limits` and what relaxing each one buys, or why there is none."""
    limits = tuple(limits)
    kept = [point for point in points if _keeps(point, limits)]
    if not kept:
        return _nothing(points, limits)
    picked = min(kept, key=cost)
    best = min(kept, key=lambda point: (_loss(point), cost(point)))
    binding: list[Step] = []
    furthest: list[Step] = []
    better: list[Step] = []
    for limit in limits:
        admitted = _admitted(points, limit, limits)
        cheaper = [point for point in admitted if cost(point) < cost(picked)]
        if cheaper:
            step = _next(limit, cheaper)
            binding.append(step)
            last = min(cheaper, key=cost)
            if last.id != step.point.id:
                furthest.append(Step(limit=limit, value=limit.value(last), point=last))
        if more := [point for point in admitted if _loss(point) < _loss(best)]:
            better.append(_next(limit, more))
    return ServingPlan(
        limits=limits,
        picked=picked,
        best=best,
        fastest=min(kept, key=speed),
        feasible=len(kept),
        binding=tuple(binding),
        furthest=tuple(furthest),
        better=tuple(better),
    )


def _nothing(points: Sequence[Point], limits: tuple[Limit, ...]) -> ServingPlan:
    """Return the plan of limits that no point keeps together."""
    alone = [_next(limit, admitted) for limit in limits if (admitted := _admitted(points, limit, limits))]
    conflicts: list[tuple[Limit, ...]] = []
    for size in range(1, len(limits) + 1):
        for some in combinations(limits, size):
            smaller = any(set(c) <= set(some) for c in conflicts)
            if not smaller and not any(_keeps(point, some) for point in points):
                conflicts.append(some)
    order = sorted(points, key=lambda point: (max(limit.miss(point) for limit in limits), cost(point)))
    nearest = [
        Miss(point=p, missed=tuple((c, c.value(p), c.miss(p)) for c in limits if c.miss(p))) for p in order[:NEAREST]
    ]
    return ServingPlan(
        limits=limits, picked=None, alone=tuple(alone), conflicts=tuple(conflicts), nearest=tuple(nearest)
    )


def _keeps(point: Point, limits: Sequence[Limit]) -> bool:
    return not any(limit.miss(point) for limit in limits)


def _admitted(points: Sequence[Point], limit: Limit, limits: Sequence[Limit]) -> list[Point]:
    """Return the measured points that `limit` alone keeps out."""
    others = [other for other in limits if other is not limit]
    return [p for p in points if 0 < limit.miss(p) < math.inf and _keeps(p, others)]


def _next(limit: Limit, admitted: Sequence[Point]) -> Step:
    """Return the least move of `limit` that lets in one of `admitted`, and the cheapest that it lets in."""
    least = min(limit.miss(point) for point in admitted)
    point = min((p for p in admitted if limit.miss(p) == least), key=cost)
    return Step(limit=limit, value=limit.value(point), point=point)


def _loss(point: Point) -> float:
    return math.inf if point.quality is None else -point.quality
