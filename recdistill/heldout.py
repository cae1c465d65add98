"""What no teacher has learned from, as a place to judge teachers: users, what they took, what could have been shown.

Either the validation part, or, with folds, the training interactions of each fold for the models that lack it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recdistill.errors import StageError
from recdistill.folds import Fold, lacking, only
from recdistill.mixture import Real
from recdistill.scoring import Scorer, mask_seen
from recdistill.topk import blocks
from recdistill.types import Dataset, Int, Interactions

PAIRS = 32_000_000  # scores of one member that are kept at a time: 128 MB
RANKER_PAIRS = 4_000_000
FEWEST = 64  # users, however large the catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Some users and what is held out of them; `seen` is never a candidate. Every user counts as much."""

    users: Int  # [n]
    rows: Int  # [p] place in `users` of each held-out interaction
    items: Int  # [p]
    weight: Real  # [p]; over all of a judgement they sum to 1
    seen: Interactions


class Sheet(NamedTuple):
    """The scores of the whole catalogue for the users of a `Held`, -inf where an item is no candidate."""

    scores: Tensor  # [n,I]
    held: Held


def held_out(dataset: Dataset, folds: int, *, ranker: bool) -> list[Held]:
    """Return what to judge by: the validation part as one, or each of `folds`; a seeded sample of users of each.

    Raises StageError if nothing is held out.
    """
    limit = max(FEWEST, (RANKER_PAIRS if ranker else PAIRS) // max(1, dataset.num_items) // max(1, folds))
    parts = [(dataset.valid, dataset.train)]
    if folds:
        parts = [(only(dataset, Fold(k, folds)), lacking(dataset, Fold(k, folds)).train) for k in range(folds)]
    chosen = [_sample(taken, limit) for taken, _ in parts]
    total = sum(len(users) for users in chosen)
    if not total:
        what = "the validation part is empty, so there is nothing to judge teachers by"
        raise StageError(what, where="teacher", fix="raise split.valid_fraction, or set teacher.folds")
    return [_held(users, *part, total) for users, part in zip(chosen, parts, strict=True)]


def _sample(taken: Interactions, limit: int) -> Int:
    users = np.flatnonzero(np.diff(taken.indptr))
    if len(users) <= limit:
        return users
    return np.sort(np.random.Generator(np.random.Philox(17)).choice(users, limit, replace=False))


def _held(users: Int, taken: Interactions, seen: Interactions, total: int) -> Held:
    count = np.diff(taken.indptr)[users]
    rows = np.repeat(np.arange(len(users)), count)
    at = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(taken.indptr[users], count)
    weight = 1.0 / np.repeat(count, count) / total
    return Held(users=users, rows=rows, items=np.array(taken.items)[at], weight=weight, seen=seen)


@torch.inference_mode()
def sheet(scorer: Scorer, held: Held, num_items: int) -> Sheet:
    """Return all scores of the users of `held`, block by block of users."""
    scores = torch.empty(len(held.users), num_items)
    everything = torch.arange(num_items)
    for start, stop in blocks(len(held.users), max(1, min(64, 8 * rows_at_once(scores)))):
        block = held.users[start:stop]
        found = scorer(block, None)
        scores[start:stop] = mask_seen(found, everything.expand(len(block), -1), held.seen, block, whole=True)
    return Sheet(scores, held)


@torch.inference_mode()
def chances(sheets: Sequence[Sheet], temperature: float) -> Real:
    """Return log p of every held-out interaction at `temperature`, [p]: log-softmax over the candidates.

    -inf where the teacher has no score for it.
    """
    found = []
    for scores, held in sheets:
        rows, items = torch.from_numpy(held.rows), torch.from_numpy(held.items)
        whole = torch.empty(len(scores), dtype=torch.float64)
        for start, stop in blocks(len(scores), rows_at_once(scores)):
            whole[start:stop] = (scores[start:stop].double() / temperature).logsumexp(1)
        mine = scores[rows, items].double() / temperature
        found.append(torch.where(torch.isfinite(mine), mine - whole[rows], -torch.inf).numpy())
    return np.concatenate(found)


def weights(held: Sequence[Held]) -> Real:
    """Return what each held-out interaction counts for, [p], in the order of `chances`."""
    return np.concatenate([one.weight for one in held])


def rows_at_once(scores: Tensor) -> int:
    """Return how many rows of `scores` to turn into doubles at once."""
    return max(1, 2_000_000 // max(1, scores.shape[1]))
