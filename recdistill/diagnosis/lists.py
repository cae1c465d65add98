"""What a diagnosis reads from lists: agreement with the teacher, what controls give, who gains, what is inherited."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from recdistill.diagnose import buckets as groups
from recdistill.diagnose.controls import share_of_gain
from recdistill.diagnose.fidelity import Fidelity, fidelity, overlap, top_agreement
from recdistill.diagnose.inherit import error_overlap, transfer_index
from recdistill.diagnosis.form import Bucket, Control, Inherited, Shown, make
from recdistill.evaluate import Lists
from recdistill.metrics import METRICS, Values, hits, relevant
from recdistill.transfer.histories import places
from recdistill.types import Dataset, Int

PERSISTENCE = 0.9  # of rank-biased overlap: the first ten places count most
GROUPS = (3, 3)  # of activity, of popularity


class Measure(NamedTuple):
    """What quality means, and how its intervals are made."""

    metric: str
    k: int
    times: int
    seed: int


def agreement(lists: Int, teacher: Int, k: int) -> Fidelity:
    """Return how far lists [n,K] of a model agree with the teacher's."""
    return fidelity(lists, teacher, k=k, persistence=PERSISTENCE)


def quality(seeds: Sequence[Int], dataset: Dataset, users: Int, how: Measure) -> Values:
    """Return each user's mean quality over a model's seeds, [n]; every user has something held out."""
    count = relevant(dataset.test, users)
    values = [METRICS[how.metric](hits(lists, dataset.test, users), count, how.k) for lists in seeds]
    return np.mean(values, axis=0)


def control(name: str, lacks: str, factor: float, lists: Lists, dataset: Dataset, users: Int, how: Measure) -> Control:
    """Return the share of the gain that the model `name` of `lists` has, beside `scratch` and `student`."""
    each = [quality(lists[model], dataset, users, how) for model in ("scratch", name, "student")]
    found = share_of_gain(*each, times=how.times, seed=how.seed)
    return make(
        Control,
        control=name,
        lacks=lacks,
        factor=factor,
        gain=found.gain,
        gain_low=found.gain_low,
        gain_high=found.gain_high,
        value=found.control,
        low=found.control_low,
        high=found.control_high,
        share=found.share,
        share_low=found.low,
        share_high=found.high,
    )


def buckets(lists: Lists, dataset: Dataset, users: Int, how: Measure) -> dict[str, Any]:
    """Return `buckets` and the `worst` of them: recall@k by activity and popularity, student against scratch."""
    table = groups.buckets(
        lists,
        dataset.train,
        dataset.test,
        users,
        num_items=dataset.num_items,
        groups=GROUPS,
        k=how.k,
        times=how.times,
        seed=how.seed,
    )
    cells = [make(Bucket, **cell._asdict()) for cell in table.cells]
    worst = None if table.worst is None else make(Bucket, **table.worst._asdict())
    return {"buckets": cells, "worst": worst, "groups": GROUPS}


def shown(model: str, seeds: Sequence[Int], dataset: Dataset, users: Int, k: int) -> Shown:
    """Return how popular, how various and how deep in the tail a model's lists are; a mean over its seeds."""
    size = dataset.num_items
    each = [groups.profile(one, dataset.train, dataset.test, users, num_items=size, k=k) for one in seeds]
    mean = np.mean(each, axis=0)
    return make(Shown, model=model, popularity=float(mean[0]), coverage=float(mean[1]), tail_recall=float(mean[2]))


def inherited(lists: Mapping[str, Sequence[Int]], dataset: Dataset, users: Int, how: Measure) -> list[Inherited]:
    """Return how much more the student is like the teacher than its scratch twin, in lists, first items and misses."""
    teacher = lists["teacher"][0]
    row, at = places(dataset.test, users)
    items = np.asarray(dataset.test.items)[at]
    measures: dict[str, Callable[[Int], Values]] = {
        f"overlap of the first {how.k}": lambda one: overlap(one, teacher, how.k),
        "same first item": lambda one: top_agreement(one, teacher),
        "misses in common": lambda one: error_overlap(one, teacher, row, items, how.k),
    }
    found = []
    for what, of in measures.items():
        student, scratch = (np.mean([of(one) for one in lists[model]], axis=0) for model in ("student", "scratch"))
        if not (np.isfinite(student) & np.isfinite(scratch)).any():
            continue
        index = transfer_index(student, scratch, times=how.times, seed=how.seed)
        found.append(make(Inherited, what=what, **index._asdict()))
    return found
