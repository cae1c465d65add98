"""Whom a diagnosis listens to, and on which histories: lists of some users, scores of fewer, and vectors if any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recdistill.data.sequences import Sequences
from recdistill.distill.spec import LabelsSpec
from recdistill.evaluate import merge
from recdistill.heldout import FEWEST, PAIRS, RANKER_PAIRS, Held, sheet
from recdistill.labelling import candidates, lister_of, ready_teacher
from recdistill.labels import open_labels
from recdistill.members import Ready, ready
from recdistill.metrics import hits
from recdistill.models.build import history_length
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted
from recdistill.scoring import ranked
from recdistill.topk import exact_topk
from recdistill.transfer.histories import dropout, places
from recdistill.types import Artifact, Dataset, Float, Int, Interactions, Labels

USERS = 100_000  # whose lists are compared; beyond it they are sampled, seeded
DROPPED = 0.5  # share of a history that an augmented one lacks
SCORED_PAIRS = PAIRS // 2  # two sheets of scores are in memory side by side


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The histories that models read, and what they may not show."""

    name: str  # train: as labels are made; held-out: as at test time; augmented: half of each history is left out
    sequences: Sequences
    seen: Interactions


class Heard(NamedTuple):
    """What a model says on a view."""

    lists: Int  # [n,K] of the users that are compared
    scores: Tensor | None  # [m,I] of the users that are scored, -inf where an item is no candidate
    vectors: tuple[Float, Float] | None  # of an encoder, of all users and items: their inner product is its score


Voice = Callable[[View], Heard]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who is asked: `users` [n] for lists of `depth`, those of `held` [m] for scores, with what is held out of them."""

    users: Int
    held: Held
    depth: int


def asked(dataset: Dataset, depth: int, *, ranker: bool) -> Asked:
    """Return the users with test items, or a seeded sample of them, and fewer whose whole catalogue is scored.

    A ranker's scores cost more than products of vectors, so that fewer users are asked where one is among the models.
    """
    having = np.flatnonzero(np.diff(dataset.test.indptr))
    pairs = (RANKER_PAIRS if ranker else SCORED_PAIRS) // max(1, dataset.num_items)
    users = sample(having, max(FEWEST, 8 * pairs) if ranker else USERS)
    scored = sample(users, max(FEWEST, pairs))
    rows, at = places(dataset.test, scored)
    weight = 1.0 / np.diff(dataset.test.indptr)[scored][rows] / max(len(scored), 1)
    held = Held(
        users=scored,
        rows=rows,
        items=np.asarray(dataset.test.items)[at],
        weight=weight,
        seen=merge(dataset.train, dataset.valid),
    )
    return Asked(users=users, held=held, depth=depth)


def unscored(users: Int, depth: int, seen: Interactions) -> Asked:
    """Return that `users` [n] are asked for lists of `depth` alone."""
    held = Held(users=users[:0], rows=users[:0], items=users[:0], weight=np.zeros(0), seen=seen)
    return Asked(users=users, held=held, depth=depth)


def views(dataset: Dataset, *, reads: bool, seed: int = 23) -> list[View]:
    """Return the views; augmented histories only where some model `reads` a history."""
    known = merge(dataset.train, dataset.valid)
    found = [
        View(name="train", sequences=Sequences.of(dataset.train), seen=dataset.train),
        View(name="held-out", sequences=Sequences.of(known), seen=known),
    ]
    if reads:
        thin = _thinned(dataset.train, np.random.Generator(np.random.Philox(seed)))
        found.append(View(name="augmented", sequences=Sequences.of(thin), seen=dataset.train))
    return found


def student_voice(fitted: Fitted, dataset: Dataset, who: Asked) -> Voice:
    """Return the voice of a trained model, which chooses from the whole catalogue."""

    def voice(view: View) -> Heard:
        made = ready(fitted.spec, fitted.artifact.path, dataset, view.sequences)
        if made.vectors is not None:
            found = exact_topk(*made.vectors, who.depth, seen=view.seen, rows=who.users)
        else:
            found = ranked(made.score, who.users, who.depth, num_items=dataset.num_items, seen=view.seen)
        return Heard(found.items.numpy(), _scores(made, dataset, who, view), made.vectors)

    return voice


def teacher_voice(
    teacher: Teacher, scratch: Fitted, labels: Artifact | None, spec: LabelsSpec, dataset: Dataset, who: Asked
) -> Voice:
    """Return the voice of whoever wrote the labels; a file of scores has said all it can in them."""

    def voice(view: View) -> Heard:
        if not teacher.models:
            assert labels is not None
            return Heard(_unseen(open_labels(labels.path), who, view), None, None)
        choose = candidates(dataset, teacher, scratch, spec, view.sequences, view.seen)
        made = ready_teacher(dataset, teacher, view.sequences, view.seen, whole=choose is None, compute=spec.compute)
        lists = lister_of(made, dataset, teacher, who.depth, view.seen, choose, compute=spec.compute)(who.users).items
        return Heard(lists, _scores(made, dataset, who, view), made.vectors)

    return voice


def reads_history(*models: Fitted) -> bool:
    """Say whether one of `models` reads what users took, beside who they are."""
    return any(history_length(model.spec) > 0 for model in models)


def _scores(made: Ready, dataset: Dataset, who: Asked, view: View) -> Tensor:
    held = Held(users=who.held.users, rows=who.held.rows, items=who.held.items, weight=who.held.weight, seen=view.seen)
    found = sheet(made.score, held, dataset.num_items).scores
    return torch.nan_to_num(found, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _unseen(labels: Labels, who: Asked, view: View) -> Int:
    """Return the labels' lists without what is seen, what is left moved up, -1 at the end."""
    items, _ = labels.take(who.users)
    gone = (items < 0) | hits(items, view.seen, who.users)
    order = np.argsort(gone, axis=1, kind="stable")
    return np.take_along_axis(np.where(gone, -1, items), order, axis=1)[:, : who.depth]


def _thinned(train: Interactions, generator: np.random.Generator) -> Interactions:
    """Return the log with a share of each history left out; users stay who they are."""
    thin = dropout(train, DROPPED, 1, generator)
    counts = np.zeros(train.num_users, np.int64)
    counts[thin.parents[:, 0]] = np.diff(thin.interactions.indptr)
    return Interactions(
        indptr=np.concatenate([[0], np.cumsum(counts)]), items=thin.interactions.items, times=thin.interactions.times
    )


def sample(users: Int, limit: int) -> Int:
    """Return `users` [n], or a seeded sample of `limit` of them, in their order."""
    if len(users) <= limit:
        return users
    return np.sort(np.random.Generator(np.random.Philox(19)).choice(users, limit, replace=False))
