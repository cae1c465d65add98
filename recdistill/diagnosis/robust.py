"""Whether distillation helps more where the log is worse: every model again on spoilt data, measured on the clean part.

The teacher learns from the same spoilt data as its student (Sarfraz, Arani and Zonooz, Knowledge Distillation Beyond
Model Compression, 2020, who spoil labels and classes): noise in everybody's training part, and a tail that is cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recdistill.diagnosis.form import Robust, make
from recdistill.measure import Judged
from recdistill.report import ReportSpec
from recdistill.spoil import Spoil, spoilt
from recdistill.stages import Data, Run
from recdistill.store import Step, write_text
from recdistill.types import Artifact, Dataset, Int, Interactions

if TYPE_CHECKING:
    from recdistill.diagnosis.lists import Measure
    from recdistill.evaluate import Lists

GRID = (Spoil("noise", 0.2), Spoil("noise", 0.4), Spoil("imbalance", 0.5), Spoil("imbalance", 0.8))
FILE = "robustness.json"


class Cell(NamedTuple):
    """The models that learned from one log."""

    spoil: Spoil | None
    judged: Judged


def robustness(data: Data, cells: Sequence[Cell], report: ReportSpec, measure: Mapping[str, Any], run: Run) -> Artifact:
    """The models of every log -> robustness.json: the gain on the clean test part, by what was done to training.

    `measure` is what a `Measure` is made of; the first of `cells` is the run itself.
    """
    inputs = dict(data.inputs)
    for cell in cells:
        name = "clean" if cell.spoil is None else cell.spoil.name
        inputs |= {f"{name}-{what}": value for what, value in cell.judged.inputs().items() if what != "index"}
    step = Step("robustness", 1, {**measure, "depth": max(report.k)}, inputs)

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.diagnosis.lists import Measure
        from recdistill.diagnosis.voices import asked

        dataset, how = data.read(), Measure(**measure)
        everyone = [*cells[0].judged.teacher.models, *cells[0].judged.student]
        users = asked(dataset, how.k, ranker=any(model.spec.kind == "ranker" for model in everyone)).users
        shown: list[tuple[Spoil | None, Lists]] = []
        for i, cell in enumerate(cells):
            run.log("robustness", i, len(cells), {})
            shown.append((cell.spoil, lists_of(dataset, cell, users, how.k)))
        rows = [row.model_dump(mode="json") for row in tabled(shown, dataset, users, how)]
        write_text(out / FILE, json.dumps(rows, indent=1, allow_nan=False))
        return {"users": len(users)}

    return run.build(step, work)


def read_rows(made: Artifact) -> list[Robust]:
    """Return what `robustness` wrote."""
    return [Robust.model_validate(row) for row in json.loads((made.path / FILE).read_text(encoding="utf-8"))]


def lists_of(dataset: Dataset, cell: Cell, users: Int, k: int) -> Lists:
    """Return what the models of `cell` show `users` [n], each seed's lists [n,k].

    They read the log that they learned from. What a user really took is not shown, nor what noise says it took: else
    a model that sees through the noise would spend its places on what nobody can be shown to like again.
    """
    from recdistill.data.sequences import Sequences
    from recdistill.diagnosis.voices import View, student_voice, teacher_voice, unscored
    from recdistill.evaluate import merge

    own = dataset if cell.spoil is None else spoilt(dataset, cell.spoil)
    known = merge(own.train, own.valid)
    seen = merge(known, lost(dataset.train, own.train, dataset.num_items))
    who, judged = unscored(users, k, seen), cell.judged
    view = View(name="held-out", sequences=Sequences.of(known), seen=seen)
    teacher = teacher_voice(judged.teacher, judged.scratch[0], judged.labels, judged.candidates, own, who)
    each = {"scratch": judged.scratch, "student": judged.student}
    return {"teacher": [teacher(view).lists]} | {
        name: [student_voice(model, own, who)(view).lists for model in models] for name, models in each.items()
    }


def lost(clean: Interactions, spoilt: Interactions, num_items: int) -> Interactions:
    """Return the interactions of `clean` that `spoilt` has not."""
    from recdistill.folds import pick

    keys, kept = (log.users() * num_items + np.asarray(log.items) for log in (clean, spoilt))
    return pick(clean, ~np.isin(keys, kept))


def tabled(shown: Sequence[tuple[Spoil | None, Lists]], dataset: Dataset, users: Int, how: Measure) -> list[Robust]:
    """Return one row a log: quality on the clean test part, the gain, and by how much it differs from the first log's.

    Intervals are over users, paired; the least and the largest gain are of one seed each.
    """
    from recdistill.diagnose.buckets import tail_recall
    from recdistill.diagnosis.lists import quality
    from recdistill.metrics import bootstrap, interval

    each = [
        {m: np.stack([quality([one], dataset, users, how) for one in seeds]) for m, seeds in lists.items()}
        for _, lists in shown
    ]
    gains = [values["student"] - values["scratch"] for values in each]  # [S,n] each
    means = bootstrap(np.stack([gain.mean(0) for gain in gains], axis=1), how.times, how.seed)
    rows = list[Robust]()
    for i, (spoil, lists) in enumerate(shown):
        low, high = interval(means[:, i])
        less, more = interval(means[:, i] - means[:, 0]) if i else (None, None)
        by_seed = gains[i].mean(1)
        tail = {
            f"tail_{m}": float(
                np.mean(
                    [
                        tail_recall(one, dataset.train, dataset.test, users, num_items=dataset.num_items, k=how.k)
                        for one in lists[m]
                    ]
                )
            )
            for m in ("teacher", "scratch", "student")
        }
        row = make(
            Robust,
            spoil="clean" if spoil is None else spoil.kind,
            fraction=0.0 if spoil is None else spoil.fraction,
            **{model: float(values.mean()) for model, values in each[i].items()},
            gain=float(gains[i].mean()),
            low=low,
            high=high,
            least=float(by_seed.min()) if len(by_seed) > 1 else None,
            most=float(by_seed.max()) if len(by_seed) > 1 else None,
            change=float(gains[i].mean() - gains[0].mean()) if i else None,
            change_low=less,
            change_high=more,
            **tail,
        )
        rows.append(row)
    return rows
