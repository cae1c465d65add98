"""Somebody else's scores: what joins becomes lists, and a file that breaks its contract is named with its fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recdistill.errors import DataError
from recdistill.external import external_lister
from recdistill.models.spec import ExternalSpec
from recdistill.types import Dataset, Interactions


def interactions(lists: list[list[int]]) -> Interactions:
    flat = np.array([item for one in lists for item in one], np.int64)
    return Interactions(indptr=np.cumsum([0, *map(len, lists)]).astype(np.int64), items=flat)


NOTHING = interactions([[], [], []])
DATA = Dataset(
    user_ids=pl.Series(["ann", "bob", "cyd"]),
    item_ids=pl.Series([10, 20, 30, 40, 50]),
    train=interactions([[0], [1, 4], []]),
    valid=NOTHING,
    test=NOTHING,
)
GOOD = {
    "user_id": ["ann", "ann", "ann", "ann", "bob", "bob", "eve"],
    "item_id": [10, 20, 30, 40, 20, 99, 10],
    "score": [9.0, 1.0, 2.0, 2.0, 3.0, 8.0, 1.0],
}


def spec(home: Path, columns: dict[str, Any], **names: str) -> ExternalSpec:
    pl.DataFrame(columns, strict=False).write_parquet(home / "scores.parquet")
    return ExternalSpec(path=str(home / "scores.parquet"), **names)


def lists(found: ExternalSpec, depth: int, seen: Interactions | None) -> tuple[list, list, list, dict[str, Any]]:
    lister, joined = external_lister(found, DATA, depth, seen)
    best = lister(np.array([0, 1, 2]))
    return best.items.tolist(), best.scores.tolist(), best.residual.tolist(), joined


def test_the_file_s_scores_become_lists(tmp_path: Path) -> None:
    """Ties stand in order of item row; what is longer than the list is its residual."""
    items, scores, residual, joined = lists(spec(tmp_path, GOOD), 3, None)
    inf = float("inf")
    assert items == [[0, 2, 3], [1, -1, -1], [-1, -1, -1]]
    assert scores == [[9.0, 2.0, 2.0], [3.0, -inf, -inf], [-inf, -inf, -inf]]
    assert residual == [1.0, -inf, -inf]
    assert joined == {  # item 99 and eve are not in the log
        "rows": 7,
        "rows_joined": 5,
        "rows_joined_share": round(5 / 7, 6),
        "rows_seen": 0,
        "users": 3,
        "users_joined": 2,
        "users_joined_share": round(2 / 3, 6),
        "items": 5,
        "items_joined": 4,
        "items_joined_share": 0.8,
    }


def test_what_a_user_has_is_left_out(tmp_path: Path) -> None:
    items, _, residual, joined = lists(spec(tmp_path, GOOD), 2, DATA.train)
    assert items == [[2, 3], [-1, -1], [-1, -1]]
    assert residual == [1.0, float("-inf"), float("-inf")]
    assert (joined["rows_joined"], joined["rows_seen"]) == (5, 2)  # (ann, 10) and (bob, 20)


def test_a_residual_of_several_is_their_logsumexp(tmp_path: Path) -> None:
    _, _, residual, _ = lists(spec(tmp_path, GOOD), 1, None)
    assert residual[0] == pytest.approx(np.log(np.exp(1.0) + np.exp(2.0) + np.exp(2.0)), abs=1e-6)


def test_users_are_answered_in_the_order_asked(tmp_path: Path) -> None:
    lister, _ = external_lister(spec(tmp_path, GOOD), DATA, 1, None)
    assert lister(np.array([2, 1, 0, 1])).items.tolist() == [[-1], [1], [0], [1]]
    assert lister(np.zeros(0, np.int64)).items.shape == (0, 1)


def test_a_sample_of_the_rest_is_of_what_the_file_scores(tmp_path: Path) -> None:
    lister, _ = external_lister(spec(tmp_path, GOOD), DATA, 1, None, rest=2)
    best = lister(np.array([0, 1, 0]))
    assert best.rest_items is not None
    assert best.rest_scores is not None
    assert best.items.tolist() == [[0], [1], [0]]
    given = {1: 1.0, 2: 2.0, 3: 2.0}  # of ann, outside the list
    assert len(set(best.rest_items[0].tolist())) == 2
    assert [given[item] for item in best.rest_items[0].tolist()] == best.rest_scores[0].tolist()
    np.testing.assert_allclose(best.rest_logq[0], np.log(2 / 3), rtol=1e-6)
    assert best.rest_items[1].tolist() == [-1, -1]
    assert best.rest_items[2].tolist() == best.rest_items[0].tolist()
    assert np.isneginf(best.rest_scores[1]).all()


@pytest.mark.parametrize(("ours", "theirs", "fails"), [(1, 400, True), (3, 400, False), (1, 90, False)])
def test_a_join_of_next_to_nothing_is_taken_for_a_mistake(tmp_path: Path, ours: int, theirs: int, fails: bool) -> None:
    """One of 200 users has rows, which is less than 1%; so are `ours` rows in a file of many strangers', or not."""
    everyone = interactions([[0]] * 200)
    names = [f"u{n}" for n in range(200)]
    data = replace(DATA, user_ids=pl.Series(names), train=everyone, valid=everyone, test=everyone)
    users = names[:ours] + [f"stranger{n}" for n in range(theirs)]
    file = spec(tmp_path, {"user_id": users, "item_id": [10] * len(users), "score": [1.0] * len(users)})
    if not fails:
        assert external_lister(file, data, 2, None)[1]["rows_joined"] == ours
        return
    with pytest.raises(DataError, match=r"1 of its 401 rows have both .* 1 of 200 users with training data") as refused:
        external_lister(file, data, 2, None)
    assert "less than 1% of both" in str(refused.value)


