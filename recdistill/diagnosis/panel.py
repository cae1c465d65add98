"""What there is to know of a finished distillation: the models heard one after another, and one value of it all.

Nothing here is ever optimised. Lists are compared over all seeds; scores, which cost more, of the first seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recdistill.diagnose.frontier import point
from recdistill.diagnosis.form import Agreement, Diagnosis, Traded, make
from recdistill.diagnosis.lists import Measure, agreement, buckets, control, inherited, shown
from recdistill.diagnosis.scores import Apart, apart, directions, reliability, rises, slope, traded, variance
from recdistill.diagnosis.voices import Asked, Heard, View, Voice
from recdistill.evaluate import popularity_lists
from recdistill.metrics import Values
from recdistill.types import Dataset, Int, Log, quiet

HELD_OUT = "held-out"
UNSCORED = "the teacher gives lists and no scores of the catalogue, so there is no divergence, slope, spectrum or noise"
NO_HISTORY = "no augmented lists: no model reads a history, or the teacher cannot be asked about one it has not seen"
NO_BETA = "one teacher temperature was taught: --temperatures trains students of others, which make a frontier"
NO_VECTORS = "gradient noise and flatness are of models with vectors, which the student has not"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Whom to listen to; of students one voice a seed, in the order of the seeds."""

    teacher: Voice
    scratch: Sequence[Voice]
    student: Sequence[Voice]
    controls: Mapping[str, Sequence[Voice]] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)  # control -> what its teacher lacks
    factors: Mapping[str, float] = field(default_factory=dict)  # control -> of the weights of its terms
    tuned: Sequence[float] = (1.0,)  # the factors that each had the best of
    uncontrolled: Sequence[str] = ()
    temperatures: Mapping[float, Sequence[Voice]] = field(default_factory=dict)  # of the teacher -> its students


@dataclass(frozen=True, slots=True)
class _Book:
    """What is written down while the models are heard."""

    parts: dict[str, list[Any]] = field(default_factory=lambda: {name: list[Any]() for name in PARTS})
    lists: dict[str, list[Int]] = field(default_factory=dict)  # model -> a seed its lists, held-out
    points: dict[str, list[tuple[Values, Values]]] = field(default_factory=dict)  # model -> a seed its chances
    lacking: set[str] = field(default_factory=set)


PARTS = ("agreement", "slopes", "reliability", "variance", "flatness", "directions")


def diagnose(
    dataset: Dataset, panel: Panel, views: Sequence[View], who: Asked, how: Measure, log: Log = quiet
) -> Diagnosis:
    """Return the diagnosis of the models of `panel` on `views`, one of which is held-out.

    One model's scores are in memory beside the teacher's. Raises KeyError if `how.metric` is no metric of rankings.
    """
    book, (done, total) = _Book(), (0, sum(sum(map(len, _everyone(panel, view.name).values())) for view in views))
    counts = np.bincount(dataset.train.items, minlength=dataset.num_items)
    for view in views:
        teacher = panel.teacher(view)
        book.lacking.update({UNSCORED} if teacher.scores is None else ())
        if view.name == HELD_OUT:
            _keep(book, "teacher", teacher, teacher, who, how.k)
            _alone(book, "teacher", teacher, who, how)
        for model, voices in _everyone(panel, view.name).items():
            each = []
            for seed, voice in enumerate(voices):
                log(f"diagnose {model}", done, total, {})
                heard, done = voice(view), done + 1
                first = not seed and model in ("student", "scratch")
                each.append(_compare(book, view.name if first else None, model, heard, teacher, how.k))
                if view.name == HELD_OUT:
                    _keep(book, model, heard, teacher, who, how.k)
                    if first:
                        _alone(book, model, heard, who, how)
                        _beside(book, model, heard, teacher, who, counts)
            book.parts["agreement"].append(_mean_agreement(view.name, model, each))
    log("diagnose", total, total, {})
    return _closed(book, dataset, panel, views, who, how)


