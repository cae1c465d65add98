"""What a student makes of a history, beside what its teacher does: where it looks, what fools it, what it ignores.

Students inherit where a teacher looks, the edits that fool it and what it does not care about (Ojha et al., NeurIPS
2023). Here the input is a history: looking is the gradient by gates on its items, which models that pool, attend or
cross have in common, an attack drops items, and what should not matter is what was taken long ago. Teacher, student
and scratch are asked about the same histories: the last items of each, as many as the model that reads fewer reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from recdistill.data.sequences import Sequences
from recdistill.diagnose.chances import Mask
from recdistill.diagnose.inherit import attack_transfer, attribution_iou, invariance, transfer_index
from recdistill.diagnosis.edits import flipping, gates_of, oldest, without
from recdistill.diagnosis.form import Inherited, make
from recdistill.diagnosis.lists import Measure
from recdistill.diagnosis.voices import Asked, View, Voice, sample, student_voice, teacher_voice, unscored
from recdistill.ensemble import read_recipe
from recdistill.evaluate import merge
from recdistill.fit import load
from recdistill.heldout import FEWEST, RANKER_PAIRS
from recdistill.measure import Judged
from recdistill.metrics import Values
from recdistill.models.build import Model, history_length
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted
from recdistill.transfer.histories import longest
from recdistill.types import Dataset, Int, Log, quiet

USERS = 20_000  # who are asked; fewer where a ranker scores
PLACES = 5  # of a history that count as what a model looks at
DROPS = 5  # items that an attack may drop, and as many are old
LISTED = 50  # items of the teacher's list, among which its first one has a chance
WHAT = "attribution, attack transfer and invariance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Who is asked, and the histories that all models read."""

    dataset: Dataset
    who: Asked
    read: Sequences  # the last `length` items of every user
    length: int

    @property
    def known(self) -> Mask:
        """Return which places of the histories [n,length], the latest last, have an item."""
        return (self.read.latest(torch.from_numpy(self.who.users), self.length).items >= 0).numpy()

    def lists(self, voice: Voice, gone: Mask | None = None) -> Int:
        """Return the lists [n,K] that `voice` gives without the places `gone` [n,length] of the histories."""
        read = self.read if gone is None else without(self.read, self.who.users, gone)
        return voice(View(name="held-out", sequences=read, seen=self.who.held.seen)).lists

    def gates(self, model: Model, history: int, listed: Int) -> Values:
        """Return how much each item moves a model's chance of the first of `listed` [n,K]: see `gates_of`."""
        trained = (np.diff(self.dataset.train.indptr) > 0)[self.who.users]
        return gates_of(model, self.read, self.who.users, trained, listed, history=history, length=self.length)


class Edits(NamedTuple):
    """What is left out of the histories [n,length]."""

    attack: Mask  # the fewest items without which the teacher's first item is another, of whom there are such
    old: Mask


class Habits(NamedTuple):
    """What one model makes of the histories and of their edits."""

    before: Int  # [n,K] its lists
    gates: Values  # [n,length] how much each item moves the chance of the teacher's first
    attacked: Int  # [n,K]
    aged: Int  # [n,K]


NOTES = {
    "attribution": f"IoU of the {PLACES} items of a history that move the chance of the teacher's first item most",
    "attack transfer": f"another first item without the at most {DROPS} items that change the teacher's",
    "invariance": f"1 - the difference of what losing the {DROPS} oldest items of a history does to the first {{k}}",
}


