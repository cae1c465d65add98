"""The models of a run side by side: what each recommends at test time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.distill.spec import LabelsSpec
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted
from recdistill.report import ReportSpec
from recdistill.types import Artifact, Dataset, Int, Interactions, Log

if TYPE_CHECKING:
    from recdistill.data.sequences import Sequences

EVALUATED_PAIRS = 100_000_000  # of a ranker over a catalogue; beyond it the users are sampled, seeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The models of one run, side by side."""

    teacher: Teacher
    scratch: Sequence[Fitted]
    student: Sequence[Fitted]
    labels: Artifact | None
    index: Artifact
    candidates: LabelsSpec
    yesterday: Artifact | None = None  # what the day before left, for students that remember it
    widths: Sequence[int] = ()  # of the student's vectors, whose first numbers so far are a student of their own

    def narrow(self) -> dict[str, Sequence[Fitted]]:
        """Return whose first numbers are students: the scratch ones' where they are trained to be, as the student."""
        nested = getattr(self.student[0].spec, "nested", ())
        return {"student": self.student, **({"scratch": self.scratch} if nested else {})}

    def inputs(self) -> dict[str, str]:
        """Return the fingerprints that a measurement of all of them depends on."""
        found = {f"scratch-{i}": m.artifact.fingerprint for i, m in enumerate(self.scratch)}
        found |= {f"student-{i}": m.artifact.fingerprint for i, m in enumerate(self.student)}
        if self.teacher.fingerprint is not None:
            found["teacher"] = self.teacher.fingerprint
        if self.labels is not None:
            found["labels"] = self.labels.fingerprint
        found |= {"widths": ",".join(map(str, self.widths))} if self.widths else {}
        return found | {"index": self.index.fingerprint}


def evaluate_all(dataset: Dataset, judged: Judged, report: ReportSpec, out: Path, log: Log) -> dict[str, Any]:
    """Write quality.json for every model of the run to `out`; returns the head numbers.

    At test time a model may read, and never recommends, what the user did in train and validation.
    """
    from recdistill.data.sequences import Sequences
    from recdistill.evaluate import evaluate, merge, popularity_lists
    from recdistill.fit import load
    from recdistill.models.build import history_length
    from recdistill.scoring import recommend
    from recdistill.store import write_text

    seen = merge(dataset.train, dataset.valid)
    sequences, depth = Sequences.of(seen), max(report.k)
    users = _evaluated(dataset, ranker=judged.teacher.ranks)

    def of(fitted: Fitted) -> Int:
        model, history = load(fitted.spec, dataset, fitted.artifact.path), history_length(fitted.spec)
        return recommend(model, dataset, users, depth, sequences=sequences, history=history, seen=seen)

    narrow = judged.narrow()
    done, total = 0, 3 + len(judged.scratch) + len(judged.student) + len(judged.widths) * sum(map(len, narrow.values()))

    def tick(name: str) -> None:
        nonlocal done
        done += 1
        log(f"evaluate {name}", done, total, {})

    lists: dict[str, list[Int]] = {}
    teacher = _teacher_lists(dataset, judged, users, depth, sequences, seen)
    if teacher is not None:
        lists["teacher"] = [teacher]
    tick("teacher")
    for name, models in (("scratch", judged.scratch), ("student", judged.student)):
        lists[name] = []
        for fitted in models:
            lists[name].append(of(fitted))
            tick(name)
    for name, models in narrow.items():
        for width, fitted in ((width, fitted) for width in judged.widths for fitted in models):
            cut = _first(fitted, dataset, users, depth, width, sequences, seen)
            lists.setdefault(f"{name}[:{width}]", []).append(cut)
            tick(f"{name}[:{width}]")
    lists["student@index"] = [_index_lists(dataset, judged, users, depth, sequences, seen)]
    tick("student@index")
    lists["popularity"] = [popularity_lists(dataset, users, depth, seen)]
    tick("popularity")
    quality = evaluate(
        lists,
        dataset,
        users,
        k=report.k,
        metrics=report.metrics,
        slices=report.slices,
        times=report.bootstrap,
        seed=report.seed,
    )
    write_text(out / "quality.json", json.dumps(quality, indent=1))
    return {"users": quality["users"], "users_without_test": quality["users_without_test"]}


