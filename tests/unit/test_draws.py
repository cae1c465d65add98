"""Draws from a teacher's lists: their distribution against exact probabilities, and what they never return."""

from __future__ import annotations

from itertools import permutations
from math import exp

import numpy as np
import pytest
import torch

from recdistill.distill.draws import Lists, Seen, pairs, popularity_groups, ranked, top, unseen

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


def test_the_logq_of_unseen_counts_what_is_left():
    taken = {0: [0, 1, 2], 1: [5, 6], 2: [], 3: list(range(10)), 4: [9]}
    listed = [[3, 4, -1], [6, 7, 5], [-1, -1, -1], [1, 2, -1], [0, 9, 8]]
    given = lists(listed, num_items=10, seen=keys_of(taken, 10))
    drawn = unseen(given, seeded(), n=4)
    left = [10 - len({*taken[user], *row} - {-1}) for user, row in enumerate(listed)]
    assert left == [5, 7, 10, 0, 7]
    expected = torch.tensor(left).clamp(min=1).double().reciprocal().mul(4).log().float()
    assert drawn.logq.shape == (5, 4)
    torch.testing.assert_close(drawn.logq, expected.unsqueeze(1).expand(5, 4))


def test_the_logq_of_unseen_reads_the_users_not_their_rows():
    seen = Seen(torch.tensor([3, 0]), keys_of({0: [1], 3: [0, 2, 4, 6]}, 8), 8)
    drawn = unseen(Lists(torch.tensor([[2], [2]]), torch.zeros(2, 1), seen), seeded(), n=3)
    torch.testing.assert_close(drawn.logq[:, 0], torch.tensor([3 / 4, 3 / 6]).log())


def test_the_logq_of_unseen_is_the_log_of_how_often_an_item_is_drawn():
    given = repeated([3, 4, 5], 20_000, num_items=10)
    drawn = unseen(given, seeded(2), n=3)
    counts = np.bincount(drawn.items.clamp(min=0).reshape(-1).numpy(), minlength=10)[[1, 2, 6, 7, 8, 9]]
    mean = 20_000 * float(drawn.logq[0, 0].exp())
    assert chi_square(counts, mean) < 25  # about five degrees of freedom: chance 1e-4


def test_only_draws_that_stand_for_the_rest_have_a_logq():
    given = repeated([3, 4, 5], 2)
    assert top(given, seeded(), k=2).logq is None
    assert ranked(given, seeded(), k=2, temperature=1.0).logq is None


def grouped(rows, groups, **settings):
    return lists(rows, **settings)._replace(groups=torch.tensor(groups))


@pytest.mark.parametrize("temperature", [1e-3, 0.7, 5.0, 1e9])
def test_pairs_have_the_probabilities_of_two_successive_draws(temperature):
    # Items 0, 2, 4, 6, 8 are of group 0 and 1, 3, 5 of group 1; they stand mixed in the list.
    order, times = [8, 5, 2, 0, 3, 6, 4, 1], 10_000
    given = grouped([order] * times, [0, 1] * 4 + [0])
    drawn = pairs(given, seeded(7), n=4, groups=2, temperature=temperature)
    assert drawn.items.shape == (times, 16)
    for group, members in enumerate([[8, 2, 0, 6, 4], [5, 3, 1]]):
        weight = np.exp(-np.arange(len(members)) / temperature)
        both = {(a, b): two_of(weight, a, b) for b in range(len(members)) for a in range(b)}
        found = drawn.items[:, group * 8 : group * 8 + 8].reshape(-1, 2).tolist()
        counts = dict.fromkeys(both, 0)
        for better, worse in found:
            counts[members.index(better), members.index(worse)] += 1
        likely = [pair for pair, chance in both.items() if chance > 1e-3]
        assert sum(counts[pair] for pair in likely) == pytest.approx(4 * times, abs=4 * times * 2e-3)
        expected = 4 * times * np.array([both[pair] for pair in likely])
        assert chi_square([counts[pair] for pair in likely], expected) < 34  # at most nine degrees of freedom: 1e-4