def habits(
    dataset: Dataset, judged: Judged, who: Asked, how: Measure, log: Log = quiet
) -> tuple[list[Inherited], list[str]]:
    """Return what the student inherits of its teacher's habits, and notes of what could not be said.

    Of a sample of the users of `who`, over held-out histories, which are training and validation.
    """
    why = unread(judged.teacher, judged.student[0])
    ground = None if why else ground_of(dataset, judged, who, how.k)
    if ground is None or not len(ground.who.users):
        return [], [f"{WHAT}: {why or 'nobody has a history of two items'}"]
    done, total = 0, 1 + len(judged.student) + len(judged.scratch)
    log("diagnose histories", done, total, {})
    teacher, edits, listed = _teacher(ground, judged)
    found = dict[str, Mapping[str, Values]]()
    for name, models in {"student": judged.student, "scratch": judged.scratch}.items():
        each = list[Mapping[str, Values]]()
        for fitted in models:
            done += 1
            log("diagnose histories", done, total, {})
            each.append(agreement(_student(ground, fitted, edits, listed), teacher, edits, ground.known, how.k))
        found[name] = {what: np.mean([one[what] for one in each], axis=0) for what in each[0]}
    inherited = list[Inherited]()
    for what, note in NOTES.items():
        student, scratch = found["student"][what], found["scratch"][what]
        if (np.isfinite(student) & np.isfinite(scratch)).any():
            index = transfer_index(student, scratch, times=how.times, seed=how.seed)
            inherited.append(make(Inherited, what=what, note=note.format(k=how.k), **index._asdict()))
    absent = [what for what in NOTES if what not in {one.what for one in inherited}]
    return inherited, [f"{', '.join(absent)}: no history is long enough, or no edit fools the teacher"] * bool(absent)


def unread(teacher: Teacher, student: Fitted) -> str:
    """Return why nobody can say what the models make of a history; empty if they can be asked."""
    if not teacher.models:
        return "the teacher is a file, which cannot be asked about other histories"
    if teacher.folds or len(read_recipe(teacher).members) != 1:
        return "the teacher is several models, of which each looks elsewhere"
    if not history_length(teacher.models[0].spec):
        return "the teacher reads no history"
    return "" if history_length(student.spec) else "the student reads no history"


def ground_of(dataset: Dataset, judged: Judged, who: Asked, k: int) -> Ground:
    """Return whom to ask, about which histories."""
    known = merge(dataset.train, dataset.valid)
    everyone = [judged.teacher.models[0], judged.student[0]]
    length = min(history_length(model.spec) for model in everyone)
    pairs = 2 * RANKER_PAIRS // max(1, dataset.num_items)
    ranks = any(model.spec.kind == "ranker" for model in everyone)
    users = sample(who.users[np.diff(known.indptr)[who.users] > 1], max(FEWEST, pairs) if ranks else USERS)
    asked = unscored(users, max(LISTED, k), known)
    return Ground(dataset=dataset, who=asked, read=Sequences.of(longest(known, length)), length=length)


def _teacher(ground: Ground, judged: Judged) -> tuple[Habits, Edits, Int]:
    """Return the teacher's habits, the edits that they are told by, and the head of its lists."""
    voice = teacher_voice(
        judged.teacher, judged.scratch[0], judged.labels, judged.candidates, ground.dataset, ground.who
    )
    member = read_recipe(judged.teacher).members[0]
    fitted = judged.teacher.models[member.model]
    model = load(fitted.spec, ground.dataset, fitted.artifact.path, member.weights)
    before = ground.lists(voice)
    listed = before[:, :LISTED]
    gates = ground.gates(model, history_length(fitted.spec), listed)
    attack, attacked = flipping(lambda gone: ground.lists(voice, gone), before, gates, ground.known, DROPS)
    edits = Edits(attack, oldest(ground.known, DROPS))
    return Habits(before, gates, attacked, ground.lists(voice, edits.old)), edits, listed


def _student(ground: Ground, fitted: Fitted, edits: Edits, listed: Int) -> Habits:
    voice = student_voice(fitted, ground.dataset, ground.who)
    model = load(fitted.spec, ground.dataset, fitted.artifact.path)
    gates = ground.gates(model, history_length(fitted.spec), listed)
    before, attacked, aged = (ground.lists(voice, gone) for gone in (None, edits.attack, edits.old))
    return Habits(before, gates, attacked, aged)


def agreement(one: Habits, teacher: Habits, edits: Edits, known: Mask, k: int) -> dict[str, Values]:
    """Return how far a model does with histories what the teacher does, [n] each; NaN of whom it says nothing.

    Of a history of no more than PLACES items everybody looks at all of them.
    """
    looked = attribution_iou(np.abs(one.gates), np.abs(teacher.gates), PLACES, known)
    steady = invariance((one.before, one.aged), (teacher.before, teacher.aged), k)
    return {
        "attribution": np.where(known.sum(1) > PLACES, looked, np.nan),
        "attack transfer": attack_transfer(one.before, one.attacked, np.asarray(edits.attack.any(1))),
        "invariance": np.where(edits.old.any(1), steady, np.nan),
    }
