"""Bad logs: each is refused with exit code 3, by file, column and count, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec
from recdistill.errors import DataError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
N = 200


@dataclass(frozen=True)
class Bad:
    """A way to break a good log: how to write it, what its message must say, and settings."""

    name: str
    write: Callable[[Path], str]
    says: list[str]
    spec: dict[str, Any] = field(default_factory=dict)


def good(**changes: Any) -> pl.DataFrame:
    columns = {"who": [n % 20 for n in range(N)], "what": list(range(N)), "at": list(range(1, N + 1))}
    return pl.DataFrame(columns | {"stars": [4.0] * N} | changes, strict=False)


def with_first(values: list[Any], column: str) -> dict[str, list[Any]]:
    return {column: [*values, *good()[column].to_list()[len(values) :]]}


def table(name: str, frame: pl.DataFrame) -> Callable[[Path], str]:
    def write(home: Path) -> str:
        kind = {".csv": "write_csv", ".ndjson": "write_ndjson", ".parquet": "write_parquet", ".arrow": "write_ipc"}
        getattr(frame, kind[(home / name).suffix])(home / name)
        return str(home / name)

    return write


def raw(name: str, data: bytes) -> Callable[[Path], str]:
    def write(home: Path) -> str:
        (home / name).write_bytes(data)
        return str(home / name)

    return write


def cut(name: str, keep: float) -> Callable[[Path], str]:
    def write(home: Path) -> str:
        path = Path(table(name, good())(home))
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
        return str(path)

    return write


def empty_directory(home: Path) -> str:
    (home / "logs").mkdir()
    return str(home / "logs")


def uneven_hive(home: Path) -> str:
    for day, frame in (("1", good()), ("2", good(what=[f"i{n}" for n in range(N)]))):
        (home / f"logs/day={day}").mkdir(parents=True)
        frame.write_parquet(home / f"logs/day={day}/part.parquet")
    return str(home / "logs")


def misspelt(home: Path) -> str:
    table("interactions.csv", good())(home)
    return str(home / "interaction.csv")


RAGGED = b"who,what,at,stars\n1,2,3,4\n1,3,4,5,6\n"
SHORT = b"who,what,at,stars\n1,2,3,4\n1,3\n"
CASES = [
    Bad("missing file", misspelt, ["no such file", "did you mean 'interactions.csv'?"]),
    Bad("empty file", raw("log.csv", b""), ["log.csv", "empty"]),
    Bad("empty parquet", raw("log.parquet", b""), ["log.parquet", "empty"]),
    Bad("header only", table("log.csv", good().clear()), ["log.csv", "no rows"]),
    Bad("empty directory", empty_directory, ["logs", "no parquet file"]),
    Bad("unknown extension", raw("log.xlsx", b"x"), ["log.xlsx", "unknown extension"]),
    Bad("missing column", table("log.csv", good()), ["no column 'hwo'", "did you mean 'who'?"], {"user": "hwo"}),
    Bad("column in other case", table("log.csv", good()), ["no column 'WHO'", "did you mean 'who'?"], {"user": "WHO"}),
    Bad("null user", table("log.parquet", good(**with_first([None, None], "who"))), ["'who': 2 rows", "row 1 (None)"]),
    Bad("null item", table("log.csv", good(**with_first([0, None], "what"))), ["'what': 1 rows", "row 2 (None)"]),
    Bad("nothing but nulls", table("log.ndjson", good(what=[None] * N)), ["'what': 200 rows", "null_item"]),
    Bad("blank id", table("log.parquet", good(who=[" ", *"a" * (N - 1)])), ["'who': 1 rows", "row 1 (' ')"]),
    Bad("null time", table("log.parquet", good(**with_first([None], "at"))), ["'at': 1 rows", "null_time"]),
    Bad("time that is none", table("log.csv", good(**with_first(["noon"], "at"))), ["'at': 1 rows", "'noon'", "ISO"]),
    Bad("negative time", table("log.ndjson", good(**with_first([-7], "at"))), ["'at': 1 rows", "before 1970", "'-7'"]),
    Bad("future time", table("log.parquet", good(at=[1_700_000_000_000] * N)), ["200 rows", "log.time_unit: ms"]),
    Bad("time of another type", table("log.parquet", good(at=[True] * N)), ["column 'at'", "Boolean"]),
    Bad("NaN weight", table("log.parquet", good(**with_first([float("nan")], "stars"))), ["'stars': 1 rows", "NaN"]),
    Bad("infinite weight", table("log.csv", good(**with_first([float("inf")], "stars"))), ["'stars': 1 rows", "inf"]),
    Bad("null weight", table("log.arrow", good(**with_first([None], "stars"))), ["'stars': 1 rows", "null_weight"]),
    Bad("weight in words", table("log.csv", good(**with_first(["many"], "stars"))), ["not a number", "'many'"]),
    Bad("a word among numbers", table("log.csv", good(**with_first(["who"], "who"))), ["not a whole number", "'who'"]),
    Bad("float ids", table("log.parquet", good(who=[1.0] * N)), ["column 'who'", "floats", "cast"]),
    Bad("float ids in text", table("log.csv", good(what=[float(n) for n in range(N)])), ["column 'what'", "200 ids"]),
    Bad("dates as ids", table("log.parquet", good(who=[datetime(2024, 1, 1)] * N)), ["column 'who'", "Datetime"]),
    Bad("repeated rows", table("log.csv", good(what=[5] * N)), ["180 rows", "'who'"], {"duplicates": "refuse"}),
    Bad("truncated parquet", cut("log.parquet", 0.5), ["log.parquet", "cannot be read"]),
    Bad("not a parquet", raw("log.parquet", b"who,what\n1,2\n" * 9), ["log.parquet", "cannot be read"]),
    Bad("truncated arrow", cut("log.arrow", 0.7), ["log.arrow", "cannot be read"]),
    Bad("ragged csv", raw("log.csv", RAGGED), ["log.csv", "line 3 has 5 fields, the header 4"]),
    Bad("short csv line", raw("log.csv", SHORT), ["'at': 1 rows", "row 2"]),
    Bad("csv that is not UTF-8", raw("log.csv", b"who,what,at,stars\n\xe9,2,3,4\n"), ["cannot be read", "utf-8"]),
    Bad("broken ndjson", raw("log.ndjson", b'{"who": 1, "what": 2}\n{"who": 1,\n'), ["log.ndjson", "cannot be read"]),
    Bad("hive with two schemas", uneven_hive, ["logs", "cannot be read"]),
    Bad("nothing left of the k-core", table("log.csv", good()), ["no interaction is left of 200"], {"min_item": 2}),
    Bad("no weight counts", table("log.csv", good()), ["no row counts", "200 a weight below"], {"min_weight": 9.0}),
    Bad("unknown part", table("log.csv", good(stars=["dev"] * N)), ["'stars'", "train, valid"], {"split": "stars"}),
    Bad("all rows bad", table("log.csv", good(at=["x"] * N)), ["no row is good", "200"], {"bad_rows": "drop"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_bad_log_is_refused(tmp_path, case):
    named = {"user": "who", "item": "what", "time": "at", "weight": "stars"}
    if case.spec.get("split"):
        named.pop("weight")
    path = case.write(tmp_path)
    with pytest.raises(DataError) as caught:
        ingest(LogSpec(**(named | {"path": path} | case.spec)), None, tmp_path / "out", now=NOW)
    assert caught.value.exit_code == 3
    assert caught.value.fix
    assert Path(path).name in str(caught.value)
    for words in case.says:
        assert words in str(caught.value)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_every_broken_rule_is_told_at_once(tmp_path):
    frame = good(**with_first([None, 1], "who"), **with_first([1, -3], "at"), **with_first([4.0, 4.0, None], "stars"))
    path = table("log.parquet", frame)(tmp_path)
    with pytest.raises(DataError, match=r"3 of 200 rows break the contract") as caught:
        ingest(LogSpec(path=path, user="who", item="what", time="at", weight="stars"), None, tmp_path / "o", now=NOW)
    assert all(rule in str(caught.value) for rule in ("null_user", "negative_time", "null_weight"))


def test_a_good_log_is_not_refused(tmp_path):
    path = table("log.csv", good())(tmp_path)
    facts = ingest(
        LogSpec(path=path, user="who", item="what", time="at", weight="stars"), None, tmp_path / "o", now=NOW
    )
    assert facts["rows"] == N
    assert facts["rules"] == {}
