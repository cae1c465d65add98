"""The teacher of a daily refresh, as vectors: what yesterday's student said, moved as the teacher moved since."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recdistill.ensemble import Member, Recipe
from recdistill.gains.refresh import refreshed
from recdistill.heldout import held_out, sheet
from recdistill.members import stored
from recdistill.recipes import calibrated
from recdistill.store import aside, write_text
from recdistill.types import Dataset, Float, Vectors
from recdistill.yesterday import SIDES, Yesterday

Calibration = Literal["none", "temperature", "platt"]


def write_delta(
    dataset: Dataset,
    teacher: tuple[Float, Float],
    yesterday: Yesterday,
    out: Path,
    *,
    alpha: float,
    calibration: Calibration,
) -> dict[str, Any]:
    """Write the vectors of a `refreshed` target and a recipe.json that says they speak to `out`; returns head facts.

    `teacher` is today's vectors, users [U,D] and items [I,D], whose inner products are scores. A student of a softmax
    knows no level of a user's scores, so old users' scores of new items are levelled. Delta-KD (Cao et al., 2025).
    """
    assert yesterday.teacher is not None, "remembered has checked it"
    rows = {
        name: np.where(side >= 0, np.arange(len(side)), -1)
        for name, side in zip(SIDES, (yesterday.users, yesterday.items), strict=True)
    }
    today = Vectors(users=teacher[0], items=teacher[1])
    made = refreshed(yesterday.scores(), today, yesterday.teacher, **rows, alpha=alpha, level=True)
    for side in SIDES:
        with aside(out / f"{side}.npy") as file, file.open("wb") as handle:
            np.save(handle, getattr(made, side))
    recipe, facts = Recipe(kind="delta", members=(Member(0),)), dict[str, Any]()
    if calibration != "none":
        score = stored(out).score
        sheets = [sheet(score, part, dataset.num_items) for part in held_out(dataset, 0, ranker=False)]
        recipe, facts = calibrated(recipe, sheets, calibration)
    told = {"alpha": alpha, "calibration": facts} if facts else {"alpha": alpha}
    write_text(out / "recipe.json", json.dumps(asdict(recipe) | told, indent=1, sort_keys=True))
    head = {f"{n}_{when}": facts[when][n] for when in ("before", "after") for n in ("nll", "ece") if facts}
    return {"kind": "delta", "folds": 0, "alpha": alpha, "space": recipe.space, "members": 1, "judged": 1} | head
