"""Where the names of dots go, so that none lies on another one, on a dot, or outside of the plane."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

WIDTH = 0.56  # of a letter, as a share of the font's size
DOT = 4.0  # half of a dot, and what is kept free around it


class Place(NamedTuple):
    """Where a name stands: how far from its dot, and which of its ends is nearer; units are those of the font."""

    x: float
    y: float
    end: str  # left or right: that end of the name is at the dot


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float


PLACES = tuple(Place(x, y, end) for y in (3, -9, 10, -16, 17, -23) for x, end in ((6, "left"), (-6, "right")))


def names(dots: Sequence[tuple[str, float, float]], *, width: float, height: float, font: float) -> list[Place]:
    """Return where the name of each of `dots` (name, x, y) goes, x and y as shares of a plane `width` x `height`.

    The first place of each, in turn, at which it covers the least: the names before it, dots, and what is outside.
    """
    middles = [(x * width, y * height) for _, x, y in dots]
    taken = [_Box(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in middles]
    outside = _Box(0, 0, width, height)
    found = list[Place]()
    for (name, _, _), (x, y) in zip(dots, middles, strict=True):
        size = WIDTH * font * len(name)
        boxes = list(_boxes(x, y, size, font))
        costs = [sum(_common(box, other) for other in taken) + _beyond(box, outside) for box in boxes]
        best = costs.index(min(costs))
        found.append(PLACES[best])
        taken.append(boxes[best])
    return found


def _boxes(x: float, y: float, size: float, font: float) -> Iterator[_Box]:
    for place in PLACES:
        left = x + place.x - (size if place.end == "right" else 0)
        yield _Box(left, y + place.y - 0.2 * font, left + size, y + place.y + 0.9 * font)


def _common(one: _Box, other: _Box) -> float:
    across = min(one.right, other.right) - max(one.left, other.left)
    up = min(one.top, other.top) - max(one.bottom, other.bottom)
    return across * up if across > 0 and up > 0 else 0.0


def _beyond(box: _Box, plane: _Box) -> float:
    area = (box.right - box.left) * (box.top - box.bottom)
    return 2 * (area - _common(box, plane))
