"""Free text becomes codes by a hash that anybody can work out, whatever else the table holds."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recdistill.data.encode import encode_hashed, hash_word
from recdistill.data.features import FeaturesSpec, FeatureTableSpec, HashedText, read_features
from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec
from recdistill.errors import DataError

# `printf %s toy | b2sum -l 64` begins with 8d 1c: 0x1c8d is 7309, and codes begin at 1. The others likewise.
GOLDEN = {
    "toy": 7310,
    "story": 4750,
    "toy story": 671,
    "\u00e9clair": 38867,
    "\u6771\u4eac2020": 8056,
    "i\u0307st": 4488,
}
BUCKETS = 2**16
QUICK = settings(database=None, deadline=None, derandomize=True, max_examples=60)
# Letters of two cases, a letter whose two spellings are one, a digit, a mark, and what is in no word.
ALPHABET = "aAbB\u00e9\u0301\u00df\u0130\u03a3\u0924\u093f\u6771 \uff21\ufb01" + "7_-'.,!\t\n\U0001f600"


def codes(texts: list[str | None], buckets: int = BUCKETS, pairs: bool = False) -> list[list[int]]:
    return encode_hashed(pl.Series("t", texts, dtype=pl.String), buckets, pairs, "here")[0].to_list()


def words_by_hand(text: str) -> list[str]:
    """Cut at every character that is no letter, mark or digit, by Python's own tables."""
    plain = unicodedata.normalize("NFKC", text).lower()
    return "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in plain).split(" ")


@pytest.mark.parametrize("word", GOLDEN)
def test_a_word_has_the_code_that_b2sum_gives(word):
    assert hash_word(word, BUCKETS) == GOLDEN[word]


def test_words_are_cut_lowered_and_counted_once():
    texts = ["Toy Story", "story -- TOY, (toy)!", "history toy2", None, "", " .,! ", "e\u0301CLAIR \u00c9clair"]
    toy, story, eclair = GOLDEN["toy"], GOLDEN["story"], GOLDEN["\u00e9clair"]
    found = codes(texts)
    assert found[:2] == [[story, toy], [story, toy]]
    assert len(found[2]) == 2
    assert not {toy, story} & set(found[2])  # parts of words are no words
    assert found[3:] == [[], [], [], [eclair]]
    assert codes(["\u6771\u4eac2020\u3001", "\u0130st", "\uff34oy"]) == [[8056], [4488], [toy]]


def test_pairs_are_of_neighbours_in_one_row():
    toy, story, both = (GOLDEN[w] for w in ("toy", "story", "toy story"))
    assert codes(["Toy: story", "toy", "story", None, "story"], pairs=True) == [
        sorted([toy, story, both]),
        [toy],
        [story],
        [],
        [story],
    ]
    assert both not in codes(["story toy"], pairs=True)[0]


def test_the_facts_count_words_and_what_shares_a_code():
    # Of 256 buckets a word's first byte decides: toy and story both begin with 8d, which is 141; eclair with d2.
    values = pl.Series("t", ["toy story toy", None, "\u00e9clair", "--"])
    found, facts = encode_hashed(values, 256, False, "here")
    assert found.to_list() == [[142], [], [0xD2 + 1], []]
    assert facts == {
        "buckets": 256,
        "words": 4,
        "distinct": 3,
        "collision_rate": 0.666667,
        "rows_without_words": 2,
    }
    _, facts = encode_hashed(values, BUCKETS, False, "here")
    assert facts["collision_rate"] == 0.0


@pytest.mark.parametrize("values", [[], [None, None]])
def test_a_column_without_text_has_no_codes(values):
    found, facts = encode_hashed(pl.Series("t", values), 16, True, "here")
    assert found.to_list() == [[] for _ in values]
    assert found.dtype == pl.List(pl.Int64)
    assert (facts["words"], facts["distinct"], facts["collision_rate"]) == (0, 0, 0.0)


def test_a_very_long_text_is_one_row():
    text = " ".join(f"w{n % 5000}" for n in range(200_000))
    (found,) = codes([text], buckets=300)
    assert found == list(range(1, 301))  # 5000 words fill 300 buckets


