"""How a trained model meets the catalogue: vectors of an encoder, blocked pair scores of a ranker, lists of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from recdistill.data.sequences import Sequences
from recdistill.models.build import Model
from recdistill.models.encoders import MF, TwoTower
from recdistill.models.lengths import unit
from recdistill.models.lightgcn import LightGCN
from recdistill.models.pairs import PairScorer
from recdistill.models.ranker import Ranker
from recdistill.models.rounding import by_dimension
from recdistill.topk import TopK, blocks, pairs, select, top_items
from recdistill.types import Dataset, Float, Int, Interactions, Past, Vectors

USERS_PER_BLOCK = 8192
PAIRS_OF_PLACES = 2**24  # of a block's histories, which a sequence encoder compares with themselves
SCORES_PER_BLOCK = 16_000_000  # of whole catalogues: 64 MB


@torch.inference_mode()
def vectors(model: Model, dataset: Dataset, sequences: Sequences, history: int) -> Vectors:
    """Return an encoder's vectors of every user and item, by forward over all ids; cosine ones have length 1.

    A user or item without training data has no row of its own to speak of: its vector is that of an unknown one.
    """
    assert not isinstance(model, Ranker)
    model.eval()
    if isinstance(model, LightGCN):  # whose one walk of the graph gives everybody's
        everyone, everything, space = model.all_vectors()
        return Vectors(users=everyone.numpy(), items=everything.numpy(), space=space)
    temperature = 1.0 if model.space == "cosine" else model.temperature
    known = torch.from_numpy(np.diff(dataset.train.indptr) > 0)
    users = []
    for start, stop in blocks(dataset.num_users, max(1, min(USERS_PER_BLOCK, PAIRS_OF_PLACES // max(1, history**2)))):
        rows = torch.arange(start, stop)
        past = sequences.latest(rows, history)
        left, _ = model.vectors(torch.where(known[start:stop], rows, -1), past, rows[:0])
        users.append(unit(left, model.space) / temperature)
    trained = torch.zeros(dataset.num_items, dtype=torch.bool)
    trained[torch.from_numpy(np.array(dataset.train.items))] = True
    rows = torch.arange(dataset.num_items)
    nobody = torch.zeros(0, dtype=torch.int64)
    _, items = model.vectors(
        nobody, Past(items=torch.zeros(0, history, dtype=torch.int64)), torch.where(trained, rows, -1)
    )
    return Vectors(
        users=torch.cat(users).numpy() if users else np.zeros((0, items.shape[1]), np.float32),
        items=unit(items, model.space).numpy(),
        space=model.space,
    )


Chooser = Callable[[Int], Int]
"""Users [n] -> the item rows a ranker scores for each, [n,C], -1 where there are fewer."""

Scorer = Callable[[Int, Tensor | None], Tensor]
"""(users [n], items [n,C], None for the whole catalogue) -> their scores [n,C or I], at -1 whatever comes."""


def encoder_scorer(users: Float, items: Float) -> Scorer:
    """Return the scores of an encoder from vectors whose inner product is its logit."""
    left, right = torch.from_numpy(np.array(users)), torch.from_numpy(np.array(items))

    def score(rows: Int, asked: Tensor | None) -> Tensor:
        mine = left[torch.from_numpy(rows)]
        if asked is None:
            return mine @ right.T
        return torch.bmm(right[asked.clamp(min=0)], mine.unsqueeze(2)).squeeze(2)

    return score


def ranker_scorer(
    model: Ranker, sequences: Sequences, history: int, num_items: int, dtype: torch.dtype = torch.float32
) -> Scorer:
    """Return the scores of a ranker, which reads `history` items of `sequences`, computed in `dtype`."""
    pairs_of = PairScorer(model, num_items, dtype)

    def score(rows: Int, asked: Tensor | None) -> Tensor:
        users = torch.from_numpy(rows)
        return pairs_of(users, sequences.latest(users, history), asked)

    return score


@torch.inference_mode()
def ranked(
    scorer: Scorer, users: Int, k: int, *, num_items: int, seen: Interactions | None, choose: Chooser | None = None
) -> TopK:
    """Return the best `k` of each user's candidates, the whole catalogue if `choose` is None.

    The residual is over the candidates that were scored, not over items nobody looked at.
    """
    found = []
    everything = torch.arange(num_items)
    for start, stop in blocks(len(users), 256 if choose else max(1, min(64, SCORES_PER_BLOCK // num_items))):
        block = users[start:stop]
        items = everything.expand(len(block), -1) if choose is None else torch.from_numpy(choose(block))
        scores = scorer(block, None if choose is None else items).masked_fill(items < 0, -torch.inf)
        if seen is not None:
            scores = mask_seen(scores, items, seen, block, whole=choose is None)
        best = select(scores, k)
        chosen = items.gather(1, best.items.clamp(min=0)).masked_fill(best.items < 0, -1)
        found.append(TopK(best.scores, chosen, best.residual))
    return TopK(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def rank(
    model: Ranker,
    users: Int,
    k: int,
    *,
    sequences: Sequences,
    history: int,
    num_items: int,
    seen: Interactions | None,
    choose: Chooser | None = None,
) -> TopK:
    """Return a ranker's best `k` of each user's candidates: `ranked` by `ranker_scorer`."""
    scorer = ranker_scorer(model, sequences, history, num_items)
    return ranked(scorer, users, k, num_items=num_items, seen=seen, choose=choose)


def mask_seen(scores: Tensor, items: Tensor, seen: Interactions, users: Int, *, whole: bool) -> Tensor:
    """Return `scores` [n,C] of `items` [n,C], -inf where one of `users` [n] has seen it.

    `whole` says that the items are the catalogue in order of row; then `scores` itself is changed.
    """
    at = pairs(seen, users)
    if whole:
        scores[at] = -torch.inf
        return scores
    width = int(max(items.max().item(), at[1].max().item() if len(at[1]) else 0)) + 1
    keys = (at[0] * width + at[1]).sort().values
    wanted = torch.arange(len(users)).unsqueeze(1) * width + items
    if not len(keys):
        return scores
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return scores.masked_fill(keys[place] == wanted, -torch.inf)


@torch.inference_mode()
def recommend(
    model: Model, dataset: Dataset, users: Int, k: int, *, sequences: Sequences, history: int, seen: Interactions
) -> Int:
    """Return each user's best `k` unseen items over the whole catalogue, [n,k], -1 where there are fewer."""
    if isinstance(model, Ranker):
        size = dataset.num_items
        return rank(model, users, k, sequences=sequences, history=history, num_items=size, seen=seen).items.numpy()
    found = as_rounded(vectors(model, dataset, sequences, history), model)
    return top_items(found.users, found.items, k, seen=seen, rows=users)


def as_rounded(found: Vectors, model: Model) -> Vectors:
    """Return the vectors of `model` with its items as fewer bits keep them, if it was trained to be served so."""
    bits = model.bits if isinstance(model, MF | TwoTower) else 0
    if not bits:
        return found
    return replace(found, items=by_dimension(torch.from_numpy(np.array(found.items)), bits).numpy())


def narrowed(found: Vectors, width: int) -> Vectors:
    """Return the student that the first `width` numbers of vectors are: in cosine space each at length 1 by itself."""
    sides = (torch.from_numpy(np.array(side[:, :width])) for side in (found.users, found.items))
    users, items = (unit(side, found.space).numpy() for side in sides)
    return Vectors(users=users, items=items, space=found.space)


def scaled(found: Vectors, temperature: float) -> tuple[Float, Float]:
    """Return (users, items) whose inner product is the model's logit: cosine vectors lack the temperature."""
    return (found.users / np.float32(temperature) if found.space == "cosine" else found.users), found.items
