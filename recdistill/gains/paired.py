"""Two tables of the same rows, block by block in float64, and a table moved by a matrix: what the gains share."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
from numpy.typing import NDArray

from recdistill.errors import DataError
from recdistill.topk import blocks
from recdistill.types import Float, Vectors

Real = NDArray[np.float64]

BLOCK = 65_536  # rows whose products are summed at once in float64


def paired(left: Float, right: Float) -> Iterator[tuple[Real, Real]]:
    """Yield rows [m,Dl] and [m,Dr] of both tables that both know: a row of zeros is of somebody without a vector.

    ValueError if they are not as long, DataError at a value that is not finite.
    """
    same_rows(left, right)
    for start, stop in blocks(len(left), BLOCK):
        one, other = np.asarray(left[start:stop], np.float64), np.asarray(right[start:stop], np.float64)
        bad = np.flatnonzero(~(np.isfinite(one).all(1) & np.isfinite(other).all(1)))
        if len(bad):
            what, fix = "vectors that are not finite", "train again with a smaller learning rate, or mend the vectors"
            raise DataError(what, where=f"row {start + bad[0]}", fix=fix)
        known = one.any(1) & other.any(1)
        yield one[known], other[known]


def same_rows(left: Sized, right: Sized) -> None:
    """Check that two tables are of the same rows; ValueError if they cannot be."""
    if len(left) != len(right):
        raise ValueError(f"one table has {len(left)} rows, the other {len(right)}")


def moved(vectors: Float, matrix: Real) -> Float:
    """Return vectors [n,D] times matrix [D,d], float32 [n,d], multiplied in float64."""
    found = np.empty((len(vectors), matrix.shape[1]), np.float32)
    for start, stop in blocks(len(vectors), BLOCK):
        found[start:stop] = np.asarray(vectors[start:stop], np.float64) @ matrix
    return found


def beside(*parts: Vectors) -> Vectors:
    """Return vectors whose inner product is the sum of those of all parts, which are of the same users and items.

    The space is that of a dot product, whatever that of the parts. ValueError if the rows cannot be the same.
    """
    for part in parts[1:]:
        same_rows(parts[0].users, part.users)
        same_rows(parts[0].items, part.items)
    sides = [[np.asarray(getattr(part, side), np.float32) for part in parts] for side in ("users", "items")]
    return Vectors(users=np.concatenate(sides[0], axis=1), items=np.concatenate(sides[1], axis=1))
