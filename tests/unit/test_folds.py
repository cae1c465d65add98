"""Every training interaction is in one fold, whatever else there is, and a label says which."""

from __future__ import annotations

import numpy as np
import polars as pl

from recdistill.candidates import Chosen, Pool, with_own
from recdistill.folds import Fold, fold_of, labelled_folds, lacking, only, pick
from recdistill.labels import Lists
from recdistill.types import Dataset, Interactions

ITEMS = 50


def csr(rows: list[list[int]], **more: bool) -> Interactions:
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    items = np.array([i for row in rows for i in row], np.int64)
    extra = (
        {"times": np.arange(len(items), dtype=np.int64) * 7, "weights": items.astype(np.float32) / 3} if more else {}
    )
    return Interactions(indptr=indptr, items=items, **extra)


def data(rows: list[list[int]]) -> Dataset:
    empty = csr([[] for _ in rows])
    return Dataset(
        user_ids=pl.Series(range(len(rows))),
        item_ids=pl.Series(range(ITEMS)),
        train=csr(rows, timed=True),
        valid=empty,
        test=empty,
    )


def rows(seed: int = 1, users: int = 400) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.choice(ITEMS, int(rng.integers(0, 12)), replace=False).tolist() for _ in range(users)]


def pairs(log: Interactions) -> list[tuple[int, int, int, float]]:
    assert log.times is not None
    assert log.weights is not None
    return list(zip(log.users().tolist(), log.items.tolist(), log.times.tolist(), log.weights.tolist(), strict=True))


def test_folds_part_the_training_interactions() -> None:
    dataset, of = data(rows()), 3
    parts = [pairs(only(dataset, Fold(k, of))) for k in range(of)]
    assert sorted(one for part in parts for one in part) == sorted(pairs(dataset.train))  # each one once
    sizes = [len(part) for part in parts]
    assert min(sizes) > 0.28 * sum(sizes)  # about a third each
    for k, part in enumerate(parts):
        rest = pairs(lacking(dataset, Fold(k, of)).train)
        assert set(rest) == set(pairs(dataset.train)) - set(part)
        assert rest == [one for one in pairs(dataset.train) if one in set(rest)]  # in their order


def test_the_fold_of_a_pair_is_its_own() -> None:
    """It depends neither on what else the log holds nor on the order, so that a longer log keeps its folds."""
    users, items = np.array([0, 5, 5, 9]), np.array([3, 3, 4, 0])
    first = fold_of(users, items, ITEMS, 4)
    assert first.tolist() == fold_of(users[::-1], items[::-1], ITEMS, 4)[::-1].tolist()
    assert fold_of(users[2:3], items[2:3], ITEMS, 4)[0] == first[2]
    every = fold_of(np.repeat(np.arange(200), ITEMS), np.tile(np.arange(ITEMS), 200), ITEMS, 4)
    assert np.bincount(every, minlength=4).min() > 0.23 * len(every)


def test_pick_keeps_users_without_anything() -> None:
    log = csr([[1, 2], [], [3]])
    kept = pick(log, np.array([False, False, True]))
    assert (kept.indptr.tolist(), kept.items.tolist(), kept.times) == ([0, 0, 0, 1], [3], None)


def test_lists_say_the_fold_of_what_was_taken() -> None:
    dataset = data([[4, 7, 9], [], [7]])
    users = np.array([2, 0, 1])
    items = np.array([[1, 7, -1], [9, 8, 4], [4, 7, 9]])
    lists = Lists(items, np.zeros((3, 3), np.float32), np.zeros(3, np.float32))
    found = labelled_folds(lambda _: lists, dataset, 5)(users).fold
    assert found is not None
    of = fold_of(np.array([2, 0, 0]), np.array([7, 9, 4]), ITEMS, 5).tolist()
    assert found.dtype == np.int8
    assert found.tolist() == [[-1, of[0], -1], [of[1], -1, of[2]], [-1, -1, -1]]
    nobody = labelled_folds(lambda _: lists, data([[], [], []]), 5)(users).fold
    assert nobody is not None
    assert (nobody == -1).all()


def test_candidates_hold_what_a_user_took_for_certain() -> None:
    drawn = Chosen(np.array([[-1, 3, 8], [4, 5, 6]]), np.array([[0, -1.5, -1.5], [-1.5, 0, -1.5]], np.float32))
    chosen = with_own(Pool(lambda _: drawn), csr([[8, 2], []])).pick(np.array([0, 1]))
    known = [
        {i: q for i, q in zip(*row, strict=True) if i >= 0} for row in zip(*map(np.ndarray.tolist, chosen), strict=True)
    ]
    assert known == [{2: 0, 3: -1.5, 8: 0}, {4: -1.5, 5: 0, 6: -1.5}]
