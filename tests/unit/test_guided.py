"""Draws that read the student's list: their distribution against exact probabilities, their gate and their places."""

from __future__ import annotations

from itertools import permutations
from math import exp, tanh

import numpy as np
import pytest
import torch

from recdistill.distill.draws import Lists, Seen, place, ranked
from recdistill.distill.guided import closure, rank_gap, student_ranked, student_top

NOBODY = torch.zeros(0, dtype=torch.int64)
TIMES = 40_000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def lists(teacher, student):
    """Give lists in which the teacher's score of item i is -i/2."""
    items = torch.tensor(teacher)
    scores = torch.where(items < 0, -torch.inf, -0.5 * items.float())
    return Lists(items, scores, Seen(torch.arange(len(items)), NOBODY, 100), student=torch.tensor(student))


def repeated(given, times):
    return Lists(
        given.items.expand(times, -1),
        given.scores.expand(times, -1),
        Seen(torch.zeros(times, dtype=torch.int64), NOBODY, 100),
        student=given.student.expand(times, -1),
    )


def sets(weight, k):
    """Return the probability of each set of `k` places drawn one after another with `weight`, by enumeration."""
    found = {}
    for order in permutations(range(len(weight)), k):
        left, chance = sum(weight), 1.0
        for at in order:
            chance *= weight[at] / left
            left -= weight[at]
        key = tuple(sorted(order))
        found[key] = found.get(key, 0.0) + chance
    return found


def check(drawn, row, weight, k):
    """Compare how often each set of `k` of `row` was drawn, [n,k] in its order, with its probability: chi-square."""
    chances = sets(weight, k)
    assert sum(chances.values()) == pytest.approx(1)
    names, counts = torch.unique(drawn, dim=0, return_counts=True)
    counted = {tuple(row.index(i) for i in name): n for name, n in zip(names.tolist(), counts.tolist(), strict=True)}
    assert set(counted) <= set(chances)  # in the list's order, and distinct
    often = {key: chance * len(drawn) for key, chance in chances.items() if chance * len(drawn) >= 5}
    rare = len(drawn) - sum(often.values())
    pairs = [(counted.get(key, 0), mean) for key, mean in often.items()]
    pairs += [(len(drawn) - sum(n for n, _ in pairs), rare)] if rare > 5 else []
    df = max(len(pairs) - 1, 1)
    limit = df * (1 - 2 / (9 * df) + 3.72 * (2 / (9 * df)) ** 0.5) ** 3  # chance 1e-4 (Wilson and Hilferty)
    assert sum((n - mean) ** 2 / mean for n, mean in pairs) < limit


def test_a_place_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    listed = np.stack([rng.permutation(30)[:12] for _ in range(40)])
    for row in range(40):
        listed[row, 12 - row % 13 :] = -1
    wanted = rng.integers(-1, 30, (40, 25))
    expected = [
        [r.index(w) if w >= 0 and w in r else -1 for w in ws]
        for r, ws in zip(listed.tolist(), wanted.tolist(), strict=True)
    ]
    found = place(torch.tensor(wanted), torch.tensor(listed))
    assert found.tolist() == expected
    assert place(torch.tensor(wanted.T.copy()).T, torch.tensor(listed.T.copy()).T).tolist() == expected


def test_nothing_has_a_place_in_an_empty_list():
    wanted = torch.tensor([[3, -1], [0, 2]])
    assert (place(wanted, torch.zeros(2, 0, dtype=torch.int64)) == -1).all()
    assert (place(wanted, torch.full((2, 4), -1)) == -1).all()
    assert place(wanted[:, :0], torch.tensor([[1], [2]])).shape == (2, 0)


def test_student_top_is_the_head_of_the_students_list_with_the_teachers_scores():
    given = lists([[7, 3, 9, 1], [2, -1, -1, -1], [-1] * 4], [[9, 5, 7], [4, 2, -1], [6, -1, -1]])
    drawn = student_top(given, seeded(), k=2)
    assert drawn.items.tolist() == [[9, 5], [4, 2], [6, -1]]
    assert drawn.scores.tolist() == [[-4.5, -torch.inf], [-torch.inf, -1.0], [-torch.inf, -torch.inf]]
    assert student_top(given, seeded(), k=9).items.shape == (3, 3)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 1000.0])
