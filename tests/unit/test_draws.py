"""Draws from a teacher's lists: their distribution against exact probabilities, and what they never return."""

from __future__ import annotations

from itertools import permutations
from math import exp

import numpy as np
import pytest
import torch

from recdistill.distill.draws import Lists, Seen, ranked, top, unseen

NOBODY = torch.zeros(0, dtype=torch.int64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def lists(items, *, num_items=100, seen=NOBODY):
    items = torch.tensor(items)
    scores = torch.where(items < 0, -torch.inf, -0.5 * items.float())
    return Lists(items, scores, Seen(torch.arange(len(items)), seen, num_items))


def repeated(row, times, **settings):
    return lists([row] * times, **settings)


def keys_of(taken, num_items):
    """Return the sorted keys of {user: items}."""
    return torch.tensor(sorted(user * num_items + item for user, items in taken.items() for item in items))


def chi_square(counts, expected):
    return float(((np.asarray(counts) - expected) ** 2 / expected).sum())


def inclusion(depth, k, temperature):
    """Return the probability that each place is among `k` drawn one after another, by enumeration."""
    weight = [exp(-(place + 1) / temperature) for place in range(depth)]
    found = np.zeros(depth)
    for order in permutations(range(depth), k):
        left, chance = sum(weight), 1.0
        for place in order:
            chance *= weight[place] / left
            left -= weight[place]
        found[list(order)] += chance
    return found


def test_top_is_the_head_of_the_list_with_its_scores():
    drawn = top(lists([[7, 3, 9, 1], [2, -1, -1, -1]]), seeded(), k=2)
    assert drawn.items.tolist() == [[7, 3], [2, -1]]
    assert drawn.scores.tolist() == [[-3.5, -1.5], [-1.0, -torch.inf]]


@pytest.mark.parametrize("temperature", [0.5, 3.0, 1000.0])
def test_ranked_draws_are_distinct_and_in_the_lists_order(temperature):
    given = repeated([40, 10, 30, 0, 20, 50], 500)
    drawn = ranked(given, seeded(), k=4, temperature=temperature)
    place = {item: at for at, item in enumerate([40, 10, 30, 0, 20, 50])}
    for row in drawn.items.tolist():
        at = [place[item] for item in row]
        assert at == sorted(set(at))
    torch.testing.assert_close(drawn.scores, -0.5 * drawn.items.float())


@pytest.mark.parametrize("temperature", [1.5, 4.0, 1000.0])
def test_ranked_inclusion_is_that_of_successive_sampling(temperature):
    times = 40_000
    drawn = ranked(repeated(list(range(5)), times), seeded(3), k=2, temperature=temperature)
    chance = inclusion(5, 2, temperature)
    counts = np.bincount(drawn.items.reshape(-1).numpy(), minlength=5)
    assert counts.sum() == 2 * times
    error = np.abs(counts - times * chance) / np.sqrt(times * chance * (1 - chance))
    assert error.max() < 4.5


def test_ranked_pairs_have_their_exact_probabilities():
    times, weight = 40_000, [exp(-(place + 1) / 2) for place in range(4)]
    drawn = ranked(repeated(list(range(4)), times), seeded(4), k=2, temperature=2.0).items
    expected, counts = [], []
    for a in range(4):
        for b in range(a + 1, 4):
            total = sum(weight)
            both = weight[a] / total * weight[b] / (total - weight[a]) + weight[b] / total * weight[a] / (
                total - weight[b]
            )
            expected.append(times * both)
            counts.append(int(((drawn[:, 0] == a) & (drawn[:, 1] == b)).sum()))
    assert sum(counts) == times
    assert chi_square(counts, np.array(expected)) < 25  # five degrees of freedom: chance 1e-4


def test_a_small_temperature_draws_the_top():
    given = repeated([9, 8, 7, 6, 5], 200)
    drawn = ranked(given, seeded(), k=3, temperature=0.01)
    assert (drawn.items == torch.tensor([9, 8, 7])).all()


def test_a_short_list_gives_all_it_has_before_it_gives_nothing():
    given = lists([[4, 2, -1, -1, -1], [4, 2, 7, -1, -1], [-1] * 5])
    drawn = ranked(given, seeded(), k=3, temperature=10.0)
    assert drawn.items.tolist() == [[4, 2, -1], [4, 2, 7], [-1, -1, -1]]
    assert drawn.scores[0].tolist() == [-2.0, -1.0, -torch.inf]


def test_padding_is_never_drawn_while_items_are_left():
    drawn = ranked(repeated([4, 2, 7, -1, -1, -1], 2000), seeded(), k=2, temperature=1000.0)
    assert (drawn.items >= 0).all()
    assert len(drawn.items.unique()) == 3


def test_more_than_the_list_holds_is_the_whole_list():
    drawn = ranked(lists([[4, 2, 7]]), seeded(), k=10, temperature=1.0)
    assert drawn.items.tolist() == [[4, 2, 7]]


def test_unseen_is_never_the_users_own_nor_the_lists():
    taken = {0: [0, 1, 2], 1: [5], 2: []}
    given = lists([[3, 4], [6, 7], [8, -1]], num_items=10, seen=keys_of(taken, 10))
    drawn = unseen(given, seeded(), n=2000).items
    free = [{5, 6, 7, 8, 9}, {0, 1, 2, 3, 4, 8, 9}, {0, 1, 2, 3, 4, 5, 6, 7, 9}]
    for row, allowed in zip(drawn.tolist(), free, strict=True):
        assert set(row) - {-1} == allowed


def test_unseen_is_uniform_over_the_rest():
    given = lists([[3, 4, 5]], num_items=10, seen=keys_of({0: [0, 9]}, 10))
    drawn = unseen(given, seeded(1), n=50_000)
    counts = np.bincount(drawn.items[0].clamp(min=0).numpy(), minlength=10)[[1, 2, 6, 7, 8]]
    assert counts.sum() == (drawn.items >= 0).sum()
    assert chi_square(counts, counts.sum() / 5) < 23.5  # four degrees of freedom: chance 1e-4
    assert (drawn.items < 0).float().mean() < 1e-3  # half of the draws collide, 17 times in a row


def test_unseen_scores_are_not_known():
    drawn = unseen(lists([[3, 4]]), seeded(), n=5)
    assert drawn.items.shape == drawn.scores.shape == (1, 5)
    assert torch.isneginf(drawn.scores).all()


def test_an_exhausted_catalogue_gives_nothing():
    given = lists([[3, 4], [0, 1]], num_items=5, seen=keys_of({0: [0, 1, 2], 1: [3]}, 5))
    drawn = unseen(given, seeded(), n=50).items
    assert (drawn[0] == -1).all()
    assert set(drawn[1].tolist()) <= {2, 4, -1}
    assert {2, 4} <= set(drawn[1].tolist())


def test_membership_is_by_user_and_exact():
    seen = Seen(torch.tensor([2, 0, 1]), keys_of({0: [1, 4], 2: [0, 4]}, 5), 5)
    row, item = torch.arange(3).repeat_interleave(5), torch.arange(5).repeat(3)
    expected = [[False] * 5 for _ in range(3)]
    expected[0][0] = expected[0][4] = expected[1][1] = expected[1][4] = True
    assert seen.has(row, item).view(3, 5).tolist() == expected
    assert not Seen(torch.tensor([0, 1, 2]), NOBODY, 5).has(row, item).any()


def test_a_ranked_draw_is_a_function_of_its_generator():
    given = repeated(list(range(50)), 8)
    first, second, other = (ranked(given, seeded(s), k=10, temperature=10.0).items for s in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_an_unseen_draw_is_a_function_of_its_generator():
    given = repeated([1, 2, 3], 8)
    first, second, other = (unseen(given, seeded(s), n=20).items for s in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
