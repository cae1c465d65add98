"""Controls keep what they should and lose what they should; shares of a gain are said only of a gain."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.diagnose.chances import log_softmax, log_sum
from recdistill.diagnose.controls import another_user, population_mean, share_of_gain, strangers, uniform
from recdistill.types import Interactions


def labels(seed=0, n=40, k=5, num_items=15):
    """Return lists by score, and the logsumexp of what is not listed; row 3 has no list, row 4 a short one."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, num_items))
    order = np.argsort(-scores, axis=1)
    items, listed = order[:, :k].copy(), np.take_along_axis(scores, order[:, :k], 1).astype(np.float32)
    rest = np.take_along_axis(scores, order[:, k:], 1)
    items[3], listed[3], items[4, 2:], listed[4, 2:] = -1, -np.inf, -1, -np.inf
    return items, listed, np.log(np.exp(rest).sum(1)), scores


def entropies(items, scores):
    logs = log_softmax(scores, items >= 0)
    return -(np.exp(logs) * np.where(items >= 0, logs, 0)).sum(1)


def test_everybody_gets_somebody_elses_list():
    items, scores, _, _ = labels()
    source = strangers(items, 1)
    assert sorted(source) == list(range(40))
    assert np.flatnonzero(source == np.arange(40)).tolist() == [3]  # who has no list keeps none
    told = another_user(items, scores, 1)
    np.testing.assert_array_equal(told.items, items[source])
    np.testing.assert_array_equal(told.scores, scores[source])
    assert (strangers(items, 2) != source).any()


def test_strangers_lists_are_just_as_sure():
    items, scores, _, _ = labels()
    told = another_user(items, scores, 1)
    np.testing.assert_array_equal(np.sort(entropies(*told)), np.sort(entropies(items, scores)))
    assert not np.array_equal(told.items, items)


def test_a_lonely_list_has_no_stranger():
    items = np.array([[-1, -1], [2, 1]])
    with pytest.raises(ValueError, match="two or more"):
        strangers(items, 0)
    assert strangers(items[:1], 0).tolist() == [0]


@pytest.mark.parametrize("seed", range(5))
def test_two_users_change_places(seed):
    assert strangers(np.array([[0], [1]]), seed).tolist() == [1, 0]


def test_the_population_mean_is_the_mean_of_softmaxes():
    items, listed, residual, scores = labels(n=30)
    told = population_mean(items, listed, residual, np.arange(30), num_items=15, seen=None)
    mean = np.zeros(15)
    for user in range(30):
        for item, score in zip(items[user], listed[user], strict=True):
            if item >= 0:
                total = np.exp(listed[user][items[user] >= 0].astype(np.float64)).sum() + np.exp(residual[user])
                mean[item] += np.exp(float(score)) / total / 29
    best = np.argsort(-mean)[:5]
    assert (told.items == best).all()
    np.testing.assert_allclose(told.scores, np.tile(np.log(mean[best]), (30, 1)), rtol=1e-5)
    # Of whole softmaxes it is what the ensemble of users says: the mean of chances, not of scores.
    full = np.argsort(-scores, axis=1)
    whole = population_mean(
        full,
        np.take_along_axis(scores, full, 1).astype(np.float32),
        np.full(30, -np.inf),
        np.arange(30),
        num_items=15,
        seen=None,
    )
    mixed = torch.from_numpy(scores).log_softmax(1).logsumexp(0).numpy() - np.log(30)
    np.testing.assert_allclose(whole.scores[0], np.sort(mixed)[::-1], rtol=1e-5)
    np.testing.assert_array_equal(whole.items[0], np.argsort(-mixed))