def two_of(weight, a, b):
    """Return the chance that two successive draws are `a` and `b`, in either order."""
    with np.errstate(invalid="ignore"):
        first = weight / weight.sum()
        after = [weight[[b, a][i]] / (weight.sum() - weight[[a, b][i]]) for i in range(2)]
    if weight[1] < 1e-300:  # the limit of a small temperature
        return float((a, b) == (0, 1))
    return first[a] * after[0] + first[b] * after[1]


def test_pairs_stand_better_first_and_within_their_group():
    rng = np.random.default_rng(1)
    rows = [rng.permutation(60)[:30].tolist() for _ in range(50)]
    group = rng.integers(0, 3, 60)
    drawn = pairs(grouped(rows, group), seeded(), n=5, groups=3, temperature=4.0)
    for row, items in zip(rows, drawn.items.view(50, 3, 5, 2).tolist(), strict=True):
        for g, of_group in enumerate(items):
            for better, worse in of_group:
                assert group[better] == group[worse] == g
                assert row.index(better) < row.index(worse)
    torch.testing.assert_close(drawn.scores, -0.5 * drawn.items.float())


def test_a_group_with_fewer_than_two_listed_items_gives_no_pair():
    given = grouped([[4, 0, 1, -1, -1], [2, 3, -1, -1, -1], [-1] * 5], [0, 0, 1, 2, 2])
    drawn = pairs(given, seeded(), n=2, groups=3, temperature=20.0)
    none = [-1] * 4
    assert drawn.items.tolist() == [[0, 1, 0, 1, *none, *none], [*none] * 3, [*none] * 3]
    assert drawn.scores[0, :4].tolist() == [0.0, -0.5, 0.0, -0.5]
    assert torch.isneginf(drawn.scores[drawn.items < 0]).all()
    empty = given._replace(items=given.items[:, :0], scores=given.scores[:, :0])
    assert pairs(empty, seeded(), n=2, groups=3, temperature=20.0).items.tolist() == [[-1] * 12] * 3


def test_pairs_are_a_function_of_the_generator_and_not_of_padding():
    given = grouped([list(range(40))] * 8, [0, 1] * 20)
    first, second, other = (pairs(given, seeded(s), n=6, groups=2, temperature=9.0).items for s in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    padding = torch.full((8, 7), -1)
    wider = given._replace(items=torch.cat([given.items, padding], 1), scores=torch.cat([given.scores, padding], 1))
    assert torch.equal(pairs(wider, seeded(5), n=6, groups=2, temperature=9.0).items, first)


@pytest.mark.parametrize("groups", [1, 2, 4, 7])
def test_popularity_groups_are_those_of_brute_force(groups):
    rng = np.random.default_rng(groups)
    counts = np.concatenate([rng.zipf(1.5, 200).clip(max=60), np.zeros(20, int)])
    rng.shuffle(counts)
    found = popularity_groups(torch.tensor(counts), groups)
    total, before, expected = counts.sum(), 0, np.empty(len(counts), int)
    for item in sorted(range(len(counts)), key=lambda i: (counts[i], i)):
        expected[item] = ((2 * before + counts[item]) * groups) // (2 * total)
        before += counts[item]
    assert found.tolist() == expected.tolist()
    sums = np.bincount(expected, counts, minlength=groups)
    assert np.abs(sums - total / groups).max() <= counts.max()
    assert (expected[counts == 0] == 0).all()


def test_popularity_groups_of_equal_items_are_equal_stretches_of_rows():
    assert popularity_groups(torch.full((8,), 3), 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert popularity_groups(torch.tensor([6, 1, 1, 2, 2]), 2).tolist() == [1, 0, 0, 0, 0]
    assert popularity_groups(torch.zeros(3, dtype=torch.int64), 4).tolist() == [0, 0, 0]
    assert popularity_groups(torch.zeros(0, dtype=torch.int64), 4).tolist() == []
