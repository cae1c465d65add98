"""How much better than the log alone a teacher explains what is held out, of users who did about as much: its trust.

A teacher that is right on the whole may be wrong for some (Lukasik et al., Teacher's pet, TMLR 2022). What a user's own
held-out items say of it is mostly how active the user is, so trust is of groups, and beside the scratch student.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recdistill.calibrate import fit_temperature
from recdistill.heldout import chances, held_out, sheet
from recdistill.labels import TRUST
from recdistill.mixture import edges_of, segments_of
from recdistill.scoring import Scorer
from recdistill.store import aside
from recdistill.types import Dataset, Float


def trust(dataset: Dataset, teacher: Scorer, scratch: Scorer, segments: int) -> tuple[Float, list[dict[str, Any]]]:
    """Return the trust of every user, [U] in [0, 1], and a row of facts for each group of users by activity.

    A group's value is by how many nats a held-out item the teacher's list NLL is below the scratch student's, each at
    the temperature that suits it; its trust is that over the largest value, 0 where the teacher is no better. Raises
    StageError if nothing is held out.
    """
    held = held_out(dataset, 0, ranker=False)[0]
    said = []
    for scorer in (teacher, scratch):
        sheets = [sheet(scorer, held, dataset.num_items)]
        said.append(chances(sheets, fit_temperature(sheets)))
    better = said[0] - said[1]
    count = np.diff(dataset.train.indptr)
    group = segments_of(count, edges_of(count[held.users], segments))
    own, known = group[held.users][held.rows], np.isfinite(better)
    values = np.zeros(int(group.max(initial=0)) + 1)
    for k in range(len(values)):
        at = (own == k) & known
        values[k] = np.average(better[at], weights=held.weight[at]) if at.any() else 0.0
    shares = np.clip(values / values.max(), 0.0, 1.0) if values.max() > 0 else np.zeros_like(values)
    facts = [
        {
            "least": int(count[group == k].min()),
            "most": int(count[group == k].max()),
            "users": int((group == k).sum()),
            "nats": round(float(values[k]), 6),
            "trust": round(float(shares[k]), 6),
        }
        for k in range(len(values))
        if (group == k).any()
    ]
    return shares[group].astype(np.float32), facts


def write_trust(out: Path, found: Float) -> None:
    """Write the trust of every user [U] beside the lists."""
    with aside(out / TRUST) as file, file.open("wb") as handle:
        np.save(handle, found)
