"""The pieces of the scan: keys that sort, a partition, exponentials, a limit that lets nothing through."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill import topk_kernels
from recdistill.topk_kernels import (
    CHUNK,
    column_of,
    exponentials,
    limit_below,
    pack,
    partition,
    raise_maxima,
    ranked,
    score_of,
)

RISING = np.array([-np.inf, -3e38, -1.5, -1e-40, 0.0, 1e-40, 1.0, np.nextafter(np.float32(1), 2), 3e38], np.float32)


def test_keys_sort_by_score_and_give_it_back():
    keys = np.array([pack(score, np.int64(7)) for score in RISING], np.uint64)
    assert (keys[1:] > keys[:-1]).all()
    assert [score_of(key) for key in keys] == RISING.tolist()
    assert [column_of(key) for key in keys] == [7] * len(RISING)


def test_equal_scores_sort_the_lower_column_higher():
    assert pack(np.float32(2), np.int64(3)) > pack(np.float32(2), np.int64(4))
    assert pack(np.float32(-0.0), np.int64(3)) > pack(np.float32(0.0), np.int64(4))


@pytest.mark.parametrize("n", [1, 2, 3, 10, 500])
@pytest.mark.parametrize("order", ["random", "rising", "falling"])
def test_partition_puts_the_largest_first(n, order):
    values = np.random.default_rng(n).permutation(10 * n)[:n].astype(np.uint64)
    if order != "random":
        values = np.sort(values) if order == "rising" else np.sort(values)[::-1].copy()
    for k in {1, (n + 1) // 2, n}:
        keys = values.copy()
        assert partition(keys, n, k) == np.sort(values)[n - k]
        assert sorted(keys[:k]) == np.sort(values)[n - k :].tolist()
        assert sorted(keys) == sorted(values)


def test_exponentials_are_those_of_float64():
    x = -np.geomspace(1e-3, 80, CHUNK).astype(np.float32)
    expected = np.exp(x.astype(np.float64)).sum()
    assert exponentials(x, np.float32(0)) == pytest.approx(expected, rel=5e-7)
    one = np.full(CHUNK, -np.inf, np.float32)
    assert exponentials(one, np.float32(3)) == 0.0
    for value in (0.0, -0.3, -5.7, -40.0, -86.0):
        one[11] = value
        assert exponentials(one, np.float32(0)) == pytest.approx(np.exp(np.float64(np.float32(value))), rel=5e-6)


def test_the_maxima_of_lanes():
    x = -np.random.default_rng(0).random(CHUNK).astype(np.float32)
    lanes = np.full(64, ranked(np.float32(-0.01).view(np.int32)), np.int32)
    assert raise_maxima(x, lanes) == x.max()
    found = [np.int32(ranked(lane)).view(np.float32) for lane in lanes]
    assert found == np.maximum(x.reshape(-1, 64).max(0), np.float32(-0.01)).tolist()


@pytest.mark.parametrize("score", [-100.0, -1e-3, 0.0, 0.4, 7.9])
@pytest.mark.parametrize(("error", "relative"), [(0.0, 0.0), (0.25, 0.0), (0.05, 2.0**-8)])
def test_nothing_below_the_limit_can_be_as_good(score, error, relative):
    """The best that something shown just below the limit can be is worse than the worst the kth can be."""
    limit = float(limit_below(np.float32(score), error, relative))
    shown = np.nextafter(np.float32(limit), np.float32(-np.inf)).astype(np.float64)
    worst = np.float64(np.float32(score)) - error - relative * abs(np.float64(np.float32(score)))
    assert shown + error + relative * abs(shown) < worst
    assert limit + error + relative * abs(limit) > worst - 1e-5 * max(1, abs(score))


def test_where_nothing_can_be_cached_it_compiles_all_the_same(monkeypatch):
    real = topk_kernels.numba.njit

    def njit(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(topk_kernels.numba, "njit", njit)
    assert topk_kernels._compiled()(lambda x: x + 1)(2) == 3