@QUICK
@given(st.lists(st.one_of(st.none(), st.text(ALPHABET, max_size=30)), max_size=8), st.booleans(), st.randoms())
def test_a_row_has_the_codes_of_its_own_words(texts, pairs, random):
    expected = []
    for text in texts:
        words = [w for w in words_by_hand(text or "") if w]
        words += [" ".join(both) for both in pairwise(words)] if pairs else []
        expected.append(sorted({hash_word(w, 50) for w in words}))
    assert codes(texts, 50, pairs) == expected
    order = list(range(len(texts)))
    random.shuffle(order)
    assert codes([texts[o] for o in order], 50, pairs) == [expected[o] for o in order]


@QUICK
@given(st.text(max_size=20), st.integers(1, 2**40))
def test_a_code_is_between_one_and_the_number_of_buckets(word, buckets):
    assert 1 <= hash_word(word, buckets) <= buckets


@pytest.mark.parametrize(
    "values",
    [pl.Series([1, 2]), pl.Series([0.5]), pl.Series([True]), pl.Series([["toy"]]), pl.Series([datetime(2026, 1, 1)])],
    ids=lambda s: str(s.dtype),
)
def test_what_is_not_text_is_refused(values):
    with pytest.raises(DataError, match="a hashed feature of type") as caught:
        encode_hashed(values, 16, False, "items.parquet, column 'title'")
    assert str(values.dtype) in str(caught.value)
    assert "items.parquet, column 'title'" in str(caught.value)
    assert "list it as" in (caught.value.fix or "")


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["story", "toy"])], ids=str)
def test_text_kept_as_categories_is_text(kind):
    values = pl.Series("t", ["toy", None, "story"]).cast(kind)
    assert encode_hashed(values, BUCKETS, False, "here")[0].to_list() == [[7310], [], [4750]]


def test_hashed_columns_stand_beside_the_multi_valued(tmp_path: Path):
    pl.DataFrame({"u": ["a", "a", "b"], "i": [7, 8, 9]}).write_parquet(tmp_path / "log.parquet")
    items = {"item_id": [9, 7], "tags": ["x y", "y"], "title": ["Toy Story", "toy?"], "city": [None, "\u00c9clair"]}
    pl.DataFrame(items).write_csv(tmp_path / "items.csv")
    hashed = {"title": HashedText(buckets=BUCKETS, pairs=True), "city": HashedText(buckets=256)}
    table = FeatureTableSpec(path=str(tmp_path / "items.csv"), multi=["tags"], hashed=hashed)
    log = LogSpec(path=str(tmp_path / "log.parquet"), user="u", item="i")
    facts = ingest(log, FeaturesSpec(items=table), tmp_path / "out", now=datetime(2026, 1, 1, tzinfo=UTC))
    user, item = read_features(tmp_path / "out")
    assert dict(user.multi) == {}
    assert list(item.multi) == ["tags", "city", "title"]  # hashed ones by name, after the others
    assert item.sizes == {"tags": 3, "title": BUCKETS + 1, "city": 257}
    # Rows are 7, 8, 9, and 8 is in no row of the table.
    expected = {"title": ([0, 1, 1, 4], [7310, 671, 4750, 7310]), "city": ([0, 1, 1, 1], [0xD2 + 1])}
    for name, (offsets, found) in expected.items():
        assert item.multi[name][0].tolist() == offsets
        assert item.multi[name][1].tolist() == found
        assert item.multi[name][0].dtype == item.multi[name][1].dtype == np.int64
    assert item.multi["tags"][1].tolist() == [1, 1, 2]
    assert set(pl.read_parquet(tmp_path / "out/features_vocab.parquet")["column"]) == {"tags"}
    assert facts["features"]["item"]["hashed"]["title"]["words"] == 3
    assert facts["features"]["item"]["hashed"]["title"]["distinct"] == 3  # toy, story and the two together
    assert facts["features"]["item"]["hashed"]["city"]["rows_without_words"] == 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"hashed": {"a": {}}, "multi": ["a"]}, "a named twice"),
        ({"hashed": {"a": {"buckets": 1}}}, "greater than or equal to 2"),
        ({"hashed": {"a": {"bucket": 8}}}, "bucket"),
        ({"hashed": {}}, "without columns"),
    ],
)
def test_a_wrong_hashed_column_is_refused_by_its_schema(wrong, says):
    with pytest.raises(ValidationError, match=says):
        FeatureTableSpec.model_validate({"path": "items.csv", **wrong})
