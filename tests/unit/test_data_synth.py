"""The planted log has what it claims: tastes that features tell, that drift, and the same bytes each time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec
from recdistill.data.split import GlobalTime, split
from recdistill.data.synth import synthesize


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "data"
    synthesize(out, users=400, items=300, events_per_user=20, seed=3)
    return out


def tables(home: Path) -> dict[str, pl.DataFrame]:
    return {p.stem: pl.read_parquet(p) for p in home.iterdir()}


def test_the_same_seed_gives_the_same_bytes(planted, tmp_path):
    for name, seed in (("same", 3), ("other", 4)):
        synthesize(tmp_path / name, users=400, items=300, events_per_user=20, seed=seed)
    for file in planted.iterdir():
        assert file.read_bytes() == (tmp_path / "same" / file.name).read_bytes()
    rows = pl.read_parquet(planted / "interactions.parquet")
    assert not rows.equals(pl.read_parquet(tmp_path / "other/interactions.parquet"))


def test_no_pair_repeats_and_every_id_has_features(planted):
    t = tables(planted)
    log = t["interactions"]
    assert log.select("user_id", "item_id").n_unique() == log.height
    assert log.join(t["users"], on="user_id").height == log.join(t["items"], on="item_id").height == log.height
    assert log["timestamp"].max() < datetime(2026, 1, 1, tzinfo=UTC)
    assert abs(log.height / 400 - 20) < 2
    counts = log["item_id"].value_counts()["count"].sort(descending=True)
    assert counts.head(30).sum() > 2 * counts.tail(150).sum() * 30 / 150  # a head and a tail


def genre_share(rows: pl.DataFrame, by: str) -> float:
    """Return how much of a group's interactions have its most frequent genre, on average over its members."""
    main = rows.with_columns(genre=pl.col("genres").str.split(" ").list.first())
    counts = main.group_by(by, "genre").len().group_by(by).agg(pl.col("len").max() / pl.col("len").sum())
    return counts["len"].mean()


def test_users_have_a_taste_that_drifts(planted):
    t = tables(planted)
    rows = t["interactions"].join(t["items"], on="item_id").sort("timestamp")
    half = rows.height // 2
    halves = [genre_share(part, "user_id") for part in (rows[:half], rows[half:])]
    assert min(halves) > 0.4  # of 16 genres
    assert genre_share(rows, "user_id") < min(halves) - 0.05  # over both halves the taste is mixed


def test_segments_differ_in_what_they_take(planted):
    t = tables(planted)
    early = t["interactions"].sort("timestamp")[: t["interactions"].height // 2]
    rows = early.join(t["items"], on="item_id").join(t["users"], on="user_id")
    shuffled = rows.with_columns(segment=rows["segment"].shuffle(seed=1))
    assert genre_share(rows, "segment") > genre_share(shuffled, "segment") + 0.02


def test_it_can_be_ingested_and_split_by_time(planted, tmp_path):
    spec = LogSpec(path=str(planted / "interactions.parquet"), user="user_id", item="item_id", time="timestamp")
    ingest(spec, None, tmp_path / "in", now=datetime(2026, 1, 1, tzinfo=UTC))
    facts = split(tmp_path / "in", GlobalTime(), tmp_path / "out")
    assert [f["name"] for f in facts["lint"] if f["severity"] == "refuse"] == []


def test_what_was_there_first_does_not_change_with_what_came_later(planted):
    t = tables(planted)
    first = t["interactions"].select("user_id", "item_id", "rating").row(0)
    assert first == ("u000351", 1236, 5.0)  # as the first version wrote them, before titles and events
    assert t["items"].select("item_id", "genres", "price").row(0) == (1118, "genre12", 33.35)


def test_titles_tell_the_cluster_and_most_of_their_words_do_not(planted):
    items = tables(planted)["items"]
    words = items.select("item_id", genre=pl.col("genres").str.split(" ").list.first(), word=pl.col("title"))
    words = words.with_columns(pl.col("word").str.to_lowercase().str.split(" ")).explode("word")
    genres = words.group_by("word").agg(pl.col("genre").n_unique(), pl.len().alias("times"))
    own = genres.filter((pl.col("genre") == 1) & (pl.col("times") >= 4))["word"]
    assert 50 < len(own) <= 16 * 6 + 10  # six words of each of 16 clusters, and some that met one by chance
    telling = words.filter(pl.col("word").is_in(own.implode()))
    assert 0.7 < telling["item_id"].n_unique() / items.height < 0.97  # nine titles in ten have such a word
    assert 0.2 < telling.height / words.height < 0.5


def test_what_is_liked_is_bought(planted):
    log = tables(planted)["interactions"]
    assert set(log["event"]) == {"view", "purchase"}
    share = {liked: rows["event"].eq("purchase").mean() for (liked,), rows in log.group_by(pl.col("rating") >= 4)}
    assert abs(share[True] - 0.6) < 0.05
    assert abs(share[False] - 0.1) < 0.05
