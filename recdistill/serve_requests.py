"""What a served model is asked: the rows of a DataFrame, checked and read.

A part of the file that MLflow runs (recdistill.bundle.model_code), so it imports nothing of recdistill.
"""

from __future__ import annotations

from reprlib import repr as short  # what is wrong may be long, and comes back in the message
from typing import Any

import numpy as np

PLACES = 1 << 20  # of one answer: a request beyond them would take a server's memory
LEAST = 10  # places that a row counts at least: what it takes to read it


def requests_of(
    frame: Any, k: Any, ids: tuple[Any, Any], items: int | None = None
) -> list[tuple[Any, list[Any] | None]]:
    """Return the requests of a DataFrame with `user_id` and perhaps `history`; raises ValueError at a bad value.

    `ids` holds one user_id and one item_id of the bundle: requests must have their types. `items` is how many there
    are, by which the size of the answer is bounded; None does not bound it.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k is {short(k)}; it must be a whole number of at least 1")
    columns = list(getattr(frame, "columns", ()))
    if not all(isinstance(name, str) for name in columns):
        raise ValueError("the input has a column whose name is no text")
    for name, wanted in (("user_id", (1,)), ("history", (0, 1))):
        if columns.count(name) not in wanted:
            raise ValueError(f"the input has {'two columns' if name in columns else 'no column'} `{name}`")
    _check_size(len(frame), int(k) if items is None else min(int(k), items), bounded=items is not None)
    users = frame["user_id"].tolist()
    if empty := [row for row, user_id in enumerate(users) if _null(user_id)]:  # whose column pandas made floats of
        raise ValueError(f"row {empty[0]}: user_id is null")
    histories = frame["history"].tolist() if "history" in columns else [None] * len(frame)
    requests: list[tuple[Any, list[Any] | None]] = []
    for row, (user_id, given) in enumerate(zip(users, histories, strict=True)):
        _check_id(user_id, ids[0], f"row {row}: user_id")
        if _null(given):
            requests.append((user_id, None))
            continue
        if not isinstance(given, (list, tuple, np.ndarray)):
            raise ValueError(f"row {row}: history is {short(given)}; it must be a list of item_ids")
        for item_id in given:
            _check_id(item_id, ids[1], f"row {row}: history")
        requests.append((user_id, list(given)))
    return requests


def _check_size(rows: int, k: int, *, bounded: bool) -> None:
    if not rows:
        raise ValueError("the input has a column `user_id`, but no rows")
    most = max(PLACES // max(k, LEAST), 1)
    if bounded and rows > most:
        raise ValueError(f"the input has {rows} rows; send at most {most} in one request of {k} items each")


def _null(value: Any) -> bool:
    """Return whether a cell is empty; pandas writes what is missing as NaN."""
    return value is None or (isinstance(value, float) and bool(np.isnan(value)))


def _check_id(value: Any, like: Any, where: str) -> None:
    if _null(value):
        raise ValueError(f"{where} is null")
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if isinstance(like, str) != isinstance(value, str) or (not isinstance(like, str) and not number):
        wanted = "text" if isinstance(like, str) else "a whole number"
        raise ValueError(f"{where} is {short(value)}; it must be {wanted}")
