"""A candidate and the champion, asked for the same users: what each would answer today, and what that is worth.

Both are asked as they serve, by raw ids, with what the candidate's data holds of a user as the history and left out of
the answer. The champion's report says what it was worth on its own day, to users of that day; a comparison of two days
is one of days.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recdistill.data.sequences import Sequences
from recdistill.evaluate import cells, merge, resampled_rows
from recdistill.gains.refresh import churn
from recdistill.gates import BESIDE, CHAMPION
from recdistill.metrics import METRICS, interval
from recdistill.serve import open_bundle, read_index, recommend
from recdistill.types import Dataset, Int

ASKED = 20_000  # users; of more a seeded draw, as intervals over so many are narrow
TOGETHER = 1_024  # requests answered in one call


def contest(
    dataset: Dataset,
    candidate: Path,
    champion: Path,
    *,
    k: Sequence[int],
    metrics: Sequence[str],
    slices: Sequence[str],
    times: int,
    seed: int,
) -> dict[str, Any]:
    """Return `users`, `quality` rows of both bundles, their paired `differences`, and `churn` of the lists by depth.

    A difference is the candidate's value less the champion's, over resamples of the same users; `slices` are as of
    `recdistill.evaluate.evaluate`, and `dataset` is the candidate's. Of metrics, those that a user has a value of.
    """
    users = contestants(dataset, seed)
    depth = max(k)
    lists = {
        BESIDE: [served(candidate, dataset, users, depth)],
        CHAMPION: [served(champion, dataset, users, depth)],
    }
    quality: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for name, values in cells(lists, dataset, users, k, [m for m in metrics if m in METRICS], slices):
        rows, resampled = resampled_rows(values, name, times, seed)
        quality += rows
        for (metric, at), each in values.items():
            again = resampled[metric, at]
            low, high = interval(again[BESIDE] - again[CHAMPION])
            mean = float(np.mean(each[BESIDE][0] - each[CHAMPION][0]))
            found = {"metric": metric, "k": at, "slice": name, "difference": mean, "low": low, "high": high}
            differences.append(found | {"users": len(each[BESIDE][0])})
    mine, theirs = lists[BESIDE][0], lists[CHAMPION][0]
    changed = [{"k": at, "mean": float(churn(theirs, mine, at).mean())} for at in k]
    return {"users": len(users), "quality": quality, "differences": differences, "churn": changed}


def contestants(dataset: Dataset, seed: int) -> Int:
    """Return the users with anything to find in test, at most `ASKED` of them, rising."""
    users = np.flatnonzero(np.diff(dataset.test.indptr))
    if len(users) <= ASKED:
        return users
    return np.sort(np.random.Generator(np.random.Philox(seed)).choice(users, ASKED, replace=False))


def served(bundle: Path, dataset: Dataset, users: Int, k: int) -> Int:
    """Return what the bundle at `bundle` answers to `users` [n], [n,k] item rows of `dataset`, -1 where it has fewer.

    An item that `dataset` does not know takes a place that nothing fills: it cannot be what the user took next.
    """
    opened = open_bundle(bundle)
    index = read_index(bundle / "index.faiss", opened.params)
    known = Sequences.of(merge(dataset.train, dataset.valid))
    offsets, items = known.indptr.numpy(), known.items.numpy()
    user_ids, item_ids = dataset.user_ids.to_list(), dataset.item_ids.to_list()
    rows = {item: row for row, item in enumerate(item_ids)}
    strangers = len(item_ids)
    found = np.full((len(users), k), -1, np.int64)
    for start in range(0, len(users), TOGETHER):
        part = users[start : start + TOGETHER]
        requests = [(user_ids[u], [item_ids[i] for i in items[offsets[u] : offsets[u + 1]]]) for u in part]
        for n, answer in enumerate(recommend(opened, index, requests, k, exclude_seen=True), start):
            # Each stranger keeps a number of its own, so that two of them are not one item of the list.
            line = [rows.get(i, strangers + place) for place, i in enumerate(answer.item_ids)]
            found[n, : len(line)] = line
    return found
