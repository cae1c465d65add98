"""The target of a daily refresh: what the student said, moved as the teacher moved; and what a refresh changes."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.gains.refresh import churn, overlap, refreshed
from recdistill.topk import exact_topk
from recdistill.types import Vectors

USERS, ITEMS, DS, DT = 12, 20, 3, 6
SAME = {"users": np.arange(USERS), "items": np.arange(ITEMS)}
CAME = {"users": np.array([4, -1, 0, 7, -1]), "items": np.array([3, -1, -1, 9, 0, 19, 1])}


def drawn(seed: int, dim: int, users: int = USERS, items: int = ITEMS) -> Vectors:
    rng = np.random.default_rng(seed)
    made = [rng.standard_normal((n, dim)).astype(np.float32) for n in (users, items)]
    return Vectors(users=made[0], items=made[1])


def scores(vectors: Vectors) -> np.ndarray:
    return vectors.users.astype(np.float64) @ vectors.items.astype(np.float64).T


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0, 2.0])
def test_scores_move_as_the_teachers_do(alpha: float) -> None:
    dep, new, old = drawn(0, DS), drawn(1, DT), drawn(2, DT - 1)
    wanted = scores(dep) + alpha * (scores(new) - scores(old))
    np.testing.assert_allclose(scores(refreshed(dep, new, old, **SAME, alpha=alpha)), wanted, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_on_a_quiet_day_the_target_is_the_old_student(alpha: float) -> None:
    dep, new = drawn(0, DS), drawn(1, DT)
    found = refreshed(dep, new, new, **SAME, alpha=alpha)
    np.testing.assert_allclose(scores(found), scores(dep), atol=1e-5)
    lists = [exact_topk(v.users, v.items, 5).items.numpy() for v in (dep, found)]
    assert not churn(*lists, 5).any()


def test_a_student_that_was_yesterdays_teacher_is_taught_todays() -> None:
    new, old = drawn(1, DT), drawn(2, DT)
    np.testing.assert_allclose(scores(refreshed(old, new, old, **SAME)), scores(new), atol=1e-5)


def test_it_is_the_product_of_powers_that_the_paper_has() -> None:
    dep, new, old, alpha = drawn(0, DS), drawn(1, DT), drawn(2, DT), 0.7
    pi = [np.exp(t) / np.exp(t).sum(1, keepdims=True) for t in map(scores, (dep, new, old))]
    product = pi[0] * (pi[1] / pi[2]) ** alpha
    found = np.exp(scores(refreshed(dep, new, old, **SAME, alpha=alpha)))
    np.testing.assert_allclose(
        found / found.sum(1, keepdims=True), product / product.sum(1, keepdims=True), rtol=1e-4, atol=1e-9
    )


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_who_is_new_on_either_side_is_scored_by_todays_teacher_alone(alpha: float) -> None:
    dep, new, old = drawn(0, DS), drawn(1, DT, 5, 7), drawn(2, DT)
    found = scores(refreshed(dep, new, old, **CAME, alpha=alpha))
    for u, was_u in enumerate(CAME["users"]):
        for i, was_i in enumerate(CAME["items"]):
            t = scores(new)[u, i]
            both = was_u >= 0 and was_i >= 0
            wanted = scores(dep)[was_u, was_i] + alpha * (t - scores(old)[was_u, was_i]) if both else t
            assert found[u, i] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_levelled_new_items_stand_where_the_others_stand_for_that_user(alpha: float) -> None:
    dep, new, old = drawn(0, DS), drawn(1, DT, 5, 7), drawn(2, DT)
    plain, level = (scores(refreshed(dep, new, old, **CAME, alpha=alpha, level=on)) for on in (False, True))
    came, stayed = CAME["items"] < 0, CAME["items"] >= 0
    above = (plain - scores(new))[:, stayed].mean(1, keepdims=True)
    np.testing.assert_allclose(level[:, stayed], plain[:, stayed], atol=1e-5)
    np.testing.assert_allclose(level[:, came], scores(new)[:, came] + above, atol=1e-5)
    np.testing.assert_allclose(level[CAME["users"] < 0], scores(new)[CAME["users"] < 0], atol=1e-5)


def test_a_level_that_softmaxes_do_not_see_moves_no_new_item() -> None:
    dep, new, old = drawn(0, DS), drawn(1, DT, 5, 7), drawn(2, DT)
    high = Vectors(
        users=np.concatenate([dep.users, np.full((USERS, 1), 30, np.float32)], axis=1),
        items=np.concatenate([dep.items, np.ones((ITEMS, 1), np.float32)], axis=1),
    )
    lists = []
    for level in (False, True):
        for student in (dep, high):
            found = refreshed(student, new, old, **CAME, alpha=0.5, level=level)
            lists.append(exact_topk(found.users, found.items, 3).items.numpy())
    assert churn(*lists[:2], 3).any()
    assert not churn(*lists[2:], 3).any()


def test_a_first_day_is_plain_and_widths_are_what_is_said() -> None:
    none = {"users": np.full(5, -1), "items": np.full(7, -1)}
    dep, new, old = drawn(0, DS, 0, 0), drawn(1, DT, 5, 7), drawn(2, DT, 0, 0)
    for alpha, width in ((1.0, DS + 2 * DT), (0.5, DS + 3 * DT)):
        found = refreshed(dep, new, old, **none, alpha=alpha, level=True)
        np.testing.assert_allclose(scores(found), scores(new), atol=1e-5)
        assert found.users.shape[1] == found.items.shape[1] == width


def test_rows_that_do_not_fit_are_refused() -> None:
    dep, new, old = drawn(0, DS), drawn(1, DT), drawn(2, DT)
    with pytest.raises(ValueError, match="rows"):
        refreshed(drawn(0, DS, USERS - 1), new, old, **SAME)
    with pytest.raises(ValueError, match="rows"):
        refreshed(dep, new, old, users=SAME["users"][1:], items=SAME["items"])


def test_overlap_is_the_share_of_sets() -> None:
    rng = np.random.default_rng(0)
    left, right = (np.stack([rng.permutation(30)[:10] for _ in range(40)]) for _ in range(2))
    left[3, 4:], right[3, 2:], right[5] = -1, -1, -1
    for k in (1, 5, 10, 15):
        wanted = []
        for a, b in zip(left[:, :k], right[:, :k], strict=True):
            one, other = set(a[a >= 0]), set(b[b >= 0])
            wanted.append(len(one & other) / max(len(one), len(other)))
        np.testing.assert_allclose(overlap(left, right, k), wanted)
        np.testing.assert_allclose(churn(left, right, k), 1 - np.array(wanted))


def test_order_within_the_list_and_what_comes_later_is_no_churn() -> None:
    before, after = np.array([[1, 2, 3, 9]]), np.array([[3, 1, 2, 8]])
    assert churn(before, after, 3) == 0
    assert churn(before, after, 4) == 0.25
    assert churn(before, before + 20, 4) == 1


def test_two_empty_lists_are_the_same_and_an_empty_one_is_all_churn() -> None:
    lists = np.array([[-1, -1], [-1, -1]]), np.array([[-1, -1], [4, -1]])
    np.testing.assert_array_equal(churn(*lists, 2), [0, 1])
    assert churn(np.array([[7], [1]]), np.array([[3], [-1]]), 1).tolist() == [1, 1]  # -1 is no item of the row before
    assert churn(lists[0][:0], lists[1][:0], 2).shape == (0,)
