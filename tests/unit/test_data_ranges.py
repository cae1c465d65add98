"""Ingest and split come to the same whatever the ranges and blocks: against a reference that holds the whole log."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data import assign, blocks, mapped, ranges
from recdistill.data.assign import chronological, order_statistics
from recdistill.data.dataset import read_part
from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec
from recdistill.data.order import mixed, stable_order
from recdistill.data.split import Given, GlobalTime, LeaveLast, UserChronological, UserRandom, split
from recdistill.errors import DataError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = {"time": "at", "weight": "stars", "event": "did", "split": "part"}
ALLOW = ["cold_users", "cold_items", "id_order", "overlap", "time_leakage", "count_token"]
KINDS = [
    GlobalTime(allow=ALLOW),
    UserChronological(kind="user_chronological", allow=ALLOW),
    LeaveLast(kind="leave_last", allow=ALLOW),
    UserRandom(kind="user_random", seed=3, allow=ALLOW),
    Given(kind="given", seed=4, allow=ALLOW),
]


def make_log(seed: int, ids: str) -> pl.DataFrame:
    """Return a log of 600 rows with pairs that repeat, times that tie, and users of one row beside users of many."""
    rng, n = np.random.default_rng(seed), 600
    user, item = rng.zipf(1.4, n) % 40, rng.zipf(1.6, n) % 25
    kinds = {
        "whole": (user * 7919 - 100, item * 31),
        "text": ([f"u{u}" for u in user], [f"{i:03d}" for i in item]),
        "large": (user.astype(np.uint64) + np.uint64(2**63), item),
    }
    names, things = kinds[ids]
    return pl.DataFrame(
        {
            "who": names,
            "what": things,
            "at": rng.integers(0, 60, n) * rng.choice([1, 1000]),
            "stars": rng.integers(1, 6, n).astype(np.float32),
            "did": [[None, "buy", "view"][d] for d in rng.integers(3, size=n)],
            "part": [["train", "train", "test"][p] for p in rng.integers(3, size=n)],
        }
    )


def naive(log: pl.DataFrame, named: list[str], keep: str, least: tuple[int, int]) -> tuple[list, list, list]:
    """Return the rows, users and items that ingest should write, one row at a time."""
    place = {"time": 2, "weight": 3, "event": 4, "split": 5}
    rows = [(*row, n) for n, row in enumerate(log.rows())]
    rows.sort(key=lambda r: (r[2] if "time" in named else 0, r[-1]))
    once: dict[tuple, tuple] = {}
    for row in rows if keep == "keep_last" else rows[::-1]:
        once[row[0], row[1], row[5] if "split" in named else None] = row
    left = list(once.values())
    while True:
        users, items = Counter(r[0] for r in left), Counter(r[1] for r in left)
        kept = [r for r in left if users[r[0]] >= least[0] and items[r[1]] >= least[1]]
        if len(kept) == len(left):
            break
        left = kept
    dense = [{one: n for n, one in enumerate(sorted(side))} for side in (users, items)]
    by = [place[c] for c in ("time", "split") if c in named]
    left.sort(
        key=lambda r: (dense[0][r[0]], *(r[p] for p in by if p == 2), dense[1][r[1]], *(r[p] for p in by if p == 5))
    )
    scale = {"time": 1_000_000}
    told = [
        (dense[0][r[0]], dense[1][r[1]], *(r[place[c]] * scale[c] if c in scale else r[place[c]] for c in named))
        for r in left
    ]
    return told, sorted(users.items()), sorted(items.items())


def ingested(log: pl.DataFrame, named: list[str], home: Path, **spec) -> Path:
    home.mkdir(parents=True)
    log.write_parquet(home / "log.parquet")
    columns = {name: COLUMNS[name] for name in named}
    whole = LogSpec(path=str(home / "log.parquet"), user="who", item="what", **columns, **spec)
    ingest(whole, None, home / "in", now=NOW)
    return home / "in"


@pytest.mark.parametrize("named", [["time", "weight"], ["weight"], ["time", "event", "split"], ["split"]], ids="-".join)
@pytest.mark.parametrize(("ids", "keep"), [("whole", "keep_last"), ("text", "keep_first"), ("large", "keep_last")])
def test_a_log_in_ranges_is_what_one_row_at_a_time_gives(tmp_path, monkeypatch, ids, named, keep):
    log, least = make_log(len(named), ids), (3, 4)
    rows, users, items = naive(log, named, keep, least)
    found = []
    for size in (30, 10_000):
        monkeypatch.setattr(ranges, "ROWS", size)
        out = ingested(log, named, tmp_path / str(size), min_user=least[0], min_item=least[1], duplicates=keep)
        assert pl.read_parquet(out / "log.parquet").rows() == rows
        assert pl.read_parquet(out / "users.parquet").rows() == users
        assert pl.read_parquet(out / "items.parquet").rows() == items
        assert not (out / ".rows").exists()
        found.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert found[0] == found[1]


def test_times_too_far_apart_for_one_number_come_in_the_same_order(tmp_path, monkeypatch):
    log = make_log(7, "whole")
    first = ingested(log, ["time"], tmp_path / "a")
    monkeypatch.setattr(ranges, "INT64", 1)
    second = ingested(log, ["time"], tmp_path / "b")
    assert (first / "log.parquet").read_bytes() == (second / "log.parquet").read_bytes()


@pytest.mark.parametrize("size", [30, 10_000])
def test_refused_repeats_are_told_with_the_first_of_them(tmp_path, monkeypatch, size):
    monkeypatch.setattr(ranges, "ROWS", size)
    log = make_log(0, "text")
    pairs = Counter(zip(log["who"], log["what"], strict=True))
    again = sorted(pair for pair, n in pairs.items() if n > 1)
    last = {pair: n for n, pair in enumerate(zip(log["who"], log["what"], strict=True), start=1)}
    with pytest.raises(DataError) as caught:
        ingested(log, ["time"], tmp_path / "log", duplicates="refuse")
    told = ", ".join(f"('{u}', '{i}') {pairs[u, i]} times, last in row {last[u, i]}" for u, i in again[:3])
    assert f"{log.height - len(pairs)} rows repeat a (user, item) pair, first: {told}" in str(caught.value)
    assert not (tmp_path / "log/in/.rows").exists()


@pytest.mark.parametrize("spec", KINDS, ids=lambda s: s.kind)
def test_a_split_in_blocks_is_the_split_of_the_whole(tmp_path, monkeypatch, spec):
    source = ingested(make_log(5, "whole"), ["time", "weight", "event", "split"], tmp_path / "log")
    found = []
    for size in (1, 10_000):
        monkeypatch.setattr(blocks, "ROWS", size)
        out = tmp_path / str(size)
        facts = split(source, spec, out)
        found.append((facts, {file.name: file.read_bytes() for file in out.iterdir()}))
    assert found[0] == found[1]


def test_what_a_killed_run_left_is_no_part_of_the_next(tmp_path):
    log = make_log(5, "whole")
    source = ingested(log, ["time"], tmp_path / "a")
    left = tmp_path / "b/in/.rows/ranges/range=0"
    left.mkdir(parents=True)
    kinds = {"row": pl.UInt32, "u": pl.UInt32, "i": pl.UInt32, "time": pl.Int64}
    stale = pl.DataFrame({"row": [1], "u": [0], "i": [0], "time": [7]}, kinds)
    stale.write_ipc(left / "ffffffff.ipc")
    log.write_parquet(tmp_path / "b/log.parquet")
    spec = LogSpec(path=str(tmp_path / "b/log.parquet"), user="who", item="what", time="at")
    ingest(spec, None, tmp_path / "b/in", now=NOW)
    assert (tmp_path / "b/in/log.parquet").read_bytes() == (source / "log.parquet").read_bytes()
    kind = UserRandom(kind="user_random", allow=ALLOW)
    facts = split(source, kind, tmp_path / "first")
    (tmp_path / "second/.columns").mkdir(parents=True)
    (tmp_path / "second/.columns/train.user").write_bytes(bytes(80))
    assert split(source, kind, tmp_path / "second") == facts
    assert not (tmp_path / "second/.columns").exists()


def test_a_refused_split_leaves_nothing(tmp_path):
    source = ingested(make_log(5, "whole"), ["time", "split"], tmp_path / "log")
    with pytest.raises(DataError, match="the split linter refuses"):
        split(source, Given(kind="given"), tmp_path / "out")  # pairs stand in both parts
    assert not (tmp_path / "out").exists()


def test_a_part_is_one_batch_that_is_mapped_not_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "ROWS", 20)
    source = ingested(make_log(5, "whole"), ["time", "weight", "event"], tmp_path / "log")
    split(source, UserRandom(kind="user_random", allow=ALLOW), tmp_path / "out")
    part = read_part(tmp_path / "out/train.arrow", pl.read_parquet(source / "users.parquet").height)
    assert pa.ipc.open_file(tmp_path / "out/train.arrow").num_record_batches == 1
    before = pa.total_allocated_bytes()
    for column in (part.items, part.times, part.weights, part.events, part.users()):
        assert not column.flags.owndata
        assert not column.flags.writeable
    assert pa.total_allocated_bytes() == before
    assert part.users().tolist() == np.repeat(np.arange(part.num_users), np.diff(part.indptr)).tolist()


def test_an_empty_column_is_written_and_read(tmp_path):
    mapped.write(tmp_path / "none.arrow", mapped.grown(tmp_path, "none", {"user": np.int64, "weight": np.float32}))
    found = mapped.columns(tmp_path / "none.arrow")
    assert {name: (len(c), c.dtype) for name, c in found.items()} == {"user": (0, np.int64), "weight": (0, np.float32)}


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 2**62)), min_size=1), st.integers(0, 60), st.integers(6, 14), st.data())
def test_order_statistics_are_those_of_the_sorted_values(lists, shift, bins, data):
    arrays = [np.array(values, np.int64) >> shift for values in [*lists, [0]]]
    everything = np.sort(np.concatenate(arrays))
    ranks = data.draw(st.lists(st.integers(0, len(everything) - 1), min_size=1, max_size=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assign, "BINS", bins)
        assert order_statistics(lambda: arrays, ranks) == everything[ranks].tolist()


@given(st.lists(st.integers(0, 2**63 - 1)), st.integers(0, 63))
def test_a_stable_order_is_that_of_a_stable_sort(values, shift):
    key = np.array(values, np.int64) >> shift
    assert stable_order(key).tolist() == np.argsort(key, kind="stable").tolist()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 9))))
def test_only_ties_are_mixed(rows):
    user, time, item = np.array(sorted(rows), np.int64).reshape(-1, 3).T
    assert chronological(user, item, time).tolist() == np.lexsort((mixed(user, item), time, user)).tolist()
