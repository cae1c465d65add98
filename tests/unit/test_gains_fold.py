"""The teacher's items behind a student's width: the fold, its bound, and the projector of least squares."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from recdistill.errors import DataError
from recdistill.gains import paired
from recdistill.gains.fold import Projector, fold, misses, solve

USERS, ITEMS, DS, DT = 60, 40, 5, 9


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.fixture
def given(rng) -> tuple[np.ndarray, np.ndarray, np.ndarray, Projector]:
    """Student's users, teacher's users and items, and a projector."""
    drawn = Projector(rng.standard_normal((DT, DS)), rng.standard_normal(DT))
    return normal(rng, USERS, DS), normal(rng, USERS, DT) + 1, normal(rng, ITEMS, DT), drawn


def said(u: np.ndarray, w: np.ndarray, p: Projector) -> np.ndarray:
    return (u.astype(np.float64) @ p.matrix.T + (0 if p.shift is None else p.shift)) @ w.astype(np.float64).T


@pytest.mark.parametrize("shifted", [False, True])
def test_folded_items_score_what_the_projector_says(given, shifted: bool) -> None:
    u, _, w, p = given
    p = p if shifted else Projector(p.matrix)
    folded = fold(u, w, p)
    assert folded.users.shape == (USERS, 8 if shifted else DS)
    np.testing.assert_allclose(folded.users @ folded.items.T, said(u, w, p), atol=1e-4)


def test_a_bias_of_items_is_part_of_the_score(given, rng) -> None:
    u, _, w, p = given
    bias = normal(rng, ITEMS)
    folded = fold(u, w, p, bias=bias)
    np.testing.assert_allclose(folded.users @ folded.items.T, said(u, w, p) + bias, atol=1e-4)
    alone = fold(u, w, Projector(p.matrix), bias=bias)
    np.testing.assert_array_equal(alone.items[:, DS], bias)
    with pytest.raises(ValueError, match="biases"):
        fold(u, w, p, bias=bias[:-1])


def sides(vectors) -> tuple[np.ndarray, np.ndarray]:
    return vectors.users, vectors.items


@pytest.mark.parametrize(("dim", "width"), [(3, 4), (4, 8), (7, 8), (8, 12)])
def test_what_is_added_ends_at_a_multiple_of_four_and_says_nothing_else(rng, dim: int, width: int) -> None:
    p = Projector(rng.standard_normal((DT, dim)), rng.standard_normal(DT))
    folded = fold(normal(rng, 3, dim), normal(rng, 4, DT), p)
    assert folded.users.shape[1] == folded.items.shape[1] == width
    assert (folded.users[:, dim] == 1).all()
    assert not folded.users[:, dim + 1 :].any()
    assert not folded.items[:, dim + 1 :].any()


def test_no_score_is_further_from_the_teachers_than_the_miss_times_the_items_length(given) -> None:
    u, h, w, _ = given
    p = solve(u, h)
    off = np.abs(said(u, w, p) - h.astype(np.float64) @ w.T.astype(np.float64))
    bound = misses(u, h, p)[:, None] * np.linalg.norm(w, axis=1)
    assert (off <= bound + 1e-5).all()
    assert off.max() > 0.1


def test_an_index_of_the_fold_lists_what_the_unfolded_product_lists(given) -> None:
    u, _, w, p = given
    folded, wide = fold(u, w, p), (u @ p.matrix.T + p.shift).astype(np.float32)
    found = []
    for users, items in (sides(folded), (wide, w)):
        index = faiss.IndexFlatIP(items.shape[1])
        index.add(np.ascontiguousarray(items))
        found.append(index.search(np.ascontiguousarray(users), 10)[1])
    np.testing.assert_array_equal(*found)


def test_a_teacher_of_cosines_lists_the_same_with_unit_items(given) -> None:
    u, _, w, p = given
    unit = w / np.linalg.norm(w, axis=1, keepdims=True)
    folded = fold(u, unit, p)
    wide = u @ p.matrix.T + p.shift
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_array_equal((folded.users @ folded.items.T).argmax(1), (wide / lengths @ unit.T).argmax(1))
    np.testing.assert_allclose(folded.users / lengths @ folded.items.T, wide / lengths @ unit.T, atol=1e-5)


@pytest.mark.parametrize("shift", [False, True])
def test_the_projector_is_that_of_least_squares(given, shift: bool) -> None:
    u, h, _, _ = given
    found = solve(u, h, shift=shift)
    more = np.concatenate([u, np.ones((USERS, 1))], axis=1) if shift else u.astype(np.float64)
    by_hand = np.linalg.lstsq(more, h.astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(found.matrix, by_hand[:DS].T, atol=1e-8)
    assert (found.shift is None) == (not shift)
    if found.shift is not None:
        np.testing.assert_allclose(found.shift, by_hand[DS], atol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
def test_with_a_ridge_its_gradient_is_zero(given, weighted: bool) -> None:
    u, h, w, _ = (x.astype(np.float64) if isinstance(x, np.ndarray) else x for x in given)
    p = solve(*given[:2], ridge=0.3, items=given[2] if weighted else None)
    gram = w.T @ w if weighted else np.eye(DT)
    off = u @ p.matrix.T + p.shift - h
    about = u - u.mean(0)
    penalty = 0.3 * np.trace(about.T @ about) / DS * np.trace(gram) / DT
    np.testing.assert_allclose(gram @ off.T @ u + penalty * p.matrix, 0, atol=1e-6)
    np.testing.assert_allclose(off.sum(0) @ gram, 0, atol=1e-6)


def test_weighing_by_scores_changes_nothing_until_something_is_shrunk(given) -> None:
    u, h, w, _ = given
    np.testing.assert_allclose(solve(u, h, items=w).matrix, solve(u, h).matrix, atol=1e-8)
    assert not np.allclose(solve(u, h, items=w, ridge=0.3).matrix, solve(u, h, ridge=0.3).matrix, atol=1e-2)


def test_what_no_item_reads_is_not_learned(given) -> None:
    u, h, w, _ = given
    flat = w.copy()
    flat[:, 3] = 0
    found = solve(u, h, items=flat)
    np.testing.assert_allclose(found.matrix[3], 0, atol=1e-9)
    np.testing.assert_allclose(said(u, flat, found), said(u, flat, solve(u, h)), atol=1e-6)


def test_a_planted_line_is_found_and_misses_nothing(given) -> None:
    u, _, w, p = given
    h = (u @ p.matrix.T + p.shift).astype(np.float32)
    found = solve(u, h)
    np.testing.assert_allclose(found.matrix, p.matrix, atol=1e-5)
    np.testing.assert_allclose(misses(u, h, found), 0, atol=1e-5)
    folded = fold(u, w, found)
    np.testing.assert_allclose(folded.users @ folded.items.T, h @ w.T, atol=1e-4)


def test_a_dimension_that_never_varies_is_left_alone(given) -> None:
    u, h, _, _ = given
    padded = np.concatenate([u, np.zeros((USERS, 2), np.float32)], axis=1)
    found = solve(padded, h)
    np.testing.assert_allclose(found.matrix[:, DS:], 0, atol=1e-12)
    np.testing.assert_allclose(found.matrix[:, :DS], solve(u, h).matrix, atol=1e-10)


def test_fewer_users_than_dimensions_are_met_exactly(given) -> None:
    u, h, _, _ = given
    np.testing.assert_allclose(misses(u[:3], h[:3], solve(u[:3], h[:3])), 0, atol=1e-5)


def test_blocks_change_nothing_and_who_has_no_vector_takes_no_part(given, monkeypatch) -> None:
    u, h, w, _ = given
    whole = solve(u, h, ridge=0.1, items=w)
    monkeypatch.setattr(paired, "BLOCK", 7)
    none_u, none_h = np.zeros((2, DS), np.float32), np.zeros((2, DT), np.float32)
    more = np.concatenate([none_u, u, u[:2] * 9]), np.concatenate([h[:2] * 9, h, none_h])
    np.testing.assert_allclose(solve(*more, ridge=0.1, items=w).matrix, whole.matrix, atol=1e-9)


def test_what_cannot_be_folded_is_refused(given) -> None:
    u, h, w, _ = given
    with pytest.raises(ValueError, match="rows"):
        solve(u[:-1], h)
    with pytest.raises(ValueError, match="dimensions"):
        solve(u, h, items=w[:, :-1])
    with pytest.raises(DataError, match="no user"):
        solve(np.zeros_like(u), h)
    broken = u.copy()
    broken[7, 0] = np.nan
    with pytest.raises(DataError, match="row 7"):
        solve(broken, h)
