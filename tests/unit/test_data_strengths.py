"""Weights and events stay with their rows, from the log through every split to the dataset."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recdistill.data.dataset import read_dataset
from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec
from recdistill.data.split import (
    Given,
    GlobalTime,
    LeaveLast,
    UserChronological,
    UserRandom,
    event_codes,
    event_names,
    split,
)
from recdistill.errors import DataError
from recdistill.types import Dataset

NAMES = ("buy", "like", "view")
ALL = ["cold_users", "cold_items", "id_order", "overlap", "time_leakage"]
KINDS = [
    GlobalTime(allow=ALL),
    UserChronological(kind="user_chronological", allow=ALL),
    LeaveLast(kind="leave_last", allow=ALL),
    UserRandom(kind="user_random", seed=5, allow=ALL),
    Given(kind="given", allow=ALL),
]


def weight_of(user: int, item: int) -> float:
    return user * 64 + item + 0.5  # exact in float32


def event_of(user: int, item: int) -> str | None:
    return (*NAMES, None)[(3 * user + item) % 4]


def planted() -> pl.DataFrame:
    """Return rows whose weight and event say which row they are; ids are the dense rows, the file is shuffled."""
    rng = np.random.default_rng(2)
    rows = []
    for user in range(30):
        for n, item in enumerate(rng.permutation(40)[: 4 + user % 20]):
            part = "test" if n % 4 == 3 else "train"
            rows.append((user, int(item), int(rng.integers(60)), weight_of(user, item), event_of(user, item), part))
    frame = pl.DataFrame(rows, ["user_id", "item_id", "t", "stars", "what", "part"], orient="row")
    return frame.sample(fraction=1.0, shuffle=True, seed=1)


def dataset(home: Path, frame: pl.DataFrame, spec: Any, **columns: Any) -> tuple[Dataset, dict[str, Any]]:
    frame.write_parquet(home / "log.parquet")
    log = LogSpec(path=str(home / "log.parquet"), user="user_id", item="item_id", **columns)
    ingest(log, None, home / "in", now=datetime(2026, 1, 1, tzinfo=UTC))
    facts = split(home / "in", spec, home / "out")
    return read_dataset(home / "in", home / "out"), facts


@pytest.mark.parametrize("spec", KINDS, ids=lambda s: s.kind)
def test_every_row_keeps_its_weight_and_event(tmp_path, spec):
    frame = planted()
    data, facts = dataset(tmp_path, frame, spec, time="t", weight="stars", event="what", split="part")
    assert data.events == NAMES
    assert data.item_ids.to_list() == list(range(40))
    seen = 0
    for part in (data.train, data.valid, data.test):
        pairs = list(zip(part.users().tolist(), part.items.tolist(), strict=True))
        assert part.weights.tolist() == [weight_of(u, i) for u, i in pairs]
        assert [None if e < 0 else data.events[e] for e in part.events] == [event_of(u, i) for u, i in pairs]
        assert (part.weights.dtype, part.events.dtype) == (np.float32, np.int16)
        assert not part.weights.flags.owndata  # views of the file, not copies
        assert not part.events.flags.owndata
        seen += len(pairs)
    assert seen == frame.height
    counts = np.bincount(data.train.events[data.train.events >= 0], minlength=3).tolist()
    assert facts["train_events"] == dict(zip(NAMES, counts, strict=True))
    assert json.loads((tmp_path / "out/events.json").read_text()) == list(NAMES)


def test_a_log_without_them_has_none(tmp_path):
    data, facts = dataset(tmp_path, planted(), UserRandom(kind="user_random"))
    assert data.events == ()
    assert data.train.weights is data.train.events is data.train.times is None
    assert "train_events" not in facts


def test_what_does_not_count_is_not_there_to_learn_from(tmp_path):
    columns = {"weight": "stars", "event": "what", "events": ["view", "buy", "sell"], "min_weight": 500.0}
    data, _ = dataset(tmp_path, planted(), UserRandom(kind="user_random"), **columns)
    assert data.events == ("buy", "view")
    for part in (data.train, data.valid, data.test):
        assert part.weights.min() >= 500.0
        assert set(part.events.tolist()) == {0, 1}


@pytest.mark.parametrize(("keep", "row"), [("keep_last", (3.0, "buy")), ("keep_first", (1.0, "view"))])
def test_of_repeated_pairs_the_kept_row_brings_its_own(tmp_path, keep, row):
    rest = [(u, i, 9, 7.0, "like") for u in range(6) for i in range(1, 6)]
    twice = [(0, 0, 5, 3.0, "buy"), (0, 0, 2, 1.0, "view"), (0, 0, 3, 2.0, "like")]
    frame = pl.DataFrame(rest + twice, ["user_id", "item_id", "t", "stars", "what"], orient="row")
    spec = UserChronological(kind="user_chronological")
    data, _ = dataset(tmp_path, frame, spec, time="t", weight="stars", event="what", duplicates=keep)
    at = int(np.flatnonzero(data.train.items == 0)[0])  # the earliest, and so in train
    assert (data.train.weights[at], data.events[data.train.events[at]]) == row


def test_a_blank_names_no_event():
    log = pl.DataFrame({"event": ["view", None, " ", "buy"]})
    names = event_names(log.lazy(), "here")
    assert (event_codes(log["event"], names).to_list(), names) == ([1, -1, -1, 0], ["buy", "view"])
    assert event_names(log[1:3].lazy(), "here") == []
    found = event_codes(log["event"][1:3], [])
    assert (found.to_list(), found.dtype) == ([-1, -1], pl.Int16)


def test_a_column_that_names_no_events_is_refused(tmp_path):
    rows = [(u, i, f"{u}/{i}") for u in range(60) for i in range(20)]
    frame = pl.DataFrame(rows, ["user_id", "item_id", "what"], orient="row")
    with pytest.raises(DataError, match=r"log\.event has 1200 different values, first: .*'0/0'") as caught:
        dataset(tmp_path, frame, UserRandom(kind="user_random"), event="what")
    assert "leave log.event out" in (caught.value.fix or "")
    assert not (tmp_path / "out").exists()
