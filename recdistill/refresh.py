"""What a refresh changed: how much of each user's lists, and whether vectors cached yesterday can still be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recdistill.axes import nearest
from recdistill.errors import DataError
from recdistill.evaluate import merge
from recdistill.folds import pick
from recdistill.gains.paired import Real
from recdistill.gains.refresh import churn
from recdistill.gains.rotate import continuity
from recdistill.topk import top_items
from recdistill.types import Dataset, Float, Int, Interactions, Vectors
from recdistill.yesterday import Yesterday


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """The vectors of today's models, one a seed; of the teacher such whose inner products are scores."""

    student: Sequence[Vectors]  # the first is served
    scratch: Sequence[Vectors]
    teacher: tuple[Float, Float] | None = None


def measured(dataset: Dataset, today: Today, yesterday: Yesterday, k: Sequence[int]) -> dict[str, Any]:
    """Return `churn` rows (model, k, mean, p95) and `continuity` of a refresh, over users taught on both days.

    Both lists of a user leave out what was taken by today, so that churn is the models' alone; yesterday's hold no item
    that was new since. A user's churn is the mean over a model's seeds, each held against the one student of yesterday.
    """
    users, items = yesterday.both
    seen = merge(dataset.train, dataset.valid)
    teacher = None if today.teacher is None else Vectors(users=today.teacher[0], items=today.teacher[1])
    pairs: dict[str, tuple[Sequence[Vectors], Vectors | None]] = {
        "teacher": ([] if teacher is None else [teacher], yesterday.teacher),
        "scratch": (today.scratch, yesterday.scratch),
        "student": (today.student, yesterday.student),
    }
    rows = list[dict[str, Any]]()
    for model, (now, then) in pairs.items():
        if not now or then is None or not len(users):
            continue
        old = old_lists(then, users, items, max(k), seen)
        new = [top_items(v.users, v.items, max(k), seen=seen, rows=users) for v in now]
        rows += [{"model": model, "k": depth, **_spread([churn(old, one, depth) for one in new])} for depth in k]
    told = {"users": len(users), "items": len(items)}
    told |= {"new_users": _since(dataset.train.users(), yesterday.users)}
    told |= {"new_items": _since(dataset.train.items, yesterday.items)}
    return told | {"churn": rows, "continuity": _continuity(today.student[0], yesterday, k[0], seen)}


def old_lists(then: Vectors, users: Int, items: Int, k: int, seen: Interactions) -> Int:
    """Return the lists [n,k] of `users` [n] by yesterday's vectors, of the `items` [m] that there were, less `seen`."""
    place = np.full(len(then.items), -1)
    place[items] = np.arange(len(items))
    own = np.asarray(seen.items)
    known = pick(seen, place[own] >= 0)
    masked = Interactions(indptr=known.indptr, items=place[np.asarray(known.items)])
    found = top_items(then.users, np.asarray(then.items)[items], k, seen=masked, rows=users)
    return np.where(found >= 0, items[np.maximum(found, 0)], -1) if len(items) else found


def _spread(each: Sequence[Real]) -> dict[str, float]:
    mean = np.mean(each, axis=0)
    return {"mean": float(mean.mean()), "p95": float(np.quantile(mean, 0.95)), "seeds": len(each)}


def _since(active: Int, rows: Int) -> int:
    """Return how many of those who are taught today were not taught on the day before."""
    return int((rows[np.unique(np.asarray(active))] < 0).sum())


def _continuity(now: Vectors, yesterday: Yesterday, k: int, seen: Interactions) -> dict[str, Any] | None:
    """Return how yesterday's vectors meet those that serve today; None where they are of another width, or too few."""
    users, items = yesterday.both
    if now.users.shape[1] != yesterday.student.users.shape[1] or not len(users):
        return None
    try:
        turn = nearest(now, yesterday)
    except DataError:  # fewer rows than dimensions, of which no rotation is the nearest
        return None
    pairs = {"users": (users, users), "items": (items, items)}
    found = continuity(now, yesterday.student, turn, **pairs, k=k, seen=seen)
    names = ("as_it_is", "turned")
    return {
        "k": k,
        "cosine": dict(zip(names, found.cosine, strict=True)),
        "overlap": dict(zip(names, found.overlap, strict=True)),
    }
