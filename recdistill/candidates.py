"""Which items a teacher scores where it cannot score them all, and what those say of the ones it did not score.

An item of the catalogue is among `n` uniform draws with repetition from `I` items with probability
q = 1 - (1 - 1/I)^n. A sum over the catalogue is then estimated without bias by the same sum over what was scored, each
term divided by its item's q; what is always scored has q = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recdistill.distill.spec import CandidatesSpec
from recdistill.topk import top_items
from recdistill.types import Dataset, Float, Int, Interactions

REST = 0x5DEECE66D  # the stream of the sampled rest, so that it is not that of the candidates
LAST = np.uint64(2**63)  # a key beyond all others


class Chosen(NamedTuple):
    """The items that are scored for `n` users, each once, in order of row; -1 first, where there are fewer."""

    items: Int  # [n,C]
    logq: Float  # [n,C] log-probability that the item was to be scored, 0 where certain


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates of each user: called for the items alone, `pick` gives their probabilities too."""

    pick: Callable[[Int], Chosen]

    def __call__(self, users: Int) -> Int:
        """Return the items [n,C] that are scored for `users` [n]."""
        return self.pick(users).items


def chooser(
    spec: CandidatesSpec | None, dataset: Dataset, vectors: tuple[Float, Float] | None, seen: Interactions
) -> Pool | None:
    """Return the candidates of a ranker: nearest by `vectors`, popular and uniform items, each once; None means all.

    The uniform items of a user are drawn by the user's own row, so that shards do not depend on each other.
    """
    if spec is None or spec.ann + spec.popular + spec.uniform >= dataset.num_items:
        return None
    popular = np.argsort(-np.bincount(dataset.train.items, minlength=dataset.num_items), kind="stable")[: spec.popular]

    def pick(users: Int) -> Chosen:
        parts = [np.broadcast_to(popular, (len(users), len(popular)))]  # what is certain comes before what is drawn
        if spec.ann and vectors is not None:
            parts.append(top_items(*vectors, spec.ann, seen=seen, rows=users))
        certain = sum(part.shape[1] for part in parts)
        parts.append(uniform(users, spec.uniform, dataset.num_items))
        items = np.concatenate(parts, axis=1)
        drawn = np.broadcast_to(np.arange(items.shape[1]) >= certain, items.shape)
        logq = np.where(drawn, inclusion(spec.uniform, dataset.num_items), np.float32(0))
        return once(items, logq)

    return Pool(pick)


def with_own(choose: Pool, train: Interactions) -> Pool:
    """Return the candidates of `choose` and, certainly, each user's own interactions of `train`."""

    def pick(users: Int) -> Chosen:
        chosen, count = choose.pick(users), np.diff(train.indptr)[users]
        own = np.full((len(users), int(count.max(initial=0))), -1, np.int64)
        kept = np.arange(own.shape[1]) < count[:, None]
        own[kept] = train.items[(train.indptr[users][:, None] + np.arange(own.shape[1]))[kept]]
        logq = np.concatenate([np.zeros(own.shape, np.float32), chosen.logq], axis=1)
        return once(np.concatenate([own, chosen.items], axis=1), logq)

    return Pool(pick)


def once(items: Int, logq: Float) -> Chosen:
    """Return `items` [n,C] by row, each once, with the `logq` [n,C] of the first of its columns."""
    for _ in range(2):  # sorted, what comes again is taken out, and sorted again: -1 comes first
        order = np.argsort(items, axis=1, kind="stable")
        items, logq = np.take_along_axis(items, order, 1), np.take_along_axis(logq, order, 1)
        items[:, 1:][items[:, 1:] == items[:, :-1]] = -1
    return Chosen(items, logq)


def uniform(users: Int, draws: int, num_items: int, stream: int = 0) -> Int:
    """Return `draws` uniform items of the catalogue for each of `users` [n], with repetition: [n,draws]."""
    key = users[:, None] * np.int64(draws) + np.arange(draws)
    return (splitmix(key ^ np.int64(stream)) % np.uint64(num_items)).astype(np.int64)


def inclusion(draws: int, num_items: int) -> np.float32:
    """Return the log-probability that an item is among `draws` uniform draws with repetition; -inf of none."""
    with np.errstate(divide="ignore"):
        return np.float32(np.log(-np.expm1(draws * np.log1p(-1 / num_items)) if num_items > 1 else min(draws, 1)))


def logq_of(chosen: Chosen, items: Int) -> Float:
    """Return the log-probabilities of `items` [n,K], each of which is one of `chosen`; 0 where there is none, -1."""
    width = int(max(chosen.items.max(initial=0), 0)) + 2
    row = np.arange(len(items))[:, None] * width + 1  # sorted within a row, so that all keys are sorted
    at = np.searchsorted((chosen.items + row).ravel(), (items + row).ravel()).reshape(items.shape)
    return np.where(items < 0, np.float32(0), chosen.logq.ravel()[np.minimum(at, chosen.logq.size - 1)])


def unlisted(scores: Float, logq: Float, depth: int) -> Float:
    """Return the log of the estimated mass, sum of exp(score), of the catalogue outside a list of `depth`: [n].

    scores [n,C] are of what was scored, best first, -inf where there are fewer; logq [n,C]. The list itself counts too:
    an item of it that was drawn stands for 1/q items, of which 1/q - 1 are not in the list.
    """
    exact, unsure = scores.astype(np.float64), -logq.astype(np.float64)
    with np.errstate(divide="ignore"):
        of_list = exact[:, :depth] + np.log(np.expm1(unsure[:, :depth]))
    terms = np.concatenate([of_list, exact[:, depth:] + unsure[:, depth:]], axis=1)
    return np.logaddexp.reduce(terms, axis=1, initial=-np.inf).astype(np.float32)


def sampled(items: Int, scores: Float, logq: Float, users: Int, size: int, num_items: int) -> tuple[Int, Float, Float]:
    """Return a uniform sample of `size` of what was scored for `users` [n]: items, scores, log-probabilities [n,size].

    items [n,C], -1 where there is none; scores and logq [n,C]. What a user's sample is depends on its row alone.
    """
    keys = splitmix((users[:, None] * np.int64(num_items) + items) ^ np.int64(REST)) >> np.uint64(1)
    keys[items < 0] = LAST
    if items.shape[1] < size:
        short = ((0, 0), (0, size - items.shape[1]))
        items, keys = np.pad(items, short, constant_values=-1), np.pad(keys, short, constant_values=LAST)
        scores, logq = np.pad(scores, short, constant_values=-np.inf), np.pad(logq, short)
    order = np.argsort(keys, axis=1, kind="stable")[:, :size]
    found = np.take_along_axis(items, order, 1)
    share = np.minimum(1, size / np.maximum((items >= 0).sum(1, keepdims=True), 1))
    kept = np.where(found < 0, 0, np.take_along_axis(logq, order, 1) + np.log(share)).astype(np.float32)
    return found, np.where(found < 0, -np.inf, np.take_along_axis(scores, order, 1)).astype(np.float32), kept


def splitmix(keys: Int) -> NDArray[np.uint64]:
    """Return a well-mixed 64-bit hash of each of `keys` (SplitMix64, Steele et al., OOPSLA 2014)."""
    z = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
