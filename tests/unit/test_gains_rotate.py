"""Turning today's vectors to yesterday's: exact where there is a turn, refused where it is not unique."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.errors import DataError
from recdistill.gains import paired
from recdistill.gains.rotate import continuity, rotation, turned
from recdistill.types import Interactions, Vectors

DIM = 8


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def orthogonal(seed: int, *, mirrored: bool) -> np.ndarray:
    q = np.linalg.qr(normal(seed, DIM, DIM))[0]
    q[:, 0] *= -1 if (np.linalg.det(q) < 0) != mirrored else 1
    return q


def single(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float32)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_copy_is_recovered_exactly(mirrored: bool) -> None:
    rows, turn = normal(0, 30, DIM), orthogonal(1, mirrored=mirrored)
    found = rotation(single(rows @ turn.T), single(rows))
    np.testing.assert_allclose(found, turn, atol=1e-5)
    np.testing.assert_allclose(single(rows @ turn.T) @ found, rows, atol=1e-5)


@pytest.mark.parametrize("rows", [DIM, 4 * DIM])
def test_permuted_channels_are_recovered_exactly_from_enough_rows(rows: int) -> None:
    given, order = normal(0, rows, DIM), np.random.default_rng(2).permutation(DIM)
    found = rotation(single(given[:, order]), single(given))
    np.testing.assert_allclose(found, np.eye(DIM)[order], atol=1e-4)


def test_fewer_rows_than_dimensions_are_refused() -> None:
    given = single(normal(0, DIM - 1, DIM))
    with pytest.raises(DataError, match="as many"):
        rotation(given, given)
    nobody = np.zeros((5, DIM), np.float32)
    with pytest.raises(DataError, match=f"{DIM - 1} rows"):
        rotation(np.concatenate([given, nobody]), np.concatenate([given, nobody + 1]))


def test_no_other_turn_comes_nearer() -> None:
    a, b = normal(0, 40, DIM), normal(1, 40, DIM)
    found = rotation(single(a), single(b))
    np.testing.assert_allclose(found.T @ found, np.eye(DIM), atol=1e-12)
    least = np.linalg.norm(a @ found - b)
    for seed in range(30):
        near = np.linalg.qr(found + 0.05 * normal(seed, DIM, DIM))[0]
        near *= np.sign((near * found).sum(0))
        assert least < np.linalg.norm(a @ near - b)


def test_without_mirrors_it_is_a_rotation_and_the_nearest_of_those() -> None:
    rows, turn = normal(0, 40, DIM), orthogonal(1, mirrored=True)
    a, b = rows @ turn.T, rows
    found = rotation(single(a), single(b), reflect=False)
    assert np.linalg.det(found) == pytest.approx(1)
    shortest = np.linalg.eigh(rows.T @ rows)[1][:, :1]  # along which a mirror moves the rows least
    np.testing.assert_allclose(found, turn @ (np.eye(DIM) - 2 * shortest @ shortest.T), atol=1e-4)
    least = np.linalg.norm(a @ found - b)
    assert least > 0.1
    for seed in range(30):
        step = 0.05 * normal(seed, DIM, DIM)
        near = found @ np.linalg.solve(np.eye(DIM) - step + step.T, np.eye(DIM) + step - step.T)  # Cayley's
        assert least < np.linalg.norm(a @ near - b)
    plain = orthogonal(1, mirrored=False)
    np.testing.assert_allclose(rotation(single(rows @ plain.T), single(rows), reflect=False), plain, atol=1e-5)


def test_a_column_of_zeros_stays_where_it_is() -> None:
    rows = normal(0, 30, DIM)
    rows[:, 5:] = 0
    turn = np.eye(DIM)
    turn[:5, :5] = np.linalg.qr(normal(3, 5, 5))[0]
    np.testing.assert_allclose(rotation(single(rows @ turn.T), single(rows)), turn, atol=1e-5)


def test_directions_that_no_row_has_are_not_turned() -> None:
    axes = orthogonal(4, mirrored=False)
    turn = np.eye(DIM)
    turn[:5, :5] = np.linalg.qr(normal(3, 5, 5))[0]
    turn = axes @ turn @ axes.T
    rows = normal(0, 30, 5) @ axes[:, :5].T
    np.testing.assert_allclose(rotation(single(rows @ turn.T), single(rows)), turn, atol=1e-2)


def test_scores_among_todays_do_not_change() -> None:
    today = Vectors(users=single(normal(0, 20, DIM)), items=single(normal(1, 15, DIM)), space="cosine")
    found = turned(today, rotation(single(normal(2, 30, DIM)), single(normal(3, 30, DIM))))
    np.testing.assert_allclose(found.users @ found.items.T, today.users @ today.items.T, atol=1e-5)
    assert found.space == "cosine"


def test_more_dimensions_are_brought_to_fewer_by_their_longest_axes() -> None:
    rng = np.random.default_rng(0)
    core, axes = rng.standard_normal((60, 3)) * [3, 2, 1], np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    wide = core @ axes[:3] + 0.01 * rng.standard_normal((60, 5)) @ axes[3:]
    narrow = core @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
    found = rotation(single(wide), single(narrow))
    assert found.shape == (DIM, 3)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(wide @ found, narrow, atol=0.02)
    made = turned(Vectors(users=single(wide), items=single(wide), space="cosine"), found)
    assert made.users.shape == (60, 3)
    assert made.space == "dot"
    with pytest.raises(ValueError, match="cannot be turned"):
        rotation(single(narrow), single(wide))
    with pytest.raises(ValueError, match="rows"):
        rotation(single(wide), single(narrow)[:-1])


def test_blocks_change_nothing(monkeypatch) -> None:
    a, b = single(normal(0, 40, DIM)), single(normal(1, 40, DIM - 3))
    whole = rotation(a, b)
    monkeypatch.setattr(paired, "BLOCK", 7)
    np.testing.assert_allclose(rotation(a, b), whole, atol=1e-9)


def days(noise: float) -> tuple[Vectors, Vectors, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Today, yesterday, and who is present in both: yesterday turned, with some that came and some that went."""
    users, items, turn = normal(0, 60, DIM), normal(1, 80, DIM), orthogonal(2, mirrored=True)
    yesterday = Vectors(users=single(users[:50]), items=single(items[:70]))
    moved = users[10:] + noise * normal(3, 50, DIM), items[5:] + noise * normal(4, 75, DIM)
    today = Vectors(users=single(moved[0] @ turn.T), items=single(moved[1] @ turn.T))
    return today, yesterday, (np.arange(40), np.arange(10, 50)), (np.arange(65), np.arange(5, 70))


