"""Whether what a bundle's files say fits together: their digests are right, and still anybody may have written them.

A part of the file that MLflow runs (recdistill.bundle.model_code), so it imports nothing of recdistill.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

TEXT_LIMIT = 1 << 28  # bytes of a JSON file of a bundle


def read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`; raises ValueError where it is none, OSError where it cannot be read."""
    with file.open("rb") as stream:
        text = stream.read(TEXT_LIMIT + 1)
    if len(text) > TEXT_LIMIT:
        raise ValueError(f"{file.name} has more than {TEXT_LIMIT} bytes")
    try:
        found = json.loads(text.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{file.name} is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} holds no object")
    return found


def check_bundle(bundle: Any) -> None:
    """Raise ValueError, which says what, unless each part of `bundle` has the shape and range that the others need."""
    users, items = len(bundle.user_row), len(bundle.item_ids)
    length = bundle.length
    rules = {
        "query.json names no known kind": bundle.kind in ("mf", "two_tower"),
        "query.json names no known space": bundle.space in ("dot", "cosine"),
        "query.json has a history that is no count": length is None or (type(length) is int and length >= 0),
        "index.json has params that are no text": isinstance(bundle.params, str),
        "user has not one row per user_id": _rows(bundle.users) == users > 0,
        "item_ids are not one of each": len(bundle.item_row) == items > 0,
        "ids are neither whole numbers nor text": _alike(bundle.user_row) and _alike(bundle.item_ids),
        "history has not one row per item_id": bundle.history is None or _rows(bundle.history) == items,
        "two_tower has no history": bundle.kind != "two_tower" or bundle.history is not None,
        "popular holds what is no item": _within(bundle.popular, items),
        "histories do not fit": bundle.offsets is None or _cut(bundle.offsets, bundle.past, users, items),
        "layers do not follow each other": _layered(bundle),
        "gate.json or gate.npy do not fit": bundle.deferral is None or _gate(bundle.deferral, items),
    }
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise ValueError("; ".join(broken))


def _rows(table: Any) -> int:
    """Return the rows of a table of numbers, plain or packed; -1 of what is none."""
    values, scale = getattr(table, "values", table), getattr(table, "scale", None)
    plain = values.ndim == 2 and values.dtype in (np.float32, np.float16, np.uint8)
    whole = values.dtype != np.uint8 or (scale is not None and scale.shape == (len(values), 2))
    return len(values) if plain and whole and values.shape[1] > 0 else -1


def _alike(ids: Any) -> bool:
    kinds = {type(value) for value in ids}
    return kinds == {str} or kinds == {int}


def _within(rows: Any, count: int) -> bool:
    """Say whether all of `rows` [n] are rows of a table of `count`."""
    plain = rows.ndim == 1 and rows.dtype.kind in "iu"
    return bool(plain and (not len(rows) or (rows.min() >= 0 and rows.max() < count)))


def _cut(offsets: Any, past: Any, users: int, items: int) -> bool:
    """Say whether `offsets` [U+1] cut `past` into one history a user."""
    plain = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) == users + 1 and _within(past, items)
    return bool(plain and offsets[0] >= 0 and offsets[-1] <= len(past) and (np.diff(offsets) >= 0).all())


def _layered(bundle: Any) -> bool:
    if bundle.kind != "two_tower" or bundle.history is None:
        return not bundle.layers
    wide, deep = bundle.users.shape[-1], bundle.history.shape[-1]
    width = wide + deep if bundle.layers else wide
    for weight, bias in bundle.layers:
        fits = weight.ndim == 2 and bias.ndim == 1 and weight.shape[1] == width and len(bias) == len(weight)
        if not fits or {weight.dtype.kind, bias.dtype.kind} != {"f"}:
            return False
        width = len(weight)
    return bool(bundle.layers) or wide == deep


def _gate(deferral: Any, items: int) -> bool:
    gate = deferral.gate
    numbers = [gate.mean, gate.spread, gate.weights]
    plain = all(one.shape == (4,) and np.isfinite(one).all() for one in numbers) and (gate.spread != 0).all()
    counted = deferral.popularity.shape == (items,) and deferral.popularity.dtype.kind in "iuf"
    finite = np.isfinite([gate.shift, deferral.threshold, deferral.scale]).all()
    return bool(plain and counted and finite and 0 < deferral.depth <= 1 << 20)
