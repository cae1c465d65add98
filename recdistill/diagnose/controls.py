"""What a gain is held against: teachers that lack one thing a teacher has, and how much of the gain they give.

If the lists of other users help as much, it was smoothing; if one list for all does, it was popularity; if a list
without scores does, the scores were not needed. Small students can gain from teachers that say little (Ramesh et al.,
Findings of ACL 2025). Labels are items [n,K], -1 where shorter, and scores [n,K], -inf there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recdistill.diagnose.chances import log_sum
from recdistill.metrics import Values, bootstrap, hits, interval
from recdistill.topk import exact_topk
from recdistill.types import Float, Int, Interactions

NEVER = -1e9  # a score below any logarithm of a chance, of items that no list has


class Told(NamedTuple):
    """Labels in place of a teacher's: items [n,K] and scores [n,K]."""

    items: Int
    scores: Float


class Share(NamedTuple):
    """How much of a gain a control gives, each with its 95% interval over users.

    `share` and its interval are None where the gain's interval holds 0: a share of nothing says nothing.
    """

    gain: float  # distilled - scratch
    gain_low: float
    gain_high: float
    control: float  # control - scratch
    control_low: float
    control_high: float
    share: float | None  # control / gain
    low: float | None
    high: float | None


def strangers(items: Int, seed: int, owners: Int | None = None) -> Int:
    """Return for each row of `items` [n,K] the row whose list it gets, [n]: never its own, and each list once.

    Rows without a list keep having none. `owners` [n] says whose each row is, where one has several: a row gets none
    of its owner's, unless more than half of all are that owner's. ValueError if only one has a list.
    """
    there = np.flatnonzero((items >= 0).any(1))
    whose = there if owners is None else owners[there]
    if len(there) and (whose == whose[0]).all():
        raise ValueError("the lists of other users need another user: give the labels of two or more")
    source = np.arange(len(items))
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(there))
    # Whose come first in that order stand together, so that a step of as many rows as one has leaves them behind.
    place = np.full(int(whose.max(initial=-1)) + 1, len(there))
    np.minimum.at(place, whose[order], np.arange(len(order)))
    order = order[np.argsort(place[whose[order]], kind="stable")]
    step = int(np.bincount(whose).max(initial=1))
    source[there[order]] = there[np.roll(order, step)]  # with a step of 1 one cycle through all of them
    return source


def another_user(items: Int, scores: Float, seed: int) -> Told:
    """Return the labels with every list given to another user, as it is: what its new user has seen stays listed.

    So the chances of each list are those that some user's had, and only whose they are is wrong. Takes and raises what
    `strangers` does, which also says where to take what stands beside the lists.
    """
    source = strangers(items, seed)
    return Told(items[source], scores[source])


class Population(NamedTuple):
    """What a teacher says of everybody; of several blocks of users both add up."""

    mass: Values  # [I] sum over users of the item's chance
    could: Int  # [I] users with a list who may be shown the item


def population(
    items: Int, scores: Float, residual: Values | Float, users: Int, *, num_items: int, seen: Interactions | None
) -> Population:
    """Return the chances that the labels `items`, `scores` [n,K] of `users` [n] give each item, and to how many.

    `residual` [n] is the logsumexp of the teacher's scores outside each list. With `seen`, what a user has seen does
    not count for that user.
    """
    there = items >= 0
    known = there.any(1)
    total = np.logaddexp(log_sum(scores, there), residual)
    chance = np.exp(np.where(there, scores, -np.inf) - np.where(known, total, 0.0)[:, None])
    could = np.full(num_items, known.sum())
    if seen is not None:
        chance = np.where(hits(items, seen, users), 0.0, chance)
        listed = np.zeros(seen.num_users, bool)
        listed[users[known]] = True
        could -= np.bincount(np.asarray(seen.items)[listed[seen.users()]], minlength=num_items)
    mass = np.bincount(items[there], chance[there], minlength=num_items)
    return Population(mass.astype(np.float64, copy=False), could)


def mean_scores(of: Population) -> Float:
    """Return the logarithm of each item's mean chance over those who may be shown it, [I]; NEVER of an unlisted one."""
    never = np.full(len(of.mass), NEVER)
    return np.log(of.mass / np.maximum(of.could, 1), out=never, where=of.mass > 0).astype(np.float32)


def one_list(mean: Float, users: Int, depth: int, *, seen: Interactions | None) -> Told:
    """Return the `depth` best items by `mean` [I] for each of `users` [n], but for what they have seen."""
    everybody = np.ones((users.max(initial=-1) + 1 if seen is None else seen.num_users, 1), np.float32)
    found = exact_topk(everybody, mean[:, None], depth, seen=seen, rows=users)
    best, score = found.items.numpy(), found.scores.numpy()
    kept = (best >= 0) & (score > NEVER)
    return Told(np.where(kept, best, -1), np.where(kept, score, np.float32(-np.inf)))


def population_mean(
    items: Int, scores: Float, residual: Values | Float, users: Int, *, num_items: int, seen: Interactions | None
) -> Told:
    """Return one list for everybody: the mean of the teacher's chances over users, its logarithm as scores.

    Takes what `population` takes. With `seen`, what a user has seen is left out of that user's list, and the mean of an
    item is over the users who have not seen it: what many have seen would fall else. Items in nobody's list are in no
    list here either.
    """
    of = population(items, scores, residual, users, num_items=num_items, seen=seen)
    return one_list(mean_scores(of), users, items.shape[1], seen=seen)


def uniform(items: Int, scores: Float, seed: int) -> Told:
    """Return the labels with one score in each list, its order drawn anew: all that is left is what is listed.

    The score is the logarithm of the mean chance of the list's items, so that list and rest keep their masses.
    """
    there = items >= 0
    keys = np.random.Generator(np.random.Philox(seed)).random(items.shape)
    order = np.argsort(np.where(there, keys, 2.0), axis=1)
    level = log_sum(scores, there) - np.log(np.maximum(there.sum(1), 1))
    return Told(np.take_along_axis(items, order, 1), np.where(there, level[:, None], -np.inf).astype(scores.dtype))


def share_of_gain(scratch: Values, control: Values, distilled: Values, *, times: int, seed: int) -> Share:
    """Return how much of the gain over `scratch` the student of a control has, by paired bootstrap over users.

    Each is a metric's value a user [n], of the same users. Where the gain is surely below 0 it is a share of the loss.
    """
    values = np.stack([scratch, control, distilled], axis=1)
    means = bootstrap(values, times, seed)
    gains, controls = means[:, 2] - means[:, 0], means[:, 1] - means[:, 0]
    (low, high), between = interval(gains), interval(controls)
    at = values.mean(0)
    gain, kept = float(at[2] - at[0]), float(at[1] - at[0])
    if low <= 0 <= high:
        return Share(gain, low, high, kept, *between, None, None, None)
    # In less than 3 of 100 resamples the gain changes sign, and their ratios would jump through infinity.
    same = gains * gain > 0
    return Share(gain, low, high, kept, *between, kept / gain, *interval(controls[same] / gains[same]))
