"""Candidates: which, each once, with which probability; and what they say of the items that were not scored."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from recdistill.candidates import Chosen, chooser, inclusion, logq_of, once, sampled, splitmix, uniform, unlisted
from recdistill.distill.spec import CandidatesSpec
from recdistill.types import Dataset, Interactions

USERS, ITEMS, DIM, EACH = 40, 30, 6, 5
RNG = np.random.default_rng(17)
LEFT = RNG.normal(size=(USERS, DIM)).astype(np.float32)
RIGHT = RNG.normal(size=(ITEMS, DIM)).astype(np.float32)
# Items are taken the more often the smaller their row, so that what is popular is known.
TAKEN = [sorted(RNG.choice(ITEMS, EACH, replace=False, p=np.arange(ITEMS, 0, -1) / 465).tolist()) for _ in range(USERS)]
TRAIN = Interactions(indptr=np.arange(0, USERS * EACH + 1, EACH), items=np.array(TAKEN).ravel())
NOTHING = Interactions(indptr=np.zeros(USERS + 1, np.int64), items=np.zeros(0, np.int64))
DATA = Dataset(
    user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=TRAIN, valid=NOTHING, test=NOTHING
)
EVERYONE = np.arange(USERS)


def picked(spec, users=EVERYONE, seen=TRAIN):
    choose = chooser(spec, DATA, (LEFT, RIGHT), seen)
    assert choose is not None
    chosen = choose.pick(users)
    np.testing.assert_array_equal(choose(users), chosen.items)
    return [
        [(item, logq) for item, logq in zip(*row, strict=True) if item >= 0]
        for row in zip(chosen.items.tolist(), chosen.logq.tolist(), strict=True)
    ]


def candidates(spec, users=EVERYONE, seen=TRAIN):
    return [[item for item, _ in row] for row in picked(spec, users, seen)]


def test_candidates_are_near_popular_and_uniform_each_once():
    rows = picked(CandidatesSpec(ann=5, popular=4, uniform=3))
    logits = LEFT.astype(np.float64) @ RIGHT.astype(np.float64).T
    counts = np.bincount(TRAIN.items, minlength=ITEMS)
    popular = sorted(range(ITEMS), key=lambda item: (-counts[item], item))[:4]
    drawn = 0
    for user, row in enumerate(rows):
        items = [item for item, _ in row]
        assert len(items) == len(set(items)) <= 12
        near = sorted(set(range(ITEMS)) - set(TAKEN[user]), key=lambda item: -logits[user, item])[:5]
        certain = set(near) | set(popular)
        assert certain <= set(items)
        for item, logq in row:
            # Three draws of thirty miss an item with probability (29/30)^3; what would be there anyway is certain.
            assert logq == pytest.approx(0 if item in certain else np.log(1 - (29 / 30) ** 3), abs=1e-6)
        drawn += len(set(items) - certain)
    assert drawn > USERS  # of 3 a user, some fall on the others


def test_uniform_candidates_are_uniform():
    spec = CandidatesSpec(ann=0, popular=0, uniform=20)
    counts = np.bincount([item for row in candidates(spec) for item in row], minlength=ITEMS)
    # 20 draws of 30 with repetition take an item with probability 1 - (29/30)^20 = 0.492, so 19.7 of 40 users do.
    assert abs(counts.mean() - 19.7) < 1.5
    assert counts.min() > 6
    assert counts.max() < 34


def test_candidates_of_a_user_do_not_depend_on_who_is_asked_with_it():
    spec = CandidatesSpec(ann=4, popular=2, uniform=6)
    together = picked(spec)
    assert picked(spec) == together
    assert [picked(spec, np.array([user]))[0] for user in (0, 9, 39)] == [together[user] for user in (0, 9, 39)]
    assert picked(spec, EVERYONE[::-1].copy()) == together[::-1]


def test_candidates_that_cover_the_catalogue_are_the_catalogue():
    assert chooser(None, DATA, None, TRAIN) is None
    assert chooser(CandidatesSpec(ann=10, popular=10, uniform=10), DATA, (LEFT, RIGHT), TRAIN) is None
    assert chooser(CandidatesSpec(ann=10, popular=10, uniform=9), DATA, (LEFT, RIGHT), TRAIN) is not None


def test_what_comes_twice_is_kept_with_its_first_probability():
    items, logq = np.array([[5, -1, 2, 5, 2, 2]]), np.array([[0, 0, 0, -1, -1, -1]], np.float32)
    found = once(items, logq)
    assert [(i, q) for i, q in zip(found.items[0], found.logq[0], strict=True) if i >= 0] == [(2, 0.0), (5, 0.0)]
    assert found.items[0].tolist() == [-1, -1, -1, -1, 2, 5]


def test_the_probability_of_a_draw_by_enumeration():
    """All 4^3 outcomes of three draws from four items."""
    outcomes = list(itertools.product(range(4), repeat=3))
    assert inclusion(3, 4) == pytest.approx(np.log(sum(2 in o for o in outcomes) / len(outcomes)), abs=1e-6)
    assert (inclusion(5, 1), inclusion(0, 9)) == (0.0, -np.inf)
    # Where draws are few among many items, it is their share: no digit is lost to 1 - (1 - tiny).
    assert inclusion(100, 100_000_000) == pytest.approx(np.log(1e-6), abs=1e-5)


def test_probabilities_follow_their_items():
    chosen = Chosen(np.array([[-1, 0, 7], [1, 4, 7]]), np.array([[0, -1, -2], [-3, -4, -5]], np.float32))
    assert logq_of(chosen, np.array([[7, 0, -1, -1], [4, 7, 1, -1]])).tolist() == [[-2, -1, 0, 0], [-4, -5, -3, 0]]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_residual_is_right_on_average(depth):
    """Over all outcomes of the draws, weighed by nothing as all are alike, of two certain and three drawn items.

    What is outside a list depends on the list, so the average of the true masses is what the estimates must meet.
    """
    scores = np.log(np.array([3.0, 1.0, 7.0, 2.0, 5.0]))  # of a catalogue of five; items 0 and 1 are always scored
    draws, estimated, true = 3, [], []
    for outcome in itertools.product(range(5), repeat=draws):
        there = sorted({0, 1, *outcome}, key=lambda item: -scores[item])
        logq = [0.0 if item < 2 else np.log(1 - (4 / 5) ** draws) for item in there]
        pad = [0.0] * (5 - len(there))
        row = np.array([[*scores[there], *(-np.inf for _ in pad)]], np.float32)
        estimated.append(np.exp(unlisted(row, np.array([[*logq, *pad]], np.float32), depth)[0]))
        true.append(18.0 - np.exp(scores[there[:depth]]).sum())
    assert np.mean(estimated) == pytest.approx(np.mean(true), rel=1e-6)
    assert np.std(estimated) > 0.5  # an estimate, and no constant


def test_the_residual_of_what_is_certain_is_exact():
    scores = -np.sort(-np.random.default_rng(2).normal(size=(3, 50)) * 20).astype(np.float32)
    found = unlisted(scores, np.zeros_like(scores), 10)
    np.testing.assert_allclose(found, np.log(np.exp(scores[:, 10:].astype(np.float64)).sum(1)), rtol=1e-6)
    assert np.isneginf(unlisted(scores[:, :10], np.zeros((3, 10), np.float32), 10)).all()


def test_the_sampled_rest_is_uniform_and_says_so():
    """Four of six items each, of two hundred users; what was drawn before has both probabilities."""
    items = np.tile(np.array([3, 8, -1, 9, 11, 20, 21]), (2000, 1))
    scores, logq = items.astype(np.float32), np.where(items > 10, np.float32(-1), np.float32(0))
    users = np.arange(2000)
    found, said, kept = sampled(items, scores, logq, users, 4, 30)
    assert found.shape == said.shape == kept.shape == (2000, 4)
    np.testing.assert_array_equal(said, found)
    np.testing.assert_allclose(kept, np.log(4 / 6) + np.where(found > 10, -1, 0), rtol=1e-6)
    assert all(len(set(row)) == 4 for row in found.tolist())
    counts = np.bincount(found.ravel(), minlength=30)[[3, 8, 9, 11, 20, 21]]
    # 4/6 of 2000 users, with a standard deviation of 21.
    assert abs(counts - 2000 * 4 / 6).max() < 85
    alone = sampled(items[:1], scores[:1], logq[:1], users[[7]], 4, 30)[0]
    assert alone[0].tolist() == found[7].tolist()


def test_a_rest_that_is_smaller_than_its_sample_is_all_there():
    items = np.array([[-1, 4, -1], [-1, -1, -1]])
    scores, logq = np.where(items < 0, -np.inf, 2.5).astype(np.float32), np.full((2, 3), -0.5, np.float32)
    found, said, kept = sampled(items, scores, logq, np.array([0, 5]), 4, 9)
    assert found.tolist() == [[4, -1, -1, -1], [-1] * 4]
    assert said[0].tolist() == [2.5, -np.inf, -np.inf, -np.inf]
    assert kept.tolist() == [[-0.5, 0, 0, 0], [0] * 4]


def test_streams_differ():
    assert not np.array_equal(uniform(EVERYONE, 8, 1000), uniform(EVERYONE, 8, 1000, stream=5))


def test_splitmix_is_the_published_one():
    """The first outputs of SplitMix64 from state 0, as its reference implementation prints them."""
    assert [hex(v) for v in splitmix(np.array([1, 2, 3]))] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]
