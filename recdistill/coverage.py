"""How much of the data a label store covers: the report that tells a join which went wrong from a teacher's silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recdistill.labels import Layout, open_shard
from recdistill.types import Interactions

HALF = 0.5  # a share below which a report warns


def coverage(out: Path, layout: Layout, train: Interactions) -> dict[str, Any]:
    """Return how many users have a list, how long the lists are, and how many items are in any; reads shard by shard.

    Raises ArtifactError if a shard is missing or damaged.
    """
    lengths = np.zeros(layout.depth + 1, np.int64)  # users by the length of their list
    listed = np.zeros(layout.num_items, dtype=bool)
    trained = np.diff(train.indptr) > 0
    both = 0
    for shard in range(layout.shards):
        items = open_shard(out, layout, shard)["items"]
        there = items >= 0
        each = there.sum(1)
        lengths += np.bincount(each, minlength=len(lengths))
        listed[items[there]] = True
        both += int(((each > 0) & trained[layout.users(shard)]).sum())
    total, up_to = int(lengths.sum()), np.cumsum(lengths)
    shortest = int(np.flatnonzero(lengths)[0]) if total else 0
    return {
        "users": total,
        "users_with_labels": total - int(lengths[0]),
        "users_without_labels": int(lengths[0]),
        "mean_length": round(float(lengths @ np.arange(len(lengths))) / max(total, 1), 3),
        "shortest": shortest,
        **{f"p{p}_length": int(np.searchsorted(up_to, -(-p * total // 100))) if total else 0 for p in (10, 50, 90)},
        "items_listed": int(listed.sum()),
        "items_listed_share": share(int(listed.sum()), layout.num_items),
        "train_users": int(trained.sum()),
        "train_users_with_labels": both,
        "train_users_with_labels_share": share(both, int(trained.sum())),
    }


def told(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report says of the label artifact whose manifest has `facts`."""
    return {"scored_at": facts["scored_at"], **facts["coverage"], "joined": dict(facts.get("joined", {}))}


def thin(labels: Mapping[str, Any]) -> list[str]:
    """Return a warning of each join that half failed in what `told` says; one that failed is an error long before."""
    found = []
    if labels and labels["train_users_with_labels_share"] < HALF:
        counts = f"{labels['train_users_with_labels']} of {labels['train_users']}"
        found.append(f"only {counts} users with training data have a list of the teacher")
    if labels and labels["joined"] and labels["joined"]["rows_joined_share"] < HALF:
        counts = f"{labels['joined']['rows_joined']} of {labels['joined']['rows']}"
        found.append(f"only {counts} rows of the teacher's file have both a user and an item of the log")
    return found


def share(part: int, whole: int) -> float:
    """Return part / whole to six places, 0 of nothing."""
    return round(part / whole, 6) if whole else 0.0
