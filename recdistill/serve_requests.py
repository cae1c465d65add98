"""What a served model is asked: the rows of a DataFrame, checked and read.

A part of the file that MLflow runs (recdistill.bundle.model_code), so it imports nothing of recdistill.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def requests_of(frame: Any, k: Any, ids: tuple[Any, Any]) -> list[tuple[Any, list[Any] | None]]:
    """Return the requests of a DataFrame with `user_id` and perhaps `history`; raises ValueError at a bad value.

    `ids` holds one user_id and one item_id of the bundle: requests must have their types.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k is {k!r}; it must be a whole number of at least 1")
    if "user_id" not in getattr(frame, "columns", ()):
        raise ValueError("the input has no column `user_id`")
    histories = frame["history"].tolist() if "history" in frame.columns else [None] * len(frame)
    requests: list[tuple[Any, list[Any] | None]] = []
    for row, (user_id, given) in enumerate(zip(frame["user_id"].tolist(), histories, strict=True)):
        _check_id(user_id, ids[0], f"row {row}: user_id")
        if given is None or (isinstance(given, float) and np.isnan(given)):  # pandas writes a missing list as NaN
            requests.append((user_id, None))
            continue
        if not isinstance(given, (list, tuple, np.ndarray)):
            raise ValueError(f"row {row}: history is {given!r}; it must be a list of item_ids")
        for item_id in given:
            _check_id(item_id, ids[1], f"row {row}: history")
        requests.append((user_id, list(given)))
    return requests


def _check_id(value: Any, like: Any, where: str) -> None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        raise ValueError(f"{where} is null")
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if isinstance(like, str) != isinstance(value, str) or (not isinstance(like, str) and not number):
        wanted = "text" if isinstance(like, str) else "a whole number"
        raise ValueError(f"{where} is {value!r}; it must be {wanted}")
