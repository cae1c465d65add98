"""What teachers are judged by: the validation part, or each fold for those who lack it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from recdistill import heldout
from recdistill.errors import StageError
from recdistill.folds import fold_of
from recdistill.heldout import held_out, sheet, weights
from recdistill.types import Dataset, Interactions


def csr(rows: list[list[int]]) -> Interactions:
    items = np.array([i for row in rows for i in row], np.int64)
    return Interactions(indptr=np.cumsum([0, *map(len, rows)]).astype(np.int64), items=items)


def data(train: list[list[int]], valid: list[list[int]]) -> Dataset:
    return Dataset(
        user_ids=pl.Series(range(len(train))),
        item_ids=pl.Series(range(20)),
        train=csr(train),
        valid=csr(valid),
        test=csr([[] for _ in train]),
    )


def test_every_user_of_the_validation_part_counts_as_much() -> None:
    (held,) = held_out(data([[1], [2], [3]], [[4, 5, 6], [], [7]]), 0, ranker=False)
    assert held.users.tolist() == [0, 2]
    assert (held.rows.tolist(), held.items.tolist()) == ([0, 0, 0, 1], [4, 5, 6, 7])
    np.testing.assert_allclose(held.weight, [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert held.seen.items.tolist() == [1, 2, 3]


def test_a_fold_is_held_out_of_those_who_lack_it() -> None:
    train = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [1, 9]]
    dataset = data(train, [[], [], []])
    parts = held_out(dataset, 2, ranker=False)
    assert weights(parts).sum() == pytest.approx(1)
    for k, held in enumerate(parts):
        taken = list(zip(held.users[held.rows].tolist(), held.items.tolist(), strict=True))
        known = list(zip(held.seen.users().tolist(), held.seen.items.tolist(), strict=True))
        assert sorted(taken + known) == [(u, i) for u, row in enumerate(train) for i in row]
        users, items = np.array(taken).T
        assert (fold_of(users, items, 20, 2) == k).all()


def test_a_large_catalogue_is_judged_by_fewer_users(monkeypatch) -> None:
    dataset = data([[0]] * 300, [[1]] * 300)
    monkeypatch.setattr(heldout, "PAIRS", 20 * 100)
    monkeypatch.setattr(heldout, "RANKER_PAIRS", 20 * 70)
    sizes = [len(held_out(dataset, 0, ranker=ranker)[0].users) for ranker in (False, True)]
    assert sizes == [100, 70]
    first, again = (held_out(dataset, 0, ranker=False)[0].users for _ in range(2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != list(range(100))


def test_nothing_held_out_is_said() -> None:
    with pytest.raises(StageError, match="validation part is empty") as caught:
        held_out(data([[1], [2]], [[], []]), 0, ranker=False)
    assert "teacher.folds" in str(caught.value)


def test_a_sheet_holds_every_score_but_those_of_what_is_known() -> None:
    dataset = data([[1, 2], [3]] * 70, [[4], [5]] * 70)
    (held,) = held_out(dataset, 0, ranker=False)

    def score(users: np.ndarray, items: torch.Tensor | None) -> torch.Tensor:
        assert items is None
        return torch.from_numpy(users)[:, None] * 100.0 + torch.arange(20.0)

    found = sheet(score, held, 20)
    wanted = held.users[:, None] * 100.0 + np.arange(20.0)
    for row, user in enumerate(held.users):
        wanted[row, dataset.train.items[dataset.train.indptr[user] : dataset.train.indptr[user + 1]]] = -np.inf
    assert found.scores.tolist() == wanted.tolist()