def test_ones_own_items_are_left_out_and_do_not_make_an_item_rare():
    # Everybody likes item 0 best, and half have it: the mean of those who do not is what counts.
    n = 20
    seen = Interactions(indptr=np.concatenate([[0], np.cumsum(np.arange(n) % 2)]), items=np.zeros(n // 2, np.int64))
    items = np.where((np.arange(n) % 2)[:, None] == 1, [[1, 2]], [[0, 1]])
    scores = np.tile(np.array([[1.0, 0.5]], np.float32), (n, 1))
    told = population_mean(items, scores, np.full(n, -np.inf), np.arange(n), num_items=5, seen=seen)
    assert told.items[0].tolist() == [0, 1]
    assert told.items[1].tolist() == [1, 2]
    first = np.exp(1) / (np.exp(1) + np.exp(0.5))
    np.testing.assert_allclose(told.scores[0], np.log([first, 0.5]), rtol=1e-5)
    # A teacher that lists what is seen changes nothing: such pairs do not count.
    both = population_mean(
        np.where(items == 2, 0, items), scores, np.full(n, -np.inf), np.arange(n), num_items=5, seen=seen
    )
    assert both.items[1].tolist() == [1, -1]
    assert both.scores[1, 1] == -np.inf


def test_the_mean_of_an_item_is_over_the_listed_users_who_could_be_shown_it():
    items, listed, residual, _ = labels(1)
    rng = np.random.default_rng(2)
    own = rng.random((40, 15)) < 0.3
    seen = Interactions(indptr=np.concatenate([[0], own.sum(1).cumsum()]), items=np.nonzero(own)[1])
    some = np.array([30, 2, 17, 3, 4, 9])  # one of them has no list
    told = population_mean(items[some], listed[some], residual[some], some, num_items=15, seen=seen)
    each = {item: [] for item in range(15)}
    for user in some[some != 3]:
        exact = [float(score) for score in listed[user] if score > -np.inf]
        total = np.exp(exact).sum() + np.exp(residual[user])
        chance = dict(zip(items[user].tolist(), np.exp(exact) / total, strict=False))
        for item in np.flatnonzero(~own[user]).tolist():
            each[item].append(chance.get(item, 0.0))
    mean = {item: np.log(np.mean(v)) for item, v in each.items() if sum(v)}
    for row, user in enumerate(some):
        expected = sorted((i for i in mean if not own[user, i]), key=lambda i: -mean[i])[:5]
        assert [i for i in told.items[row].tolist() if i >= 0] == expected
        np.testing.assert_allclose(told.scores[row, : len(expected)], [mean[i] for i in expected], rtol=1e-5)


def test_uniform_lists_keep_their_items_and_their_mass_and_lose_their_order():
    items, scores, _, _ = labels()
    told = uniform(items, scores, 1)
    np.testing.assert_array_equal(np.sort(told.items, 1), np.sort(items, 1))
    assert (told.items[4] >= 0).tolist() == [True, True, False, False, False]
    assert told.scores.dtype == scores.dtype
    known = np.flatnonzero((items >= 0).any(1))
    chances = np.exp(log_softmax(told.scores, told.items >= 0))
    np.testing.assert_allclose(chances.max(1)[known], 1 / (items >= 0).sum(1)[known], rtol=1e-5)
    np.testing.assert_allclose(log_sum(told.scores)[known], log_sum(scores)[known], rtol=1e-5)
    assert (told.items[:, 0] == items[:, 0]).mean() < 0.5


def test_the_share_of_a_planted_gain_is_found():
    rng = np.random.default_rng(6)
    base = rng.random(500)
    gain = 0.2 + 0.05 * rng.normal(size=500)
    found = share_of_gain(base, base + 0.25 * gain, base + gain, times=200, seed=0)
    assert found.share == pytest.approx(0.25)
    assert found.low == pytest.approx(0.25)  # in pairs: who gains more in one gains more in the other
    assert found.high == pytest.approx(0.25)
    assert found.gain_low < found.gain < found.gain_high
    assert found.control == pytest.approx(0.25 * found.gain)
    loss = share_of_gain(base, base - 0.1, base - gain, times=200, seed=0)
    assert loss.share == pytest.approx(0.1 / gain.mean())
    harmful = share_of_gain(base, base - 0.1, base + gain, times=200, seed=0)
    assert harmful.share is not None
    assert harmful.share < 0
    assert harmful.control_high < 0


def test_there_is_no_share_of_what_may_be_nothing():
    rng = np.random.default_rng(7)
    base, noise = rng.random(200), rng.normal(size=200)
    noise -= noise.mean()
    for distilled in (base, base + noise):
        found = share_of_gain(base, base + 0.1, distilled, times=100, seed=0)
        assert (found.share, found.low, found.high) == (None, None, None)
        assert found.control == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(5))
def test_of_several_rows_an_owner_gets_none_of_its_own(seed):
    items, _, _, _ = labels()
    owners = np.tile(np.arange(15), 3)[:40]  # two or three rows each
    source = strangers(items, seed, owners)
    assert sorted(source) == list(range(40))
    assert np.flatnonzero(owners[source] == owners).tolist() == [3]
    with pytest.raises(ValueError, match="two or more"):
        strangers(items, seed, np.zeros(40, np.int64))


def test_a_row_each_is_the_same_as_no_owners():
    items, _, _, _ = labels()
    np.testing.assert_array_equal(strangers(items, 4, np.arange(40)), strangers(items, 4))
