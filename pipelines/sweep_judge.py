"""What a model of a sweep recommends at test time, as a row of numbers a user: an artifact like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.config import Config
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted
from recdistill.stages import Data, Run
from recdistill.store import Step, aside
from recdistill.types import Artifact, Dataset, Int, Interactions

if TYPE_CHECKING:
    from recdistill.data.sequences import Sequences

Lists = Callable[[Dataset, Int, int, "Sequences", Interactions], Int]
"""(data, users [n], depth, histories, what must not be recommended) -> items [n,depth], -1 where there are fewer."""


def judge(data: Data, fitted: Fitted, config: Config, run: Run) -> Artifact:
    """Model -> values.npy [n,M]: what the facts name in `columns` of each user with test items, NaN where undefined.

    Beside it lists.npy [n,K], what each of those users is shown.
    """

    def lists(dataset: Dataset, users: Int, depth: int, sequences: Sequences, seen: Interactions) -> Int:
        from recdistill.fit import load
        from recdistill.models.build import history_length
        from recdistill.scoring import recommend

        model = load(fitted.spec, dataset, fitted.artifact.path)
        history = history_length(fitted.spec)
        return recommend(model, dataset, users, depth, sequences=sequences, history=history, seen=seen)

    return _judge(data, {"model": fitted.artifact.fingerprint}, config, run, lists)


def judge_teacher(
    data: Data, teacher: Teacher, scratch: Fitted, labels: Artifact | None, config: Config, run: Run
) -> Artifact:
    """Teacher -> as `judge`; a file of scores is judged by the `labels` that it gave."""

    def lists(dataset: Dataset, users: Int, depth: int, sequences: Sequences, seen: Interactions) -> Int:
        from recdistill.labelling import teacher_lister
        from recdistill.labels import open_labels

        if teacher.models:
            return teacher_lister(dataset, teacher, scratch, config.labels, depth, sequences, seen)(users).items
        assert labels is not None
        items, _ = open_labels(labels.path).take(users)
        return _unseen(items, users, seen, dataset.num_items)[:, :depth]

    inputs = {"scratch": scratch.artifact.fingerprint} if teacher.ranks else {}
    inputs |= {"teacher": teacher.fingerprint} if teacher.fingerprint is not None else {}
    inputs |= {"labels": labels.fingerprint} if labels is not None and teacher.external is not None else {}
    return _judge(data, inputs, config, run, lists)


def _judge(data: Data, inputs: Mapping[str, str], config: Config, run: Run, lists: Lists) -> Artifact:
    sampled = _ranks(config)  # a teacher that scores pairs is judged on a sample of users, and all others on the same
    step = Step("judge", 2, {"k": config.report.k, "sampled": sampled}, data.inputs | dict(inputs))

    def work(out: Path) -> dict[str, Any]:
        from recdistill.data.sequences import Sequences
        from recdistill.evaluate import merge

        dataset = data.read()
        seen = merge(dataset.train, dataset.valid)
        users = _users(dataset, sampled=sampled)
        found = lists(dataset, users, max(config.report.k), Sequences.of(seen), seen)
        columns = measured(dataset, users, found, config.report.k)
        tables = {"values": np.stack(list(columns.values()), axis=1), "lists": found.astype(np.int32)}
        for name, rows in tables.items():
            with aside(out / f"{name}.npy") as file, file.open("wb") as handle:
                np.save(handle, rows)
        return {"columns": list(columns), "users": len(users), "items": dataset.num_items}

    return run.build(step, work)


def measured(dataset: Dataset, users: Int, lists: Int, ks: tuple[int, ...]) -> dict[str, Any]:
    """Return `ndcg@k`, `recall@k`, `tail_recall@k` (of unpopular items) and `popularity@k` of each user, [n] each."""
    from recdistill.evaluate import _slices, popularity
    from recdistill.metrics import hits, ndcg, recall, relevant

    counts = np.bincount(dataset.train.items, minlength=dataset.num_items)
    tail = dict(_slices(dataset, ["popularity"]))["popularity:tail"]
    hit, wanted = hits(lists, dataset.test, users), relevant(dataset.test, users)
    far, few = hits(lists, tail, users), relevant(tail, users)
    found = {}
    for k in ks:
        found[f"ndcg@{k}"] = ndcg(hit, wanted, k)
        found[f"recall@{k}"] = recall(hit, wanted, k)
        found[f"tail_recall@{k}"] = np.where(few > 0, recall(far, np.maximum(few, 1), k), np.nan)
        found[f"popularity@{k}"] = popularity(lists, counts, k)
    return found


def _ranks(config: Config) -> bool:
    return any(model.kind == "ranker" for _, model, _ in config.teacher.trained())


def _users(dataset: Dataset, *, sampled: bool) -> Int:
    from recdistill.measure import EVALUATED_PAIRS

    users = np.flatnonzero(np.diff(dataset.test.indptr))
    limit = EVALUATED_PAIRS // max(dataset.num_items, 1)
    if not sampled or len(users) <= limit:
        return users
    return np.sort(np.random.Generator(np.random.Philox(13)).choice(users, limit, replace=False))


def _unseen(items: Int, users: Int, seen: Interactions, num_items: int) -> Int:
    """Return `items` [n,K] without what each user has seen, what is left moved up, -1 at the end."""
    gone = (items < 0) | np.isin(users[:, None] * num_items + items, seen.users() * num_items + seen.items)
    order = np.argsort(gone, axis=1, kind="stable")
    return np.take_along_axis(np.where(gone, -1, items), order, axis=1)
