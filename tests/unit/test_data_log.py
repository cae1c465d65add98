"""One log in every format ingests alike; ids and times stay what they are; what is dropped is counted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec, digest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = pl.DataFrame(
    {
        "who": ["b", "a", "b", "c", "a", "b"],
        "what": [10, 10, 20, 10, 30, 30],
        "at": [5, 9, 3, 4, 2, 8],
        "stars": [1.0, 2.0, 3.0, 4.0, 5.0, 2.5],
    }
)
NAMES = {"user": "who", "item": "what", "time": "at", "weight": "stars"}


def run(tmp_path: Path, name: str = "out", **spec) -> tuple[dict, Path]:
    out = tmp_path / name
    return ingest(LogSpec(**(NAMES | spec)), None, out, now=NOW), out


def write(frame: pl.DataFrame, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".csv": "write_csv", ".ndjson": "write_ndjson", ".parquet": "write_parquet", ".arrow": "write_ipc"}
    getattr(frame, kind[path.suffix])(path)
    return str(path)


def test_the_encoded_log_by_hand(tmp_path):
    facts, out = run(tmp_path, path=write(ROWS, tmp_path / "log.parquet"))
    users, items = pl.read_parquet(out / "users.parquet"), pl.read_parquet(out / "items.parquet")
    assert users.rows() == [("a", 2), ("b", 3), ("c", 1)]
    assert items.rows() == [(10, 3), (20, 1), (30, 2)]
    log = pl.read_parquet(out / "log.parquet")
    assert log.schema == {"user": pl.Int64, "item": pl.Int64, "time": pl.Int64, "weight": pl.Float32}
    assert log.rows() == [
        (0, 2, 2_000_000, 5.0),
        (0, 0, 9_000_000, 2.0),
        (1, 1, 3_000_000, 3.0),
        (1, 0, 5_000_000, 1.0),
        (1, 2, 8_000_000, 2.5),
        (2, 0, 4_000_000, 4.0),
    ]
    assert (facts["rows_read"], facts["rows"], facts["users"], facts["items"]) == (6, 6, 3, 3)
    assert facts["first"] == "1970-01-01T00:00:02+00:00"
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("suffix", [".csv", ".ndjson", ".arrow"])
def test_every_format_gives_the_files_that_parquet_gives(tmp_path, suffix):
    _, first = run(tmp_path, "first", path=write(ROWS, tmp_path / "log.parquet"))
    _, second = run(tmp_path, "second", path=write(ROWS, tmp_path / f"log{suffix}"))
    for name in ("log", "users", "items"):
        assert (second / f"{name}.parquet").read_bytes() == (first / f"{name}.parquet").read_bytes()


def test_a_hive_directory_and_a_list_of_files_are_one_log(tmp_path):
    for day, rows in (("1", ROWS[:4]), ("2", ROWS[4:])):
        write(rows.drop("what"), tmp_path / f"hive/what_dir=x/day={day}/part.parquet")
        write(rows, tmp_path / f"list/{day}.csv")
        write(rows, tmp_path / f"flat/{day}.parquet")
    _, whole = run(tmp_path, "whole", path=write(ROWS, tmp_path / "log.parquet"))
    _, listed = run(tmp_path, "listed", path=[str(tmp_path / "list/1.csv"), str(tmp_path / "list/2.csv")])
    _, flat = run(tmp_path, "flat_out", path=str(tmp_path / "flat"))
    for other in (listed, flat):
        assert (other / "log.parquet").read_bytes() == (whole / "log.parquet").read_bytes()
    _, hive = run(tmp_path, "hive_out", path=str(tmp_path / "hive"), item="day")  # a partition is a column
    assert pl.read_parquet(hive / "items.parquet").rows() == [(1, 3), (2, 2)]


def test_parts_as_paths_become_the_split_column(tmp_path):
    path = {"test": write(ROWS[4:], tmp_path / "b.csv"), "train": write(ROWS[:4], tmp_path / "a.csv")}
    _, out = run(tmp_path, path=path)
    log = pl.read_parquet(out / "log.parquet")
    assert sorted(log.select("user", "item", "split").rows()) == [
        (0, 0, "train"),
        (0, 2, "test"),
        (1, 0, "train"),
        (1, 1, "train"),
        (1, 2, "test"),
        (2, 0, "train"),
    ]


@pytest.mark.parametrize(
    ("ids", "kept", "dtype"),
    [
        (["1", "2", "10"], [1, 2, 10], pl.Int64),
        (["007", "7", "10"], ["007", "10", "7"], pl.String),
        (["9223372036854775808", "2", "18446744073709551615"], [2, 2**63, 2**64 - 1], pl.UInt64),
        (["-5", "2", "0"], [-5, 0, 2], pl.Int64),
        (["\u00e9t\u00e9", "\u6771\u4eac", "a b"], ["a b", "\u00e9t\u00e9", "\u6771\u4eac"], pl.String),
    ],
)
def test_text_ids_of_a_csv_keep_their_meaning(tmp_path, ids, kept, dtype):
    path = write(pl.DataFrame({"who": ids, "what": [1, 2, 3]}), tmp_path / "log.csv")
    _, out = run(tmp_path, path=path, time=None, weight=None)
    users = pl.read_parquet(out / "users.parquet")["user_id"]
    assert users.dtype == dtype
    assert users.to_list() == kept


@pytest.mark.parametrize(("dtype", "kept"), [(pl.UInt8, pl.Int64), (pl.Int32, pl.Int64), (pl.Categorical, pl.String)])
def test_typed_ids_widen_but_do_not_change(tmp_path, dtype, kept):
    values = ["1", "2"] if dtype == pl.Categorical else [1, 2]
    frame = pl.DataFrame({"who": pl.Series(values, dtype=dtype), "what": ["1", "2"]})
    _, out = run(tmp_path, path=write(frame, tmp_path / "log.parquet"), time=None, weight=None)
    assert pl.read_parquet(out / "users.parquet")["user_id"].dtype == kept
    assert pl.read_parquet(out / "items.parquet")["item_id"].to_list() == ["1", "2"]  # text in a typed file stays text


HALF_PAST = 1_704_169_800_000_000  # 2024-01-02 04:30 UTC


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([HALF_PAST // 1_000_000], "s"),
        ([HALF_PAST / 1_000_000], "s"),
        ([HALF_PAST // 1000], "ms"),
        ([HALF_PAST], "us"),
        (["2024-01-02T04:30:00"], "s"),
        (["2024-01-02 04:30"], "iso"),
        (["2024-01-02T06:30:00+02:00"], "s"),
        (["2024-01-02T04:30:00.000Z"], "iso"),
        ([str(HALF_PAST // 1_000_000)], "s"),
        ([datetime(2024, 1, 2, 4, 30)], "s"),
        ([datetime(2024, 1, 2, 6, 30, tzinfo=timezone(timedelta(hours=2)))], "s"),
    ],
)
def test_times_of_every_kind_become_microseconds(tmp_path, values, unit):
    frame = pl.DataFrame({"who": [1], "what": [1], "at": values})
    _, out = run(tmp_path, path=write(frame, tmp_path / "log.parquet"), weight=None, time_unit=unit)
    assert pl.read_parquet(out / "log.parquet")["time"].to_list() == [HALF_PAST]


def test_dropping_bad_rows_counts_them_by_rule_with_examples(tmp_path):
    frame = pl.DataFrame(
        {
            "who": ["a", None, "c", "d", "e", "f"],
            "what": [1, 2, 3, 4, 5, 6],
            "at": ["10", "x", "-1", "20", "9999999999", "30"],
            "stars": ["1", "2", "3", "inf", "5", "6"],
        }
    )
    facts, out = run(tmp_path, path=write(frame, tmp_path / "log.csv"), bad_rows="drop")
    once = dict.fromkeys(["null_user", "wrong_type_time", "negative_time", "future_time", "not_finite_weight"], 1)
    assert facts["rules"] == once
    assert facts["dropped"]["bad_rows"] == 4
    assert pl.read_parquet(out / "users.parquet")["user_id"].to_list() == ["a", "f"]
    report = json.loads((out / "contract.json").read_text())
    (late,) = [r for r in report["rules"] if r["rule"] == "future_time"]
    assert late["column"] == "at"
    assert late["examples"] == [{"row": 5, "value": "9999999999"}]
    assert late["action"] == "dropped"


@pytest.mark.parametrize(("keep", "weights"), [("keep_last", [2.0, 7.0]), ("keep_first", [3.0, 6.0])])
def test_a_repeated_pair_is_kept_once_and_counted(tmp_path, keep, weights):
    frame = pl.DataFrame(
        {"who": [1, 1, 2, 2, 1], "what": [5, 5, 5, 5, 5], "at": [7, 3, 4, 4, 9], "stars": [1.0, 3.0, 6.0, 7.0, 2.0]}
    )
    facts, out = run(tmp_path, path=write(frame, tmp_path / "log.parquet"), duplicates=keep)
    assert facts["dropped"]["duplicates"] == 3
    assert pl.read_parquet(out / "log.parquet")["weight"].to_list() == weights


def test_events_and_weights_that_do_not_count_are_left_out_and_counted(tmp_path):
    frame = ROWS.with_columns(did=pl.Series(["buy", "view", None, "buy", "buy", "view"]))
    path = write(frame, tmp_path / "log.parquet")
    facts, out = run(tmp_path, path=path, event="did", events=["buy"], min_weight=4.0)
    assert (facts["dropped"]["event"], facts["dropped"]["min_weight"], facts["rows"]) == (3, 1, 2)
    assert pl.read_parquet(out / "log.parquet")["event"].to_list() == ["buy", "buy"]


def test_two_ingests_of_a_large_log_are_the_same_bytes(tmp_path):
    n = 300_000
    frame = pl.DataFrame({"who": pl.int_range(n, eager=True) * 7919 % 5003, "what": pl.int_range(n, eager=True) % 907})
    path = write(frame.with_columns(at=pl.int_range(n, eager=True), stars=pl.lit(1.0)), tmp_path / "log.parquet")
    (first_facts, first), (second_facts, second) = run(tmp_path, "a", path=path), run(tmp_path, "b", path=path)
    assert first_facts == second_facts
    assert sorted(p.name for p in first.iterdir()) == sorted(p.name for p in second.iterdir())
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_the_digest_is_of_contents_not_of_names(tmp_path):
    one, other = write(ROWS, tmp_path / "a.csv"), write(ROWS, tmp_path / "deep/b.csv")
    changed = write(ROWS[1:], tmp_path / "c.csv")
    spec = LogSpec(path=one, user="who", item="what")
    assert digest(spec) == digest(spec.model_copy(update={"path": other}))
    assert digest(spec) != digest(spec.model_copy(update={"path": changed}))
    assert digest(spec) != digest(spec.model_copy(update={"path": {"train": one}}))
    write(ROWS, tmp_path / "h/day=1/p.parquet")
    write(ROWS, tmp_path / "g/day=2/p.parquet")
    hive = [digest(spec.model_copy(update={"path": str(tmp_path / d)})) for d in "hg"]
    assert hive[0] != hive[1]  # the folder's name is a value


@pytest.mark.parametrize(
    "wrong",
    [{"min_weight": 4.0, "weight": None}, {"events": ["buy"]}, {"path": {"train": "a"}, "split": "s"}, {"path": []}],
)
def test_a_setting_without_effect_is_an_error(wrong):
    with pytest.raises(ValidationError):
        LogSpec(**({"path": "log.csv"} | NAMES | wrong))
