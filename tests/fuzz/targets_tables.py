"""Ways into the package for data: logs of ten rows in each format, feature tables, somebody else's scores."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mutate
import numpy as np
import polars as pl
from drive import Broken, Target
from pydantic import ValidationError

from recdistill.data.contract import validate
from recdistill.data.features import FeatureTableSpec, encode_table
from recdistill.data.ingest import ingest
from recdistill.data.log import LogSpec
from recdistill.external import joined_rows
from recdistill.models.spec import ExternalSpec
from recdistill.types import Dataset, Interactions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDS = [
    *(1, 2, 3, -1, 0, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), "a", "b", "A", " a", "a ", "", "1", "01", "1.0", "nan"),
    *(
        "caf\u00e9",
        "cafe\u0301",
        "\u202eevil",
        "a\nb",
        "a\rb",
        "a\0b",
        "a,b",
        'a"b',
        "\U0001f600",
        "x" * 300,
        "null",
        None,
    ),
    *(1.5, float("nan"), True, [1], {"a": 1}, "\u200b", "<script>alert(1)</script>", "=1+1", "\ufeffa"),
]
TIMES = [
    *(
        1,
        0,
        -1,
        1_700_000_000,
        1_700_000_000_000,
        2**62,
        2**63 - 1,
        1.5,
        -0.5,
        None,
        "2025-11-20",
        "2025-11-20T10:00:00",
    ),
    *("2025-11-20T10:00:00+14:00", "0001-01-01", "9999-12-31T23:59:59Z", "noon", "", "1e9", "12345", "292277-01-01"),
]
WEIGHTS = [1, 4.0, 0, -1, None, float("nan"), float("inf"), 1e308, 5e-324, "4", "many", "", "0x10", "1e999", 2**63]
KINDS = ("csv", "ndjson", "parquet", "ipc")
ENDING = {"csv": "csv", "ndjson": "ndjson", "parquet": "parquet", "ipc": "arrow"}


def table(rng: random.Random) -> dict[str, Any]:
    """Return a table of up to ten rows, mostly of one kind of id a column, and settings to read it with."""
    height = rng.choice((0, 1, 2, 5, 10, 10, 10))
    good_ids = [list(range(1, 6)), list("abcde")]

    def column(good: Sequence[Any], bad: Sequence[Any]) -> list[Any]:
        share = rng.choice((0, 0, 0.1, 0.5, 1))
        narrow = rng.sample(bad, rng.choice((1, 2, len(bad))))
        return [rng.choice(narrow) if rng.random() < share else rng.choice(good) for _ in range(height)]

    columns = {"u": column(rng.choice(good_ids), IDS), "i": column(rng.choice(good_ids), IDS)}
    columns["t"] = column(rng.choice(([1, 5, 9], ["2025-01-01", "2025-01-02T03:04:05Z"])), TIMES)
    columns["w"] = column([1.0, 2.0], WEIGHTS)
    columns["e"] = column(["view", "buy"], [None, "", 3, "x"])
    columns["s"] = column(["train", "valid", "test"], [None, "", "Train", 1])
    spec: dict[str, Any] = {"user": "u", "item": "i"}
    for name, setting in (("time", "t"), ("weight", "w"), ("event", "e"), ("split", "s")):
        if rng.random() < 0.5:
            spec[name] = setting
    for name, values in (
        ("time_unit", ("s", "ms", "us", "iso")),
        ("bad_rows", ("refuse", "drop", "drop")),
        ("duplicates", ("refuse", "keep_last", "keep_first")),
        ("min_user", (1, 2, 2**62)),
        ("separator", (",", ";", "\t", "|", '"', "\u00e9", "\n", "a")),
        ("user", ("u", "i", "nope", "", "row", "raw_user")),
        ("window", ({"first": "2025-01-01", "last": "2025-01-02"}, {"first": "0001-01-01", "last": "9999-12-31"})),
    ):
        if rng.random() < 0.15:
            spec[name] = rng.choice(values)
    return {"kind": rng.choice(KINDS), "columns": columns, "spec": spec}


def write(given: dict[str, Any], home: Path) -> str | None:
    """Write a table in its format; None where that format cannot hold it, so that nobody can send it."""
    kind, columns = given["kind"], given["columns"]
    file = home / f"log.{ENDING[kind]}"
    names = list(columns)
    height = max(map(len, columns.values()), default=0)
    if kind == "ndjson":
        rows = [{n: columns[n][row] for n in names if row < len(columns[n])} for row in range(height)]
        file.write_text("\n".join(json.dumps(row) for row in rows))
    elif kind == "csv":
        said = str(given["spec"].get("separator", ","))
        lines = [said.join(names)]
        for row in range(height):
            cells = ["" if columns[n][row] is None else str(columns[n][row]) for n in names]
            lines.append(said.join(f'"{c}"' if said in c and '"' not in c else c for c in cells))
        file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    else:
        try:
            frame = pl.DataFrame({n: pl.Series(n, values, strict=False) for n, values in columns.items()})
            frame.write_parquet(file) if kind == "parquet" else frame.write_ipc(file)
        except Exception:
            return None
    return str(file)


def _table(rng: random.Random, pool: Sequence[bytes]) -> bytes:
    return mutate.as_json(table(rng))


def _read(spec: LogSpec, out: Path) -> None:
    """Read a log as `check` and as `run` do; what fails must leave nothing that could be taken for a result."""
    try:
        good, _ = validate(spec, now=NOW)
        good.collect()
        ingest(spec, None, out, now=NOW)
    except BaseException:
        left = [f.name for f in out.rglob("*")] if out.exists() else []
        shutil.rmtree(out, ignore_errors=True)
        if left:
            raise Broken(f"left {left}") from None
        raise
    shutil.rmtree(out)


def log_rows(home: Path) -> Target:
    def run(data: bytes) -> None:
        given = json.loads(data)
        path = write(given, home)
        if path is None:
            return
        try:
            spec = LogSpec.model_validate({**given["spec"], "path": path})
        except ValidationError:  # which a configuration turns into a ConfigError
            return
        _read(spec, home / "out")

    seed = mutate.as_json(table(random.Random(1)))
    return Target("log of ten rows", [seed], run, _table)


def log_bytes(home: Path) -> Target:
    frame = pl.DataFrame({"u": [1, 2, 3], "i": ["a", "b", "c"], "t": [1, 2, 3]})
    seeds = []
    for kind in KINDS:
        path = write({"kind": kind, "columns": frame.to_dict(as_series=False), "spec": {}}, home)
        assert path is not None
        seeds.append(kind.encode()[:1] + Path(path).read_bytes())
    by_letter = {kind[0]: kind for kind in KINDS}

    def run(data: bytes) -> None:
        kind = by_letter.get(chr(data[0]) if data else "", "csv")
        file = home / f"log.{ENDING[kind]}"
        file.write_bytes(data[1:])
        validate(LogSpec(path=str(file), user="u", item="i", time="t"), now=NOW)[0].collect()

    return Target("log of any bytes", seeds, run, mutate.of_bytes)


EMPTY = Interactions(indptr=np.zeros(3, np.int64), items=np.empty(0, np.int64))
DATA = Dataset(user_ids=pl.Series(["a", "b"]), item_ids=pl.Series([1, 2, 3]), train=EMPTY, valid=EMPTY, test=EMPTY)


def external(home: Path) -> Target:
    def run(data: bytes) -> None:
        given = json.loads(data)
        columns = given["columns"]
        given = {"kind": "parquet", "columns": {n: columns[n] for n in "uiw"}, "spec": {}}
        path = write(given, home)
        if path is not None:
            space = ("logit", "probability", "rank")[len(data) % 3]
            joined_rows(ExternalSpec(path=path, user="u", item="i", score="w", space=space), DATA)

    return Target("external scores", [mutate.as_json(table(random.Random(1)))], run, _table)


def features(home: Path) -> Target:
    def run(data: bytes) -> None:
        given = json.loads(data)
        path = write(given, home)
        if path is not None:
            half = len(data) % 2
            columns = {"categorical": ["i", "e"], "numeric": ["w"] if half else [], "multi": ["s"]}
            spec = FeatureTableSpec(path=path, key="u", **columns)
            encode_table(spec, "user", DATA.user_ids if half else DATA.item_ids)

    return Target("feature table", [mutate.as_json(table(random.Random(1)))], run, _table)


MAKERS = (log_rows, log_bytes, external, features)
