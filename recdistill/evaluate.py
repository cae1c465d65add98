"""Quality of every model on the held-out part: metrics with paired bootstrap intervals, slices, gap closed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recdistill.metrics import METRICS, Values, bootstrap, coverage, hits, interval, relevant
from recdistill.results import MetricRow
from recdistill.types import Dataset, Int, Interactions

KEPT = ("student", "student@index")  # whose share of the teacher's quality is told

Lists = Mapping[str, Sequence[Int]]
"""Model -> for each seed its lists over the evaluated users, [n,K] items, -1 where shorter."""
Cells = Mapping[tuple[str, int], Mapping[str, Sequence[Values]]]
"""(metric, k) -> each model's values a user, [n] for each seed."""


def merge(first: Interactions, second: Interactions) -> Interactions:
    """Return both parts as one, each user's interactions by time where they have any."""
    users = np.concatenate([first.users(), second.users()])
    items = np.concatenate([first.items, second.items])
    times = None
    if first.times is not None and second.times is not None:
        times = np.concatenate([first.times, second.times])
    # A stable sort keeps what is in `first` before what is in `second` where times are equal or there are none.
    order = np.lexsort((times, users)) if times is not None else np.argsort(users, kind="stable")
    return Interactions(
        indptr=first.indptr + second.indptr, items=items[order], times=None if times is None else times[order]
    )


def popularity_lists(dataset: Dataset, users: Int, k: int, seen: Interactions) -> Int:
    """Return each user's `k` most popular unseen items by training count, ties by row: the baseline to beat."""
    from recdistill.topk import exact_topk

    count = np.bincount(dataset.train.items, minlength=dataset.num_items).astype(np.float32)[:, None]
    return exact_topk(np.ones((dataset.num_users, 1), np.float32), count, k, seen=seen, rows=users).items.numpy()


def evaluate(
    lists: Lists,
    dataset: Dataset,
    users: Int,
    *,
    k: Sequence[int],
    metrics: Sequence[str],
    slices: Sequence[str],
    times: int,
    seed: int,
) -> dict[str, Any]:
    """Return `quality`, `gap_closed`, `kept_of_teacher` and `student_minus_scratch` as rows of a report.

    A user's value is its mean over the seeds of a model; intervals are over users, all models on the same resamples.
    Users without anything to find in a slice are left out of it.
    """
    names = "quality", "gap_closed", "kept_of_teacher", "student_minus_scratch"
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for name, values in cells(lists, dataset, users, k, metrics, slices):
        _compare(found, values, name, times, seed)
    if "coverage" in metrics:
        found["quality"] += [_coverage(model, seeds, dataset, depth) for depth in k for model, seeds in lists.items()]
    if "popularity" in metrics:
        counts = np.bincount(dataset.train.items, minlength=dataset.num_items)
        each = {d: {m: [popularity(one, counts, d) for one in seeds] for m, seeds in lists.items()} for d in k}
        rows = resampled_rows({("popularity", depth): values for depth, values in each.items()}, "all", times, seed)[0]
        found["quality"] += sorted(rows, key=lambda row: list(lists).index(row["model"]))
    without = dataset.num_users - int((np.diff(dataset.test.indptr) > 0).sum())
    return {**found, "users": len(users), "users_without_test": without}


def cells(
    lists: Lists, dataset: Dataset, users: Int, k: Sequence[int], metrics: Sequence[str], slices: Sequence[str]
) -> Iterator[tuple[str, Cells]]:
    """Yield each slice's name and its values, of the metrics that a user has, over users with anything to find in it.

    `all` is first; takes what `evaluate` takes.
    """
    for name, truth in _slices(dataset, slices):
        count = relevant(truth, users)
        kept = count > 0
        if not kept.any():
            continue
        hit = {m: [hits(each[kept], truth, users[kept]) for each in seeds] for m, seeds in lists.items()}
        found = {}
        for metric, depth in ((metric, depth) for metric in metrics if metric in METRICS for depth in k):
            each = {m: [METRICS[metric](h, count[kept], depth) for h in seeds] for m, seeds in hit.items()}
            found[metric, depth] = each
        yield name, found


def _compare(found: Mapping[str, list[dict[str, Any]]], values: Cells, name: str, times: int, seed: int) -> None:
    """Add the rows of all metrics on the slice `name`."""
    rows, resampled = resampled_rows(values, name, times, seed)
    found["quality"].extend(rows)
    for (metric, k), models in values.items() if name == "all" else ():
        place, means = {"metric": metric, "k": k}, {m: np.mean(seeds, axis=0) for m, seeds in models.items()}
        for model in KEPT if "teacher" in means else ():
            if model in means:
                found["kept_of_teacher"].append({"model": model, **place, **kept(model, means, resampled[metric, k])})
        if "scratch" in means and "student" in means:
            gain = {**place, **difference(means, resampled[metric, k]), "seeds": len(models["student"])}
            found["student_minus_scratch"].append(gain)
            if "teacher" in means:
                found["gap_closed"].append({**place, **gap(means, resampled[metric, k])})