def shared(today: Vectors, yesterday: Vectors, users, items) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.concatenate([today.users[users[0]], today.items[items[0]]]),
        np.concatenate([yesterday.users[users[1]], yesterday.items[items[1]]]),
    )


def test_yesterdays_cache_lists_what_today_lists_after_the_turn_and_not_before() -> None:
    given = days(0.0)
    kept = continuity(*given[:2], rotation(*shared(*given)), users=given[2], items=given[3], k=10)
    assert kept.cosine[1] == pytest.approx(1, abs=1e-6)
    assert kept.overlap[1] == 1
    assert kept.cosine[0] < 0.5
    assert kept.overlap[0] < 0.5


def test_a_day_that_moved_something_is_between() -> None:
    given = days(0.2)
    turn = rotation(*shared(*given))
    kept = continuity(*given[:2], turn, users=given[2], items=given[3], k=10)
    assert kept.overlap[0] < kept.overlap[1] < 1
    assert 0.9 < kept.cosine[1] < 1
    still = continuity(*given[:2], np.eye(DIM), users=given[2], items=given[3], k=10)
    assert still.cosine == (kept.cosine[0], kept.cosine[0])


def test_what_was_seen_is_in_neither_list() -> None:
    today, yesterday, users, items = days(0.0)
    # Everything but ten items is seen, so both lists hold the same ten, whatever the vectors are.
    taken = np.tile(np.arange(10, 75), 50)
    seen = Interactions(indptr=np.arange(51, dtype=np.int64) * 65, items=taken)
    kept = continuity(today, yesterday, np.eye(DIM), users=users, items=items, k=10, seen=seen)
    assert kept.overlap == (1, 1)


def test_a_turn_of_another_width_is_refused() -> None:
    today, yesterday, users, items = days(0.0)
    with pytest.raises(ValueError, match="turn"):
        continuity(today, yesterday, np.eye(DIM)[:, :3], users=users, items=items, k=10)