def _first(
    fitted: Fitted, dataset: Dataset, users: Int, depth: int, width: int, sequences: Sequences, seen: Interactions
) -> Int:
    """Return the lists of a student that is the first `width` numbers of another's vectors."""
    from recdistill.fit import load
    from recdistill.models.build import history_length
    from recdistill.scoring import as_rounded, narrowed, vectors
    from recdistill.topk import top_items

    model = load(fitted.spec, dataset, fitted.artifact.path)
    found = narrowed(vectors(model, dataset, sequences, history_length(fitted.spec)), width)
    found = as_rounded(found, model)
    return top_items(found.users, found.items, depth, seen=seen, rows=users)


def _teacher_lists(
    dataset: Dataset, judged: Judged, users: Int, depth: int, sequences: Sequences, seen: Interactions
) -> Int | None:
    """Return the teacher's lists at test time; an external one's are the labels it gave, less what is seen."""
    from recdistill.labelling import teacher_lister
    from recdistill.labels import open_labels

    if judged.teacher.models:
        lister = teacher_lister(dataset, judged.teacher, judged.scratch[0], judged.candidates, depth, sequences, seen)
        return lister(users).items
    if judged.labels is None:
        return None
    items, _ = open_labels(judged.labels.path).take(users)
    return _drop_seen(items, users, seen, dataset.num_items)[:, :depth]


def _index_lists(
    dataset: Dataset, judged: Judged, users: Int, depth: int, sequences: Sequences, seen: Interactions
) -> Int:
    """Return the served student's lists as the approximate index finds them, asking for as many more as are seen."""
    from recdistill.ann import read_facts, search
    from recdistill.export import as_served

    queries = as_served(judged.index.path / "bundle", sequences, users)
    extra = np.diff(seen.indptr)[users]
    found = np.full((len(users), depth), -1, np.int64)
    params = read_facts(judged.index.path)["params"]
    need = np.minimum(depth + 2 ** np.ceil(np.log2(np.maximum(extra, 1))).astype(np.int64), dataset.num_items)
    for width in np.unique(need):  # users who have seen about as much share a search
        at = np.flatnonzero(need == width)
        _, items = search(judged.index.path / "index.faiss", queries[at], int(width), params)
        items = _drop_seen(items, users[at], seen, dataset.num_items)[:, :depth]
        found[at, : items.shape[1]] = items  # a catalogue may hold fewer than are asked for
    return found


def _drop_seen(items: Int, users: Int, seen: Interactions, num_items: int) -> Int:
    """Return `items` [n,K] without what each user has seen, what is left moved up, -1 at the end."""
    keys = np.sort(seen.users() * num_items + seen.items)
    wanted = users[:, None] * num_items + items
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    gone = (items < 0) | ((keys[at] == wanted) if len(keys) else False)
    order = np.argsort(gone, axis=1, kind="stable")
    return np.take_along_axis(np.where(gone, -1, items), order, axis=1)


def read_json(artifact: Artifact, name: str) -> Any:
    """Return what a JSON file of an artifact holds."""
    return json.loads((artifact.path / name).read_text(encoding="utf-8"))


def _evaluated(dataset: Dataset, *, ranker: bool) -> Int:
    users = np.flatnonzero(np.diff(dataset.test.indptr))
    limit = EVALUATED_PAIRS // max(dataset.num_items, 1)
    if not ranker or len(users) <= limit:
        return users
    return np.sort(np.random.Generator(np.random.Philox(13)).choice(users, limit, replace=False))
