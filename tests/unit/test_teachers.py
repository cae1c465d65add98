"""What a teacher says, against brute force in float64: an encoder's lists and residual, a ranker's, its candidates."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from recdistill import teachers
from recdistill.candidates import Chosen, Pool, chooser, once
from recdistill.data.sequences import Sequences
from recdistill.distill.spec import CandidatesSpec
from recdistill.models.build import build
from recdistill.models.encoders import Group
from recdistill.models.spec import RankerSpec
from recdistill.models.tables import PlainTable
from recdistill.scoring import ranker_scorer
from recdistill.teachers import encoder_lister, scored_lister
from recdistill.types import Dataset, Interactions

USERS, ITEMS, DIM, EACH = 40, 30, 6, 5
RNG = np.random.default_rng(17)
LEFT = RNG.normal(size=(USERS, DIM)).astype(np.float32)
RIGHT = RNG.normal(size=(ITEMS, DIM)).astype(np.float32)
# Items are taken the more often the smaller their row, so that what is popular is known.
TAKEN = [sorted(RNG.choice(ITEMS, EACH, replace=False, p=np.arange(ITEMS, 0, -1) / 465).tolist()) for _ in range(USERS)]


def interactions(lists: list[list[int]]) -> Interactions:
    flat = np.array([item for one in lists for item in one], np.int64)
    return Interactions(
        indptr=np.cumsum([0, *map(len, lists)]).astype(np.int64), items=flat, times=np.arange(len(flat))
    )


TRAIN = interactions(TAKEN)
NOTHING = interactions([[]] * USERS)
DATA = Dataset(
    user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=TRAIN, valid=NOTHING, test=NOTHING
)
EVERYONE = np.arange(USERS)


def by_hand(logits, depth, allowed):
    """Yield lists, scores and residual of float64 `logits` over the `allowed` items of each user."""
    for row, scores in enumerate(logits):
        order = sorted(allowed[row], key=lambda item: (-scores[item], item))
        rest = [scores[item] for item in order[depth:]]
        residual = np.log(np.sum(np.exp(rest))) if rest else -np.inf
        yield order[:depth], scores[order[:depth]], residual


def assert_lists(found, wanted):
    for row, (items, scores, residual) in enumerate(wanted):
        short = found.items.shape[1] - len(items)
        assert found.items[row].tolist() == items + [-1] * short
        np.testing.assert_allclose(found.scores[row, : len(items)], scores, rtol=0, atol=2e-5)
        assert np.isneginf(found.scores[row, len(items) :]).all()
        np.testing.assert_allclose(found.residual[row], residual, rtol=0, atol=2e-5)


@pytest.mark.parametrize("depth", [1, 8, 25, 30, 34])
@pytest.mark.parametrize("seen", [TRAIN, None])
def test_an_encoder_s_lists_and_what_they_leave_out(depth, seen):
    logits = LEFT.astype(np.float64) @ RIGHT.astype(np.float64).T
    own = TAKEN if seen is not None else [[]] * USERS
    allowed = [[item for item in range(ITEMS) if item not in mine] for mine in own]
    found = encoder_lister(LEFT, RIGHT, depth, seen)(EVERYONE)
    assert_lists(found, by_hand(logits, depth, allowed))


@pytest.fixture(scope="module")
def ranker():
    spec = RankerSpec(dim=4, heads=2, cross_layers=1, hidden=(8,), history=3)
    model = build(spec, DATA, PlainTable, seed=2)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():  # a plain table starts as zeros, whose scores would all be equal
        for table in (model.user.table, model.item.table):
            table.weight.copy_(torch.randn(table.weight.shape, generator=generator))
    return model.eval()


def logits_of(ranker):
    users = torch.arange(USERS)
    past = Sequences.of(TRAIN).latest(users, 3)
    assert past.items.tolist() == [mine[-3:] for mine in TAKEN]
    with torch.inference_mode():
        return ranker.score(users, past, [Group(torch.arange(ITEMS).expand(USERS, -1))])[0].double().numpy()


@pytest.mark.parametrize("seen", [TRAIN, None])
@pytest.mark.parametrize("some", [True, False])
def test_a_ranker_s_lists_are_of_its_candidates(ranker, seen, some):
    """The residual is over what was scored: the candidates, not the catalogue."""
    picked = [[7 * (user + n) % ITEMS for n in range(12)] for user in range(USERS)]
    table = np.full((USERS, 14), -1)  # -1: a user with fewer candidates
    table[:, 1:13] = picked
    own = TAKEN if seen is not None else [[]] * USERS
    pool = picked if some else [range(ITEMS)] * USERS
    allowed = [[item for item in set(items) if item not in mine] for items, mine in zip(pool, own, strict=True)]
    lister = scored_lister(
        ranker_scorer(ranker, Sequences.of(TRAIN), 3, ITEMS),
        ITEMS,
        6,
        seen=seen,
        choose=Pool(lambda users: once(table[users], np.zeros((len(users), 14), np.float32))) if some else None,
    )
    assert_lists(lister(EVERYONE), by_hand(logits_of(ranker), 6, allowed))


def scores_of(users, items):
    """Return a scorer of float64 made-up logits, which also works out what it is asked for."""
    logits = torch.from_numpy((LEFT.astype(np.float64) @ RIGHT.astype(np.float64).T).astype(np.float32))
    return logits[users] if items is None else logits[users].gather(1, items.clamp(min=0))


CANDIDATES = chooser(CandidatesSpec(ann=4, popular=3, uniform=8), DATA, (LEFT, RIGHT), TRAIN)
WAYS = {
    "encoder": lambda rest: encoder_lister(LEFT, RIGHT, 6, TRAIN, rest=rest),
    "scorer": lambda rest: scored_lister(scores_of, ITEMS, 6, seen=TRAIN, rest=rest),
    "candidates": lambda rest: scored_lister(scores_of, ITEMS, 6, seen=TRAIN, choose=CANDIDATES, rest=rest),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_rest_is_scored_and_in_no_list(way):
    found, plain = WAYS[way](7)(EVERYONE), WAYS[way](0)(EVERYONE)
    assert plain.rest_items is plain.rest_scores is plain.rest_logq is None
    for name in ("items", "scores", "residual"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    logits = LEFT.astype(np.float64) @ RIGHT.astype(np.float64).T
    drawn = []
    for user in range(USERS):
        rest = [item for item in found.rest_items[user].tolist() if item >= 0]
        drawn += rest
        assert len(set(rest)) == len(rest)
        assert not set(rest) & {*found.items[user].tolist(), *TAKEN[user]}
        there = found.rest_items[user] >= 0
        np.testing.assert_allclose(found.rest_scores[user][there], logits[user, rest], atol=2e-5)
        assert np.isneginf(found.rest_scores[user][~there]).all()
        if way != "candidates":
            np.testing.assert_allclose(found.rest_logq[user][there], np.log(1 - (29 / 30) ** 7), rtol=1e-5)
    assert len(set(drawn)) > 25  # all of the catalogue, and not a corner of it
    assert len(drawn) > 3 * USERS


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at_once", [1, 7, 4096])
def test_what_is_said_of_a_user_does_not_depend_on_the_others(way, at_once, monkeypatch):
    """Which items these are does not; a score may, in its last bit, where a matrix product has another shape."""
    whole = WAYS[way](5)(EVERYONE)
    monkeypatch.setattr(teachers, "USERS_AT_ONCE", at_once)
    some = np.array([31, 2, 8, 9, 30])
    found = WAYS[way](5)(some)
    for ours, theirs in zip(found, whole, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs[some], rtol=1e-6 if ours.dtype == np.float32 else 0)


def test_candidates_give_the_probability_that_an_item_was_scored():
    found = WAYS["candidates"](0)(EVERYONE)
    counts = np.bincount(TRAIN.items, minlength=ITEMS)
    popular = np.argsort(-counts, kind="stable")[:3].tolist()
    logits = LEFT.astype(np.float64) @ RIGHT.astype(np.float64).T
    for user in range(USERS):
        near = sorted(set(range(ITEMS)) - set(TAKEN[user]), key=lambda item: -logits[user, item])[:4]
        for item, logq in zip(found.items[user].tolist(), found.logq[user].tolist(), strict=True):
            certain = item < 0 or item in near or item in popular
            assert logq == pytest.approx(0 if certain else np.log(1 - (29 / 30) ** 8), abs=1e-5)


def test_the_residual_of_candidates_estimates_that_of_the_catalogue():
    """The average over many draws, of one user with one list of certain items, meets the mass of all others."""
    logits = LEFT[:1].astype(np.float64) @ RIGHT.astype(np.float64).T
    order = np.argsort(-logits[0])
    logq = np.log(1 - (29 / 30) ** 10)
    rng, found = np.random.default_rng(3), []

    def scorer(users, items):
        return torch.from_numpy(logits.astype(np.float32)).expand(len(users), -1).gather(1, items.clamp(min=0))

    def pick(users):
        items = np.concatenate([np.tile(order[:5], (len(users), 1)), rng.integers(0, ITEMS, (len(users), 10))], axis=1)
        return once(items, np.broadcast_to(np.where(np.arange(15) < 5, 0, logq), items.shape).astype(np.float32))

    lister = scored_lister(scorer, ITEMS, 5, seen=None, choose=Pool(pick))
    found = np.exp(lister(np.arange(4000)).residual.astype(np.float64))
    true = np.exp(logits[0, order[5:]]).sum()
    assert abs(found.mean() - true) < 4 * found.std() / np.sqrt(len(found))
    assert found.std() < true


def test_an_encoder_s_residual_is_exact_over_a_large_catalogue():
    """Against float64, where the list holds a small part of the mass and where it holds nearly all of it."""
    rng = np.random.default_rng(8)
    users, items = rng.normal(size=(5, 16)).astype(np.float32), rng.normal(size=(20_000, 16)).astype(np.float32)
    for scale in (0.1, 1.0, 4.0):
        left = (users * np.float32(scale)).astype(np.float32)
        logits = np.sort(left.astype(np.float64) @ items.astype(np.float64).T, axis=1)[:, ::-1]
        found = encoder_lister(left, items, 100, None)(np.arange(5))
        np.testing.assert_allclose(found.residual, np.logaddexp.reduce(logits[:, 100:], axis=1), atol=1e-4)


def test_candidates_without_draws_know_only_what_they_scored():
    chosen = Chosen(np.tile(np.arange(8), (USERS, 1)), np.zeros((USERS, 8), np.float32))
    pool = Pool(lambda users: Chosen(chosen.items[users], chosen.logq[users]))
    found = scored_lister(scores_of, ITEMS, 3, seen=None, choose=pool)(EVERYONE)
    logits = LEFT.astype(np.float64) @ RIGHT.astype(np.float64).T
    rest = np.sort(logits[:, :8], axis=1)[:, :5]
    np.testing.assert_allclose(found.residual, np.log(np.exp(rest).sum(1)), atol=1e-5)
