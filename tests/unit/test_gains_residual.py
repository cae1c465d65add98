"""A student and its assistant behind one index, and the best that an assistant can be."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from recdistill.gains.residual import best_assistant, joined, left_to_teach
from recdistill.start import principal
from recdistill.topk import exact_topk
from recdistill.types import Vectors

USERS, ITEMS, DIM = 50, 36, 12


def drawn(seed: int, dim: int) -> Vectors:
    rng = np.random.default_rng(seed)
    sizes = 1.3 ** -np.arange(dim)
    users, items = rng.standard_normal((USERS, dim)) * sizes, rng.standard_normal((ITEMS, dim)) + 0.5
    return Vectors(users=users.astype(np.float32), items=items.astype(np.float32))


def scores(vectors: Vectors) -> np.ndarray:
    return vectors.users.astype(np.float64) @ vectors.items.astype(np.float64).T


def centred(table: np.ndarray) -> np.ndarray:
    return table - table.mean(1, keepdims=True)


def best(table: np.ndarray, rank: int) -> np.ndarray:
    u, s, v = np.linalg.svd(table, full_matrices=False)
    return u[:, :rank] * s[:rank] @ v[:rank]


def nearest(teacher: Vectors, dim: int) -> Vectors:
    users, items = principal(teacher, dim)
    return Vectors(users=users(0, USERS).numpy(), items=items(0, ITEMS).numpy())


def test_side_by_side_scores_add_up_and_the_first_columns_are_the_student() -> None:
    student, assistant = drawn(1, 4), drawn(2, 3)
    both = joined(student, assistant)
    np.testing.assert_allclose(scores(both), scores(student) + scores(assistant), atol=1e-6)
    np.testing.assert_array_equal(both.users[:, :4], student.users)
    np.testing.assert_array_equal(both.items[:, :4], student.items)
    assert both.space == "dot"


@pytest.mark.parametrize("width", [4, 7])
def test_one_flat_index_lists_what_both_scores_together_list(width: int) -> None:
    student, assistant = drawn(1, 4), drawn(2, 3)
    both = joined(student, assistant)
    index = faiss.IndexFlatIP(width)
    index.add(np.ascontiguousarray(both.items[:, :width]))
    got, found = index.search(np.ascontiguousarray(both.users[:, :width]), 10)
    wanted = scores(student) + (scores(assistant) if width == 7 else 0)
    order = np.argsort(-wanted, axis=1)[:, :10]
    np.testing.assert_array_equal(found, order)
    np.testing.assert_allclose(got, np.take_along_axis(wanted, order, axis=1), atol=1e-4)


def test_what_is_left_is_the_teachers_score_less_the_students() -> None:
    teacher, student = drawn(0, DIM), drawn(1, 4)
    left = left_to_teach(teacher, student)
    assert left.users.shape == (USERS, DIM + 4)
    np.testing.assert_allclose(scores(left), scores(teacher) - scores(student), atol=1e-6)


def test_an_assistant_that_says_what_is_left_makes_the_teacher() -> None:
    teacher, student = drawn(0, DIM), drawn(1, 4)
    whole = joined(student, left_to_teach(teacher, student))
    np.testing.assert_allclose(scores(whole), scores(teacher), atol=1e-5)
    np.testing.assert_array_equal(
        exact_topk(whole.users, whole.items, 5).items, exact_topk(teacher.users, teacher.items, 5).items
    )


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_the_best_assistant_is_the_nearest_to_what_is_left(dim: int) -> None:
    teacher, student = drawn(0, DIM), drawn(1, 4)
    wanted = best(centred(scores(teacher) - scores(student)), dim)
    np.testing.assert_allclose(scores(best_assistant(teacher, student, dim)), wanted, atol=1e-4)


@pytest.mark.parametrize(("first", "then"), [(4, 3), (1, 1), (6, 5)])
def test_step_by_step_loses_nothing(first: int, then: int) -> None:
    teacher = drawn(0, DIM)
    student = nearest(teacher, first)
    both = joined(student, best_assistant(teacher, student, then))
    np.testing.assert_allclose(scores(both), best(centred(scores(teacher)), first + then), atol=1e-4)


def test_at_full_width_nothing_is_left_but_what_all_items_share() -> None:
    teacher, student = drawn(0, DIM), drawn(1, 4)
    both = joined(student, best_assistant(teacher, student, DIM + 4))
    np.testing.assert_allclose(centred(scores(both)), centred(scores(teacher)), atol=1e-4)


def test_a_copy_of_the_teacher_leaves_nothing() -> None:
    teacher = drawn(0, DIM)
    np.testing.assert_allclose(scores(best_assistant(teacher, teacher, 3)), 0, atol=1e-5)


def test_who_has_no_vector_stays_without_one() -> None:
    teacher, student = drawn(0, DIM), drawn(1, 4)
    for vectors in (teacher, student):
        vectors.users[3], vectors.items[5] = 0, 0
    found = best_assistant(teacher, student, 3)
    assert not found.users[3].any()
    assert not found.items[5].any()


def test_tables_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="rows"):
        joined(drawn(0, 4), Vectors(users=np.zeros((USERS - 1, 2), np.float32), items=np.zeros((ITEMS, 2), np.float32)))
