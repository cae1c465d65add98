"""Lists fused from several teachers' training, and who moves on in it: against loops over users, teachers and items."""

from __future__ import annotations

from math import exp, log2

import numpy as np
import pytest
import torch

from recdistill.distill.trajectory import advance, fused


def planted(rows, members, moments, depth, items, seed=0, short=True):
    """Give random lists, some of them short or empty, and random places."""
    rng = np.random.default_rng(seed)
    lists = np.stack([rng.permutation(items)[:depth] for _ in range(rows * members * moments)])
    if short:
        for at in range(0, len(lists), 3):
            lists[at, depth - rng.integers(0, depth + 1) :] = -1
    lists = lists.reshape(rows, members, moments, depth)
    return torch.tensor(lists), torch.tensor(rng.integers(0, moments, (rows, members)))


def importance(ranks):
    """Return the sum over teachers of a row, item by item: lists [M][C][K], places [M]."""
    lists, places = ranks
    found = {}
    for of_member, at in zip(lists, places, strict=True):
        for rank, item in enumerate(of_member[at]):
            if item < 0:
                continue
            consistency = sum(exp(-those.index(item) / 10) for those in of_member if item in those) / len(of_member)
            found[item] = found.get(item, 0.0) + exp(-rank / 10) * consistency
    return found


@pytest.mark.parametrize("k", [1, 5, 40])
def test_the_fused_list_is_that_of_brute_force(k):
    lists, places = planted(40, 3, 4, 8, 15)
    found = fused(lists, places, k)
    assert found.shape == (40, k)
    for row, got in enumerate(found.tolist()):
        worth = importance((lists[row].tolist(), places[row].tolist()))
        expected = sorted(worth, key=lambda i: (-np.float32(worth[i]), i))[:k]
        assert got == expected + [-1] * (k - len(expected))


def test_one_teacher_that_never_changed_its_mind_is_its_own_list():
    lists, _ = planted(10, 1, 1, 12, 50, short=False)
    same = lists.expand(10, 1, 3, 12)
    assert torch.equal(fused(same, torch.tensor([[1]] * 10), 12), lists[:, 0, 0])


def test_an_item_that_stayed_stands_above_one_that_came_and_went():
    # The teacher now has 7 first, which was nowhere before, and below it what was always there.
    lists = torch.tensor([[[[3, 1, 2], [3, 2, 1], [7, 3, 1]]]])
    assert fused(lists, torch.tensor([[2]]), 3).tolist() == [[3, 1, 7]]
    assert fused(lists[:, :, 2:], torch.tensor([[0]]), 3).tolist() == [[7, 3, 1]]


def test_equal_sums_stand_by_item_row_whatever_the_order_of_teachers():
    # Each item stands once at each rank: sums are equal but for the order of adding, which differs by item.
    items = [50, 30, 70, 10, 40, 130, 20, 60, 110, 90, 80, 120, 100]
    orders = [items[turn:] + items[:turn] for turn in range(13)]
    for turn in range(13):
        lists = torch.tensor([orders[turn:] + orders[:turn]]).unsqueeze(2)
        assert fused(lists, torch.zeros(1, 13, dtype=torch.int64), 13).tolist() == [sorted(items)]


def test_the_order_of_teachers_and_the_other_rows_change_nothing():
    lists, places = planted(20, 4, 3, 10, 25, seed=3)
    found = fused(lists, places, 10)
    turned = torch.tensor([2, 0, 3, 1])
    assert torch.equal(fused(lists[:, turned], places[:, turned], 10), found)
    assert torch.equal(fused(lists[5:9], places[5:9], 10), found[5:9])
    padded = torch.cat([lists, torch.full((20, 4, 3, 6), -1)], dim=3)
    assert torch.equal(fused(padded, places, 10), found)


def test_nothing_fuses_to_nothing():
    assert fused(torch.full((2, 3, 2, 4), -1), torch.zeros(2, 3, dtype=torch.int64), 3).tolist() == [[-1] * 3] * 2


def distance(listed, student, k):
    """Return 1 - NDCG@k with gains 2^exp(-r/10) - 1, in a loop."""
    gain = {item: 2 ** exp(-rank / 10) - 1 for rank, item in enumerate(listed) if item >= 0}
    best = sum(g / log2(at + 2) for at, g in enumerate(sorted(gain.values(), reverse=True)[:k]))
    got = sum(gain.get(item, 0.0) / log2(at + 2) for at, item in enumerate(student[:k]))
    return 1 - got / best if best else 1.0


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(("alpha", "moves"), [(1.05, 0), (1.05, 30), (0.9, 2), (1.5, 1)])
def test_places_move_on_as_in_brute_force(alpha, moves, short):
    lists, places = planted(60, 3, 4, 10, 20, seed=moves, short=short)
    rng = np.random.default_rng(5)
    student = torch.tensor(np.stack([rng.permutation(20)[:12] for _ in range(60)]))
    student[::7, 4:] = -1
    found = advance(lists, places, student, k=6, alpha=alpha, decay=0.995, moves=moves)
    expected = places.clone()
    for row in range(60):
        for member in range(3):
            at = int(places[row, member])
            if at == 3:
                continue
            now, then = (distance(lists[row, member, c].tolist(), student[row].tolist(), 6) for c in (at, at + 1))
            if then < 1e-12 or now / then > alpha * 0.995**moves or now / then < 1 - 1e-12:
                expected[row, member] = at + 1
    assert torch.equal(found, expected)
    moved, could = int((found - places).sum()), int((places < 3).sum())
    assert moved == could if alpha * 0.995**moves < 1 else 0 < moved < could  # then the rule lets everyone pass


def ask(now, then, student, places=0, **settings):
    lists = torch.tensor([[[now, then]]])
    given = {"k": 4, "alpha": 1.05, "decay": 0.995, "moves": 0, **settings}
    return int(advance(lists, torch.tensor([[places]]), torch.tensor([student]), **given))


def test_who_agrees_with_the_next_list_moves_on_whatever_alpha():
    assert ask([1, 2, 3, 4], [5, 6, 7, 8], [5, 6, 7, 8], alpha=1e9) == 1
    assert ask([5, 6, 7, 8], [5, 6, 7, 8], [5, 6, 7, 8], alpha=1e9) == 1  # both distances are 0
    assert ask([5, 6, 7, 8], [5, 6, 7, -1], [5, 6, 7], alpha=1e9) == 1


def test_who_is_as_far_from_both_moves_on_only_when_the_bound_has_fallen_to_one():
    lists = ([1, 2, 3, 4], [1, 2, 4, 3], [7, 8, 1, 9])  # the item they share has the same rank in both
    assert ask(*lists) == 0
    assert ask(*lists, moves=9) == 0
    assert ask(*lists, moves=10) == 1  # 1.05 * 0.995^10 < 1


def test_no_place_goes_beyond_the_last():
    assert ask([1, 2, 3, 4], [5, 6, 7, 8], [5, 6, 7, 8], places=1) == 1


def test_items_below_k_of_the_student_do_not_count():
    assert ask([1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 5, 6], k=2, alpha=1.0) == 0  # as far from both: all it can be
    assert ask([1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 5, 6], k=3, alpha=1.0) == 1


def test_places_are_left_as_they_were():
    lists, places = planted(5, 2, 3, 4, 9)
    before = places.clone()
    advance(lists, places, lists[:, 0, 1], k=3, alpha=1.05, decay=0.995, moves=0)
    assert torch.equal(places, before)