def test_other_names_and_whole_numbers_will_do(tmp_path: Path) -> None:
    other = {"who": ["bob", "bob"], "what": [10, 30], "logit": [1, 2]}
    named = spec(tmp_path, other, user="who", item="what", score="logit")
    items, scores, _, _ = lists(named, 2, None)
    assert (items[1], scores[1]) == ([2, 0], [2.0, 1.0])


def test_smaller_integers_are_the_same_ids(tmp_path: Path) -> None:
    pl.DataFrame(GOOD).with_columns(pl.col("item_id").cast(pl.Int32)).write_parquet(tmp_path / "scores.parquet")
    assert lists(ExternalSpec(path=str(tmp_path / "scores.parquet")), 1, None)[0] == [[0], [1], [-1]]


def test_a_score_that_came_as_decimal_is_a_number(tmp_path: Path) -> None:
    pl.DataFrame(GOOD).with_columns(pl.col("score").cast(pl.Decimal(10, 2))).write_parquet(tmp_path / "scores.parquet")
    assert lists(ExternalSpec(path=str(tmp_path / "scores.parquet")), 1, None)[1][0] == [9.0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"score": None}, ["no column 'score'; it has user_id, item_id, scores", "did you mean 'scores'?"]),
        ({"item_id": None}, ["no column 'item_id'"]),
        ({"score": [1.0, None, 3.0, 4.0, None, 6.0, 7.0]}, ["column 'score'", "2 rows are null", "rows [1, 4]"]),
        ({"score": [1.0, 2.0, float("nan"), 4.0, 5.0, 6.0, 7.0]}, ["column 'score'", "1 rows", "rows [2]"]),
        ({"score": [float("inf"), 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]}, ["column 'score'", "not finite", "rows [0]"]),
        ({"user_id": ["ann", None, "ann", "ann", "bob", "bob", "eve"]}, ["column 'user_id'", "1 rows", "rows [1]"]),
        ({"item_id": [10, 10, 30, 40, 20, 99, 10]}, ["more than once", "('ann', 10)"]),
        ({"score": ["9", "1", "2", "2", "3", "8", "1"]}, ["column 'score'", "scores of type String"]),
        ({"score": [True] * 7}, ["column 'score'", "scores of type Boolean"]),
        ({"user_id": [1, 2, 3, 4, 5, 6, 7]}, ["user_id", "ids of type Int64 where the log has String"]),
        ({"item_id": list("abcdefg")}, ["item_id", "ids of type String where the log has Int64"]),
        ({"item_id": [1, 2, 3, 4, 5, 6, 7]}, ["none of its 7 rows has both a user and an item of the log"]),
        ({"item_id": [10.0, 20.0, 30.0, 40.0, 20.0, 99.0, 10.0]}, ["item_id", "ids of type Float64"]),
    ],
)
@pytest.mark.parametrize("seen", [None, DATA.train])
def test_a_file_that_breaks_its_contract(tmp_path: Path, change, says: list[str], seen) -> None:
    columns = {name: value for name, value in (GOOD | change).items() if value is not None}
    if "score" not in columns:
        columns["scores"] = GOOD["score"]
    with pytest.raises(DataError) as refused:
        external_lister(spec(tmp_path, columns), DATA, 2, seen)
    assert refused.value.exit_code == 3
    assert refused.value.fix
    for text in ["scores.parquet", *says]:
        assert text in str(refused.value)


def test_float_ids_that_are_no_text_are_not_taken_for_text(tmp_path: Path) -> None:
    """Both are no integers, so that alone does not tell them apart."""
    with pytest.raises(DataError, match="ids of type Float64 where the log has String"):
        external_lister(spec(tmp_path, GOOD | {"user_id": [1.0, 2, 3, 4, 5, 6, 7]}), DATA, 2, None)


def test_a_file_without_rows_joins_nothing(tmp_path: Path) -> None:
    pl.DataFrame(GOOD).clear().write_parquet(tmp_path / "scores.parquet")
    with pytest.raises(DataError, match="none of its 0 rows"):
        external_lister(ExternalSpec(path=str(tmp_path / "scores.parquet")), DATA, 2, None)


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    found = spec(tmp_path, GOOD)
    file = Path(found.path)
    with pytest.raises(DataError, match=r"no such file\n  fix: did you mean 'scores\.parquet'"):
        external_lister(ExternalSpec(path=str(tmp_path / "score.parquet")), DATA, 2, None)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"scores\.parquet: cannot be read"):
        external_lister(found, DATA, 2, None)
    file.write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        external_lister(found, DATA, 2, None)
