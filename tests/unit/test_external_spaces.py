"""What somebody else's scores mean: logits as they are, probabilities as their logits, ranks turned round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recdistill.errors import DataError
from recdistill.external import external_lister, external_scorer
from recdistill.models.spec import ExternalSpec
from recdistill.types import Dataset, Interactions

NOTHING = Interactions(indptr=np.zeros(3, np.int64), items=np.zeros(0, np.int64))
DATA = Dataset(
    user_ids=pl.Series(["ann", "bob"]), item_ids=pl.Series([10, 20, 30]), train=NOTHING, valid=NOTHING, test=NOTHING
)


def file(home: Path, scores: list[Any], space: str) -> ExternalSpec:
    table = {"user_id": ["ann"] * 3 + ["bob"], "item_id": [10, 20, 30, 20], "score": scores}
    pl.DataFrame(table, strict=False).write_parquet(home / "scores.parquet")
    return ExternalSpec.model_validate({"path": str(home / "scores.parquet"), "space": space})


def test_probabilities_become_their_logits(tmp_path: Path) -> None:
    lister, _ = external_lister(file(tmp_path, [0.25, 0.5, 0.8, 0.1], "probability"), DATA, 3, None)
    lists = lister(np.array([0, 1]))
    assert lists.items.tolist() == [[2, 1, 0], [1, -1, -1]]
    np.testing.assert_allclose(lists.scores[0], [np.log(4), 0, -np.log(3)], atol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-lists.scores[1, 0])), 0.1, rtol=1e-6)


def test_certainty_is_clipped_where_it_says(tmp_path: Path) -> None:
    lister, _ = external_lister(file(tmp_path, [0, 1, 0.5, 1], "probability"), DATA, 3, None)
    scores = lister(np.array([0])).scores[0]
    np.testing.assert_allclose(scores, [np.log(1e9), 0, -np.log(1e9)], rtol=1e-6)


def test_of_ranks_the_smallest_is_best(tmp_path: Path) -> None:
    lister, _ = external_lister(file(tmp_path, [2, 3, 1, 1], "rank"), DATA, 2, None)
    lists = lister(np.array([0, 1]))
    assert lists.items.tolist() == [[2, 0], [1, -1]]
    assert lists.scores.tolist() == [[-1, -2], [-1, -np.inf]]


@pytest.mark.parametrize("bad", [1.2, -0.1, 7])
def test_what_is_no_probability_is_named(tmp_path: Path, bad: float) -> None:
    with pytest.raises(DataError, match="1 rows are no probabilities, from 0 to 1, first in rows \\[1\\]") as refused:
        external_lister(file(tmp_path, [0.1, bad, 0.3, 1.0], "probability"), DATA, 3, None)
    assert "column 'score'" in str(refused.value)
    assert "teacher.model.space" in str(refused.value)


def test_a_line_moves_scores_and_what_is_left_of_them(tmp_path: Path) -> None:
    spec = file(tmp_path, [1.0, 2.0, 3.0, 5.0], "logit")
    lister, _ = external_lister(spec, DATA, 1, None, scale=2.0, shift=-1.0)
    lists = lister(np.array([0]))
    assert lists.scores.tolist() == [[5.0]]
    assert lists.residual[0] == pytest.approx(np.log(np.exp(1.0) + np.exp(3.0)))


def test_the_scorer_knows_what_the_file_holds(tmp_path: Path) -> None:
    import torch

    score = external_scorer(file(tmp_path, [1.0, 2.0, 3.0, 5.0], "logit"), DATA)
    assert score(np.array([1, 0]), None).tolist() == [[-np.inf, 5.0, -np.inf], [1.0, 2.0, 3.0]]
    assert score(np.array([1]), torch.tensor([[1, 0]])).tolist() == [[5.0, -np.inf]]
