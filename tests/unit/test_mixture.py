"""Which teachers are mixed, and how: against brute force on chances that were planted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from recdistill.mixture import edges_of, forward, mixed, nll, routes, segments_of, shares


def draws(rng: np.random.Generator, tables: np.ndarray, truth: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log-chances [M,size] that the members (rows of `tables`) gave what was drawn from `truth`, and weights."""
    drawn = rng.choice(len(truth), size, p=truth)
    return np.log(tables[:, drawn]), np.full(size, 1 / size)


def simplex(members: int, steps: int) -> np.ndarray:
    """Return every mixture of `members` in parts of 1 / steps."""
    cuts = itertools.combinations_with_replacement(range(steps + 1), members - 1)
    return np.diff(np.array([(0, *cut, steps) for cut in cuts])) / steps


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(8)


def test_the_mixture_averages_chances_and_not_scores() -> None:
    chances = np.log(np.array([[0.9, 0.1], [0.2, 0.6]]))
    share = np.array([0.25, 0.75])
    np.testing.assert_allclose(np.exp(mixed(chances, share)), [0.25 * 0.9 + 0.75 * 0.2, 0.25 * 0.1 + 0.75 * 0.6])
    np.testing.assert_allclose(mixed(chances, np.array([0.0, 1.0])), chances[1])  # whoever has no share is not heard
    assert nll(chances[0], np.array([0.5, 0.5])) == pytest.approx(-(np.log(0.9) + np.log(0.1)) / 2)


def test_logmeanexp_lies_between_its_limits(rng) -> None:
    """Equal members give what one of them gives; of very unlike ones the loudest decides, less log M."""
    chances = rng.normal(size=(1, 7))
    equal = np.full(4, 0.25)
    np.testing.assert_allclose(mixed(np.repeat(chances, 4, 0), equal), chances[0])
    loud = np.array([[0.0], [-800.0], [-900.0], [-np.inf]])
    np.testing.assert_allclose(mixed(loud, equal), [-np.log(4)])


def test_shares_find_what_was_planted(rng) -> None:
    tables = rng.dirichlet(np.full(60, 0.3), 3) * 0.999 + 0.001 / 60
    planted = np.array([0.6, 0.3, 0.1])
    chances, weight = draws(rng, tables, planted @ tables, 20_000)
    np.testing.assert_allclose(shares(chances, weight), planted, atol=0.02)


def test_no_mixture_of_a_fine_grid_is_better_than_the_shares(rng) -> None:
    tables = rng.dirichlet(np.full(20, 1.0), 3)
    chances, weight = draws(rng, tables, tables[0] * 0.5 + 0.5 / 20, 300)
    weight = rng.dirichlet(np.full(300, 1.0))  # interactions need not count alike
    best = nll(mixed(chances, shares(chances, weight)), weight)
    grid = [nll(mixed(chances, share), weight) for share in simplex(3, 40)]
    assert min(grid) - 1e-3 < best <= min(grid) + 1e-7


def evolved(loss, members: int, rng: np.random.Generator, rounds: int = 80) -> np.ndarray:
    """Return the least of `loss` [P,M] -> [P] over mixtures that differential evolution finds (rand/1/bin)."""
    people = rng.dirichlet(np.ones(members), 20)
    values = loss(people)
    for _ in range(rounds):
        a, b, c = (people[rng.permutation(len(people))] for _ in range(3))
        tried = np.where(rng.random(people.shape) < 0.9, a + 0.6 * (b - c), people).clip(1e-9)
        tried /= tried.sum(1, keepdims=True)
        found = loss(tried)
        better = found <= values
        people[better], values[better] = tried[better], found[better]
    return people[values.argmin()]


def test_expectation_maximisation_finds_what_differential_evolution_does(rng) -> None:
    """Ganta et al. (2022) weigh assistants so; both are above an even mixture and everyone alone."""
    tables = rng.dirichlet(np.full(60, 0.3), 3) * 0.999 + 0.001 / 60
    planted = np.array([0.6, 0.3, 0.1])
    chances, weight = draws(rng, tables, planted @ tables, 3000)

    def loss(people: np.ndarray) -> np.ndarray:
        return np.array([nll(mixed(chances, share), weight) for share in people])

    found, searched = shares(chances, weight), evolved(loss, 3, rng)
    np.testing.assert_allclose(found, searched, atol=2e-3)
    np.testing.assert_allclose(searched, planted, atol=0.05)
    best, *others = loss(np.array([found, searched, np.full(3, 1 / 3), *np.eye(3)]))
    assert best <= others[0] + 1e-9
    assert best + 0.01 < min(others[1:])


def test_a_dominated_member_gets_no_share(rng) -> None:
    good, bad = rng.normal(-2, 0.3, 200), rng.normal(-6, 0.3, 200)
    share = shares(np.stack([good, bad]), np.full(200, 1 / 200))
    np.testing.assert_allclose(share, [1, 0], atol=1e-6)


def test_forward_selection_takes_what_helps_and_stops(rng) -> None:
    """0 and 2 know different halves; 1 is the best alone, 3 knows nothing and is left out."""
    half = np.arange(100) < 50
    wrong, right = np.log(0.001), np.log(0.5)
    chances = np.stack([np.where(half, right, wrong), np.full(100, np.log(0.15)), np.where(half, wrong, right)])
    chances = np.concatenate([chances, np.full((1, 100), np.log(1e-6))])
    weight = np.full(100, 0.01)
    assert forward(chances, weight, 1) == [1]
    assert sorted(forward(chances, weight, 4)) == [0, 1, 2]
    for most in (1, 2, 3, 4):  # every one that is added lowers the NLL
        chosen = forward(chances, weight, most)
        values = [nll(mixed(chances[chosen[:n]], np.full(n, 1 / n)), weight) for n in range(1, len(chosen) + 1)]
        assert values == sorted(values, reverse=True)


def test_forward_selection_agrees_with_brute_force(rng) -> None:
    chances, weight = draws(rng, rng.dirichlet(np.full(15, 0.6), 4), rng.dirichlet(np.full(15, 1.0)), 500)
    alone = [nll(one, weight) for one in chances]
    chosen = forward(chances, weight, 2)
    assert chosen[0] == int(np.argmin(alone))
    pairs = {m: nll(np.log((np.exp(chances[chosen[0]]) + np.exp(chances[m])) / 2), weight) for m in range(4)}
    del pairs[chosen[0]]
    best = min(pairs, key=lambda m: pairs[m])
    assert chosen[1:] == ([best] if pairs[best] < min(alone) else [])


def test_routes_send_no_segment_to_a_dominated_member() -> None:
    chances = np.array([[-1.0, -1.0, -9.0, -9.0], [-2.0, -2.0, -3.0, -3.0], [-3.0, -3.0, -3.5, -3.5]])
    segment, weight = np.array([0, 0, 1, 1]), np.full(4, 0.25)
    assert routes(chances, weight, segment, 3) == [0, 1, 1]  # nothing is held out of the third: the best of all


def test_segments_are_of_equal_size_as_far_as_ties_allow() -> None:
    count = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9])
    edges = edges_of(count, 3)
    assert np.bincount(segments_of(count, edges)).tolist() == [3, 3, 3]
    tied = np.array([5, 5, 5, 5, 5, 9])
    assert np.bincount(segments_of(tied, edges_of(tied, 4))).tolist() == [5, 1]
    assert edges_of(np.array([4, 4, 4]), 3) == []
    assert segments_of(np.array([4, 4, 4]), []).tolist() == [0, 0, 0]