def _closed(book: _Book, dataset: Dataset, panel: Panel, views: Sequence[View], who: Asked, how: Measure) -> Diagnosis:
    """Return what the book holds, and what is known once all lists are."""
    seen = next(view.seen for view in views if view.name == HELD_OUT)
    three = {model: book.lists[model] for model in ("teacher", "scratch", "student")}
    shows = three | {"popularity": [popularity_lists(dataset, who.users, who.depth, seen)]}
    notes = [note for note in (UNSCORED, NO_VECTORS) if note in book.lacking]
    notes += ([] if len(views) > 2 else [NO_HISTORY]) + ([] if panel.temperatures else [NO_BETA])
    controls = [(name, panel.lacks[name], panel.factors.get(name, 1.0)) for name in panel.controls]
    return make(
        Diagnosis,
        metric=how.metric,
        k=how.k,
        users=len(who.users),
        scored=0 if UNSCORED in book.lacking else len(who.held.users),
        seeds=len(panel.student),
        controls=[control(*one, book.lists, dataset, who.users, how) for one in controls],
        tuned=sorted(panel.tuned),
        uncontrolled=list(panel.uncontrolled),
        shown=[shown(model, seeds, dataset, who.users, how.k) for model, seeds in shows.items()],
        frontier=_frontier(book, dataset, panel, who, how.k),
        inherited=inherited(book.lists, dataset, who.users, how),
        notes=notes,
        **buckets(three, dataset, who.users, how),
        **book.parts,
    )


def _everyone(panel: Panel, part: str) -> dict[str, Sequence[Voice]]:
    """Return who is compared with the teacher on `part`: controls are, and students of other temperatures, held-out."""
    both = {"scratch": panel.scratch, "student": panel.student}
    if part != HELD_OUT:
        return both
    return both | dict(panel.controls) | {_at(t): voices for t, voices in panel.temperatures.items()}


def _at(temperature: float) -> str:
    return f"taught at {temperature:g}"


def _compare(book: _Book, part: str | None, model: str, heard: Heard, teacher: Heard, k: int) -> list[float]:
    """Return how far a model agrees with the teacher, and note its slope if `part` says on what it is compared."""
    away: Apart | None = None
    if heard.scores is not None and teacher.scores is not None:
        away = apart(heard.scores, teacher.scores)
    if away is not None and part is not None:
        book.parts["slopes"].append(slope(part, model, away))
    kinds = [*agreement(heard.lists, teacher.lists, k), np.zeros(0) if away is None else away.kl]
    return [_mean(values) for values in kinds]


def _mean_agreement(part: str, model: str, seeds: Sequence[Sequence[float]]) -> Agreement:
    top, overlap, rbo, kl = np.mean(seeds, axis=0)
    return make(Agreement, part=part, model=model, top=top, overlap=overlap, rbo=rbo, kl=kl)


def _keep(book: _Book, model: str, heard: Heard, teacher: Heard, who: Asked, k: int) -> None:
    scored = heard.lists[np.searchsorted(who.users, who.held.users), :k]
    book.lists.setdefault(model, []).append(heard.lists)
    book.points.setdefault(model, []).append(traded(heard, teacher.scores, scored, who.held))


def _alone(book: _Book, model: str, heard: Heard, who: Asked, how: Measure) -> None:
    """Note what is asked of one model, whoever the teacher is."""
    if heard.scores is not None and len(who.held.rows):
        book.parts["reliability"].append(reliability(model, heard.scores, who.held))
    if heard.vectors is not None and len(who.held.rows):
        book.parts["flatness"] += rises(model, heard.vectors, who.held, seed=how.seed)


def _beside(book: _Book, model: str, heard: Heard, teacher: Heard, who: Asked, counts: Int) -> None:
    """Note what is asked of a model as it stands to the teacher."""
    book.lacking.update({NO_VECTORS} if heard.vectors is None else ())
    book.parts["directions"] += directions(model, heard, teacher, counts)
    if heard.vectors is not None and heard.scores is not None and teacher.scores is not None:
        found = variance(model, heard.scores, teacher.scores, heard.vectors[1], who.held)
        book.parts["variance"].append(found)


def _frontier(book: _Book, dataset: Dataset, panel: Panel, who: Asked, k: int) -> list[Traded]:
    """Return one point a model, the mean over its seeds."""
    taught = {"student": 1.0} | {_at(t): t for t in panel.temperatures}
    found, size = list[Traded](), dataset.num_items
    for model, seeds in book.lists.items():
        each = [
            point(lists, chance, likely, dataset.train, dataset.test, who.users, num_items=size, k=k)
            for lists, (chance, likely) in zip(seeds, book.points[model], strict=True)
        ]
        mean = dict(zip(each[0]._fields, np.mean(each, axis=0), strict=True))
        found.append(make(Traded, model=model, teacher_temperature=taught.get(model), **mean))
    return found


def _mean(values: Values) -> float:
    """Return the mean over users that have a value; inf where the model gives no chance to what the teacher does."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