def test_student_ranked_sets_have_the_probability_of_successive_draws(temperature):
    row = [4, 9, 2, 7, 0, 5]
    given = repeated(lists([[7, 3, 4]], [row]), TIMES)
    drawn = student_ranked(given, seeded(1), k=3, temperature=temperature)
    check(drawn.items, row, [exp(-(r + 1) / temperature) for r in range(6)], 3)
    known = (drawn.items == 7) | (drawn.items == 4)
    assert torch.equal(torch.isfinite(drawn.scores), known)
    assert torch.equal(drawn.scores[known], -0.5 * drawn.items[known])


def test_student_ranked_of_the_teachers_list_is_ranked():
    given = lists([[7, 3, 9, 1, 8]] * 20, [[7, 3, 9, 1, 8]] * 20)
    one, two = student_ranked(given, seeded(), k=2, temperature=3.0), ranked(given, seeded(), k=2, temperature=3.0)
    assert torch.equal(one.items, two.items)
    assert torch.equal(one.scores, two.scores)


TEACHER, STUDENT = [10, 11, 12, 13, 14, 15], [13, 20, 10, 21, 15, 22, 12]


@pytest.mark.parametrize("temperature", [2.0, 10.0, 100.0])
def test_under_draws_what_the_student_puts_lower(temperature):
    given = repeated(lists([TEACHER], [STUDENT]), TIMES)
    drawn = rank_gap(given, seeded(2), k=2, side="under", temperature=temperature)
    # In the student's list 10 stands two lower, 11 nowhere (rank 7), 12 four lower, 13 and 15 higher, 14 nowhere.
    weight = [max(tanh(gap / temperature), 1e-5) for gap in (2, 6, 4, 0, 3, 0)]
    check(drawn.items, TEACHER, weight, 2)
    torch.testing.assert_close(drawn.scores, -0.5 * drawn.items.float())


@pytest.mark.parametrize("temperature", [2.0, 10.0, 100.0])
def test_over_draws_what_the_teacher_puts_lower(temperature):
    given = repeated(lists([TEACHER], [STUDENT]), TIMES)
    drawn = rank_gap(given, seeded(3), k=2, side="over", temperature=temperature)
    # The teacher's list has 13 three lower and 15 one; 20, 21 and 22 nowhere (rank 6); 10 and 12 higher.
    weight = [max(tanh(gap / temperature), 1e-5) for gap in (3, 5, 0, 3, 1, 1, 0)]
    check(drawn.items, STUDENT, weight, 2)
    known = drawn.items < 20
    assert torch.equal(torch.isfinite(drawn.scores), known)
    assert torch.equal(drawn.scores[known], -0.5 * drawn.items[known])


@pytest.mark.parametrize("side", ["under", "over"])
def test_where_both_agree_any_item_is_as_likely(side):
    given = repeated(lists([[5, 3, 8, 1]], [[5, 3, 8, 1]]), TIMES)
    check(rank_gap(given, seeded(4), k=2, side=side, temperature=10.0).items, [5, 3, 8, 1], [1e-5] * 4, 2)


@pytest.mark.parametrize("side", ["under", "over"])
def test_a_gap_has_no_items_of_padding(side):
    given = lists([[4, 2, -1, -1], [1, 2, 3, 4], [-1] * 4], [[2, -1, -1], [4, 9, -1], [3, 1, 2]])
    drawn = rank_gap(given, seeded(), k=3, side=side, temperature=10.0).items.tolist()
    if side == "under":
        assert [drawn[0], drawn[2]] == [[4, 2, -1], [-1] * 3]
        assert sorted(set(drawn[1])) == drawn[1]
    else:
        assert drawn == [[2, -1, -1], [4, 9, -1], [3, 1, 2]]


def closed(teacher, student, k, temperature):
    """Return the weight of each item of the student's list in the draw of Q, by counting."""
    depth = len(student)
    ranks = [student.index(i) if i in student else depth for i in teacher[:k] if i >= 0]
    return [exp((min(sum(rank >= j for rank in ranks), 50) + 1) / temperature) for j in range(depth)]


@pytest.mark.parametrize("temperature", [0.5, 2.0, 10.0])
def test_the_closures_draws_have_their_exact_probabilities(temperature):
    teacher, student = [10, 11, 12, 13, 14], [13, 20, 10, 21, 15, 22, 12]
    given = repeated(lists([teacher], [student]), TIMES)
    drawn = closure(given, seeded(5), k=4, n=3, temperature=temperature, beta=3.0)
    weight = closed(teacher, student, 4, temperature)
    assert weight == pytest.approx([exp((z + 1) / temperature) for z in (4, 3, 3, 2, 2, 2, 2)])
    check(drawn.items[:, 4:7], student, weight, 3)