def resampled_rows(
    values: Cells, name: str, times: int, seed: int
) -> tuple[list[dict[str, Any]], dict[tuple[str, int], dict[str, Values]]]:
    """Return a row of the report for each model and metric, and their means over resamples, [times] each.

    All are on the same resamples, which are drawn once: to draw them takes longer than to use them.
    """
    columns = [np.mean(seeds, axis=0) for models in values.values() for seeds in models.values()]
    drawn = iter(bootstrap(np.stack(columns, 1), times, seed).T) if columns else iter(())
    resampled = {place: {model: next(drawn) for model in models} for place, models in values.items()}
    rows = []
    for (metric, k), models in values.items():
        for model, seeds in models.items():
            low, high = interval(resampled[metric, k][model])
            means = [v.mean() for v in seeds]
            spread = float(np.std(means, ddof=1)) if len(means) > 1 else None
            value = float(np.mean(seeds, axis=0).mean())
            row = MetricRow(
                model=model, slice=name, value=value, low=low, high=high, seed_spread=spread, metric=metric, k=k
            )
            rows.append(asdict(row))
    return rows, resampled


def difference(means: Mapping[str, Values], resampled: Mapping[str, Values]) -> dict[str, float]:
    """Return the gain of `student` over `scratch` with its paired interval.

    `means` holds for each model a value a user [n], `resampled` its means over resamples of the users [times].
    """
    low, high = interval(resampled["student"] - resampled["scratch"])
    return {"difference": float(means["student"].mean() - means["scratch"].mean()), "low": low, "high": high}


def gap(means: Mapping[str, Values], resampled: Mapping[str, Values]) -> dict[str, float]:
    """Return (student - scratch) / (teacher - scratch); NaN where the teacher is not surely above scratch.

    Takes what `difference` takes.
    Where the denominator may be 0 or less, a ratio says nothing: its interval would reach to infinity.
    """
    whole = resampled["teacher"] - resampled["scratch"]
    if np.quantile(whole, 0.025) <= 0:
        return {"share": math.nan, "low": math.nan, "high": math.nan}
    low, high = interval((resampled["student"] - resampled["scratch"]) / whole)
    gained, all_of_it = (means[m].mean() - means["scratch"].mean() for m in ("student", "teacher"))
    return {"share": float(gained / all_of_it), "low": low, "high": high}


def kept(model: str, means: Mapping[str, Values], resampled: Mapping[str, Values]) -> dict[str, float]:
    """Return what `model` keeps of the teacher's value, with its paired interval; NaN where the teacher may have none.

    Takes what `difference` takes.
    """
    whole = resampled["teacher"]
    if np.quantile(whole, 0.025) <= 0:
        return {"share": math.nan, "low": math.nan, "high": math.nan}
    low, high = interval(resampled[model] / whole)
    return {"share": float(means[model].mean() / means["teacher"].mean()), "low": low, "high": high}


def _coverage(model: str, seeds: Sequence[Int], dataset: Dataset, k: int) -> dict[str, Any]:
    value = float(np.mean([coverage(lists, dataset.num_items, k) for lists in seeds]))
    row = MetricRow(model=model, metric="coverage", k=k, slice="all", value=value, low=value, high=value)
    return asdict(row)


def popularity(lists: Int, counts: Int, k: int) -> Values:
    """Return the mean training interactions, `counts` [I], of the first `k` of each list [n,K]; 0 for an empty one."""
    top = lists[:, :k]
    there = top >= 0
    return np.where(there, counts[top], 0).sum(1) / np.maximum(there.sum(1), 1)


def _slices(dataset: Dataset, wanted: Sequence[str]) -> Iterator[tuple[str, Interactions]]:
    """Yield (name, the part of the truth that belongs to it); `all` first."""
    yield "all", dataset.test
    if "popularity" in wanted:
        # Three groups of items that hold as many training interactions each, so that none is empty of evidence.
        count = np.bincount(dataset.train.items, minlength=dataset.num_items)
        order = np.argsort(-count, kind="stable")
        group = np.empty(dataset.num_items, np.int64)
        group[order] = np.minimum(3 * (np.cumsum(count[order]) - count[order]) // max(count.sum(), 1), 2)
        for g, name in enumerate(("head", "middle", "tail")):
            yield f"popularity:{name}", _only(dataset.test, group[dataset.test.items] == g)
    if "activity" in wanted:
        order = np.argsort(np.diff(dataset.train.indptr), kind="stable")
        for name, part in zip(("low", "medium", "high"), np.array_split(order, 3), strict=True):
            member = np.zeros(dataset.num_users, bool)
            member[part] = True
            yield f"activity:{name}", _only(dataset.test, member[dataset.test.users()])


def _only(truth: Interactions, keep: NDArray[np.bool_]) -> Interactions:
    counts = np.bincount(truth.users()[keep], minlength=truth.num_users)
    return Interactions(indptr=np.concatenate([[0], np.cumsum(counts)]), items=truth.items[keep])
