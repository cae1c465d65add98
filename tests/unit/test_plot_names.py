"""Names of dots are put where they can be read."""

from __future__ import annotations

from itertools import combinations

import pytest

from recdistill.plot_names import WIDTH, names

PLANE = {"width": 280.0, "height": 150.0, "font": 10.0}


def boxes(dots):
    for (name, x, y), at in zip(dots, names(dots, **PLANE), strict=True):
        size = WIDTH * 10 * len(name)
        left = x * 280 + at.x - (size if at.end == "right" else 0)
        yield left, y * 150 + at.y - 2, left + size, y * 150 + at.y + 9


def apart(one, other) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


CROWDS = {
    "a row": [("taught at 2", 0.1, 0.5), ("student", 0.25, 0.51), ("taught at 0.5", 0.4, 0.5)],
    "a heap": [("teacher", 0.5, 0.5), ("scratch", 0.51, 0.52), ("student", 0.49, 0.48), ("student@index", 0.5, 0.53)],
    "corners": [("teacher", 0.98, 0.98), ("scratch", 0.02, 0.02), ("student", 0.98, 0.02), ("other", 0.02, 0.98)],
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_no_name_lies_on_another_or_leaves_the_plane(crowd: str) -> None:
    found = list(boxes(CROWDS[crowd]))
    assert all(apart(a, b) for a, b in combinations(found, 2))
    assert all(left >= 0 and bottom >= -2 and right <= 280 and top <= 150 for left, bottom, right, top in found)


def test_a_name_that_is_alone_stands_to_the_right() -> None:
    (at,) = names([("student", 0.3, 0.5)], **PLANE)
    assert (at.x > 0, at.end) == (True, "left")