def test_more_than_fifty_below_count_as_fifty():
    # 50 of the teacher's are not in the student's list and three stand first there: all have 50 below, or more.
    teacher, student = [*range(50, 100), 1, 2, 3], [1, 2, 3, 4]
    given = repeated(lists([teacher], [student]), TIMES)
    drawn = closure(given, seeded(6), k=53, n=1, temperature=0.05, beta=1.0)
    check(drawn.items[:, 53:54], student, [1.0] * 4, 1)


def test_the_closures_lists_and_gate_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    rows, k, n, beta = 60, 6, 5, 2.5
    teacher = np.stack([rng.permutation(20)[:9] for _ in range(rows)])
    student = np.stack([rng.permutation(20)[:12] for _ in range(rows)])
    for row in range(rows):
        teacher[row, 9 - row % 10 :] = -1
        student[row, 12 - row % 13 :] = -1
    given = lists(teacher.tolist(), student.tolist())
    drawn = closure(given, seeded(), k=k, n=n, temperature=10.0, beta=beta)
    assert drawn.items.shape == drawn.scores.shape == (rows, k + n + k)
    for row, (items, scores) in enumerate(zip(drawn.items.tolist(), drawn.scores.tolist(), strict=True)):
        wanted, own = teacher[row].tolist(), student[row].tolist()
        first, second, rest = items[:k], items[k : k + n], items[k + n :]
        assert first == own[:k]
        got = [item for item in second if item >= 0]
        assert len(set(got)) == len(got) == min(n, sum(item >= 0 for item in own))
        assert [own.index(item) for item in got] == sorted(own.index(item) for item in got)
        assert rest == [-1 if item in {*first, *got} else item for item in wanted[:k]]
        overlap = len({*wanted[:k]} & {*got})
        assert float(drawn.gate[row]) == pytest.approx(exp(-beta * overlap / k))
        assert scores == [-0.5 * item if item >= 0 and item in wanted else -torch.inf for item in items]


def test_the_closures_columns_mean_the_same_where_lists_are_short():
    drawn = closure(lists([[3, 4]], [[4, 5, 6]]), seeded(), k=4, n=5, temperature=10.0, beta=3.0)
    assert drawn.items.tolist() == [[4, 5, 6, -1, 4, 5, 6, -1, -1, 3, -1, -1, -1]]
    assert float(drawn.gate[0]) == pytest.approx(exp(-3 / 4))
    empty = lists([[3, 4]], [[4, 5, 6]])._replace(student=torch.zeros(1, 0, dtype=torch.int64))
    drawn = closure(empty, seeded(), k=2, n=1, temperature=10.0, beta=3.0)
    assert drawn.items.tolist() == [[-1, -1, -1, 3, 4]]
    assert float(drawn.gate[0]) == 1


DRAWS = {
    "student_ranked": lambda given, g: student_ranked(given, g, k=4, temperature=5.0),
    "under": lambda given, g: rank_gap(given, g, k=4, side="under", temperature=5.0),
    "over": lambda given, g: rank_gap(given, g, k=4, side="over", temperature=5.0),
    "closure": lambda given, g: closure(given, g, k=4, n=6, temperature=5.0, beta=3.0),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_a_function_of_its_generator(name):
    given = lists([list(range(30))] * 8, [list(range(50, 10, -1))] * 8)
    first, second, other = (DRAWS[name](given, seeded(s)) for s in (5, 5, 6))
    assert torch.equal(first.items, second.items)
    assert torch.equal(first.scores, second.scores)
    assert not torch.equal(first.items, other.items)


@pytest.mark.parametrize("name", DRAWS)
def test_a_row_does_not_depend_on_the_others(name):
    rng = np.random.default_rng(2)
    teacher = [rng.permutation(40)[:20].tolist() for _ in range(6)]
    given = lists(teacher, [rng.permutation(40).tolist() for _ in range(6)])
    changed = given._replace(items=given.items.clone(), student=given.student.clone())
    changed.items[3:], changed.student[3:] = -1, -1
    one, two = (DRAWS[name](those, seeded()) for those in (given, changed))
    assert torch.equal(one.items[:3], two.items[:3])
    assert (two.items[3:] == -1).all()
