"""Drift is nothing between equal days, all where everything was replaced, and by hand in between."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recdistill.daily_drift import beside, days_of, divergence, drift, items_since, moved


def counted(name: str, **counts: int) -> pl.DataFrame:
    return pl.DataFrame({name: list(counts), "count": list(counts.values())})


def reference(p: np.ndarray, q: np.ndarray) -> float:
    """The entropy of the mean less the mean of the entropies, which is the other way to write it."""

    def entropy(x: np.ndarray) -> float:
        return -sum(v * np.log2(v) for v in x.astype(np.float64) if v > 0)

    p, q = p / p.sum(), q / q.sum()
    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


@pytest.mark.parametrize("seed", range(4))
def test_the_divergence_is_that_of_its_definition(seed) -> None:
    rng = np.random.default_rng(seed)
    then, now = rng.poisson(2.0, 300), rng.poisson(2.0, 300) * rng.integers(0, 2, 300)
    assert divergence(then, now) == pytest.approx(reference(then, now), abs=1e-12)
    assert divergence(then, now) == pytest.approx(divergence(now, then), abs=1e-12)


def test_shares_and_not_numbers_are_compared() -> None:
    then = np.array([5, 3, 2])
    assert divergence(then, 7 * then) == 0
    assert divergence(np.array([4, 0]), np.array([0, 9])) == 1
    assert divergence(np.array([1, 1]), np.array([1, 0])) == pytest.approx(0.75 * np.log2(4 / 3))


def test_a_quiet_day_does_not_drift() -> None:
    side = counted("user_id", a=3, b=2), counted("user_id", b=2, a=3)
    goods = counted("item_id", x=4, y=1), counted("item_id", y=1, x=4)
    shares = {"items_moved": 0, "new_users": 0, "gone_users": 0, "new_items": 0, "gone_items": 0}
    assert drift(side, goods, goods[1]) == shares | {"per_user_ratio": 1, "rows_ratio": 1}


def test_a_replaced_catalogue_is_all_there_is_of_drift() -> None:
    people = counted("user_id", a=3, b=2), counted("user_id", a=3, b=2)
    found = drift(people, (counted("item_id", x=4, y=1), counted("item_id", z=5)), counted("item_id", z=5))
    assert (found["items_moved"], found["new_items"], found["gone_items"]) == (1, 1, 1)
    assert found["new_users"] == found["gone_users"] == 0


def test_the_figures_by_hand() -> None:
    people = counted("user_id", a=3, b=2, c=5), counted("user_id", b=4, d=2)
    goods = counted("item_id", x=6, y=4), counted("item_id", y=3, z=3)
    found = drift(people, goods, counted("item_id", y=300, z=300))
    assert found["new_users"] == 1 / 2
    assert found["gone_users"] == 2 / 3
    assert found["new_items"] == 3 / 6
    assert found["gone_items"] == 6 / 10
    assert found["rows_ratio"] == 6 / 10
    assert found["per_user_ratio"] == pytest.approx((6 / 2) / (10 / 3))
    then, since = np.array([6, 4, 0]), np.array([0, 300, 300])
    draws = np.random.default_rng(1).multinomial(600, then / 10, 2_000)
    by_chance = float(np.mean([reference(then, drawn) for drawn in draws]))
    expected = (reference(then, since) - by_chance) / (1 - by_chance)
    assert found["items_moved"] == pytest.approx(expected, abs=1e-3)


def test_ids_of_two_types_never_meet() -> None:
    numbers = pl.DataFrame({"item_id": [1, 2], "count": [3, 4]})
    then, now = beside(numbers, numbers.with_columns(pl.col("item_id").cast(pl.String)))
    assert (then.tolist(), now.tolist()) == ([3, 4, 0, 0], [0, 0, 3, 4])


def test_the_last_day_is_held_against_the_others_since_the_log_began() -> None:
    days = {"d1": 0, "d2": 10, "d3": 0, "d4": 30, "d5": 5}
    assert days_of({"days": days}) == {"last_day_ratio": 5 / 20, "empty_days": 1}
    assert days_of({"days": {"d1": 0, "d2": 7}}) == {"last_day_ratio": 1, "empty_days": 0}


def test_what_came_since_is_counted_by_item_from_the_next_day_on(tmp_path) -> None:
    day = 86_400_000_000
    rows = {"user": [0, 0, 1, 1, 1], "item": [0, 2, 2, 1, 2], "time": [0, day - 1, day, day + 5, 2 * day]}
    pl.DataFrame(rows).write_parquet(tmp_path / "log.parquet")
    pl.DataFrame({"item_id": ["x", "y", "z"], "count": [1, 1, 3]}).write_parquet(tmp_path / "items.parquet")
    assert items_since(tmp_path, "1970-01-01T09:00:00+00:00").rows() == [("y", 1), ("z", 2)]
    assert items_since(tmp_path, "1970-01-03T00:00:00+00:00").rows() == []


@pytest.mark.parametrize("rows", [200, 5_000, 200_000])
def test_few_rows_of_an_unchanged_catalogue_have_not_moved_and_of_another_one_have(rows) -> None:
    rng = np.random.default_rng(rows)
    then = rng.zipf(1.6, 1_000).clip(max=5_000)
    shares = then / then.sum()
    assert moved(then, rng.multinomial(rows, shares)) < 0.03
    other = moved(then, rng.multinomial(rows, rng.permutation(shares)))
    assert other == pytest.approx(moved(then, rng.multinomial(10**7, shares[::-1])), abs=0.25)
    assert other > 0.4
    assert moved(np.r_[then, np.zeros_like(then)], np.r_[np.zeros_like(then), then]) == 1


def test_what_counts_nothing_has_not_moved() -> None:
    assert moved(np.zeros(3, np.int64), np.array([1, 2, 3])) == moved(np.array([1, 2, 3]), np.zeros(3, np.int64)) == 0
