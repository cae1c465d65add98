"""Today's vectors turned to yesterday's, so that what was cached yesterday can still be compared with them.

Inner products say nothing of the axes: training again gives the same model in other ones. Channels must be matched
before vectors are compared (Han et al., 2021); for inner products the matchings that change no score are the orthogonal
ones, and the nearest of them is a closed form (Schoenemann, 1966): R = U V^T of the SVD of A^T B is least in |A R - B|.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recdistill.errors import DataError
from recdistill.gains.paired import Real, moved, paired, same_rows
from recdistill.gains.refresh import overlap
from recdistill.topk import top_items
from recdistill.types import Float, Int, Interactions, Vectors

STILL = 1e-12  # of the largest singular value: how hard directions that no row has are held where they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuity:
    """How far yesterday's cached vectors can be used beside today's, as they are and after a turn."""

    cosine: tuple[float, float]  # mean over users and items present on both days, before and after
    overlap: tuple[float, float]  # mean over users present on both days, before and after
    k: int


def rotation(source: Float, target: Float, *, reflect: bool = True) -> Real:
    """Return R [Ds,Dt] with orthonormal columns that brings `source` [n,Ds] nearest to `target` [n,Dt] in squares.

    Rows are of whoever is in both, users, items, or both one after the other; rows of zeros take no part. Where Ds is
    more than Dt, source is first brought to the Dt axes in which it is longest, not centred, since a shift would change
    scores; then R is no more the least of all, and scores lose what stands in the other axes. Where Ds is
    Dt, `reflect` allows mirror images, of determinant -1; scores do not see the difference. A direction that no row
    has, such as a column of zeros, stays as near as it can to where it was.

    DataError with fewer than Dt rows: then R is not unique, and turns whoever is not among them by chance. ValueError
    if rows differ in number or Ds < Dt.
    """
    (ds, dt), gram = (source.shape[1], target.shape[1]), np.zeros((source.shape[1], source.shape[1]))
    if ds < dt:
        raise ValueError(f"{ds} dimensions cannot be turned to {dt}")
    cross, rows = np.zeros((ds, dt)), 0
    for a, b in paired(source, target):
        cross, rows = cross + a.T @ b, rows + len(a)
        gram += a.T @ a if ds > dt else 0.0
    if rows < dt:
        what = f"{rows} rows are in both, and a rotation of {dt} dimensions needs as many"
        fix = "turn by users and items together, or by more days that share rows"
        raise DataError(what, where="rotation", fix=fix)
    axes = np.eye(ds) if ds == dt else np.linalg.eigh(gram)[1][:, : -dt - 1 : -1]
    cross = axes.T @ cross
    held = cross + STILL * np.linalg.norm(cross, 2) * np.eye(dt)
    u, _, v = np.linalg.svd(held)
    # The direction in which a mirror costs least is that of the smallest singular value, the last.
    signs = np.ones(dt)
    signs[-1] = 1.0 if reflect or ds > dt else np.sign(np.linalg.det(u) * np.linalg.det(v))
    return axes @ (u * signs) @ v


def turned(vectors: Vectors, turn: Real) -> Vectors:
    """Return users and items times `turn` [D,d]: with d = D, inner products and lengths are what they were."""
    space = vectors.space if turn.shape[0] == turn.shape[1] else "dot"  # fewer dimensions are not of length 1
    return Vectors(users=moved(vectors.users, turn), items=moved(vectors.items, turn), space=space)


def continuity(
    today: Vectors,
    yesterday: Vectors,
    turn: Real,
    *,
    users: tuple[Int, Int],
    items: tuple[Int, Int],
    k: int,
    seen: Interactions | None = None,
) -> Continuity:
    """Return how well yesterday's vectors fit today's, as they are and with today's times `turn` [D,D].

    `users` and `items` are rows of today and of yesterday, [n] each, of the same entities. Overlap is of two lists of k
    from today's items: that of yesterday's user vector, as a cache holds it, and that of today's. `seen` holds, by
    today's user row, items never listed. Both are 1 for a model that was only turned. ValueError if pairs of rows
    differ in number, or if `turn` changes the width.
    """
    same_rows(users[0], users[1])
    same_rows(items[0], items[1])
    if turn.shape != (today.users.shape[1], yesterday.users.shape[1]) or turn.shape[0] != turn.shape[1]:
        raise ValueError(f"a turn of shape {turn.shape} leaves nothing to compare before it")
    cached = np.zeros_like(today.users)
    cached[users[0]] = yesterday.users[users[1]]
    own = top_items(today.users, today.items, k, seen=seen, rows=users[0])
    cosines, overlaps = list[float](), list[float]()
    for now in (today, turned(today, turn)):
        mine = np.concatenate([now.users[users[0]], now.items[items[0]]])
        cosines.append(_cosine(mine, np.concatenate([yesterday.users[users[1]], yesterday.items[items[1]]])))
        theirs = top_items(cached, now.items, k, seen=seen, rows=users[0])
        overlaps.append(float(overlap(own, theirs, k).mean()) if len(own) else 1.0)
    return Continuity(cosine=(cosines[0], cosines[1]), overlap=(overlaps[0], overlaps[1]), k=k)


def _cosine(left: Float, right: Float) -> float:
    """Return the mean cosine of the rows that are no zeros in both; 1 if there are none."""
    total, count = 0.0, 0
    for a, b in paired(left, right):
        total += float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).sum())
        count += len(a)
    return total / count if count else 1.0
