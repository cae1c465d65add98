"""Log -> dense rows: validate, drop what does not count, k-core, vocabularies, encoded log and features."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from recdistill.data.census import census
from recdistill.data.contract import encoded, validate
from recdistill.data.features import FeaturesSpec, encode_features, write_features
from recdistill.data.log import LogSpec, reading_log, where
from recdistill.data.ranges import Unique, unique_rows, write_ranges
from recdistill.data.vocabulary import k_core, vocabulary
from recdistill.errors import DataError, StageError
from recdistill.store import write_text
from recdistill.types import Int

ROW_GROUP = 1 << 18


def ingest(spec: LogSpec, features: FeaturesSpec | None, out: Path, *, now: datetime) -> dict[str, Any]:
    """Write the log and its feature tables as dense rows into directory `out`; return facts about them (JSON-able).

    In this order: rows that break the contract are refused or dropped, then events that do not count, then rows
    below `min_weight`, then repeated pairs, then users and items outside the k-core. Writes log.parquet (user,
    item, time in microseconds, weight, event, split; sorted by user, time, item, split), users.parquet and
    items.parquet (id and count; the row number is the dense row; by id), features,
    and contract.json. Times after `now` are in the future. Memory is that of the vocabularies and of one range of
    users (`ranges.ROWS`), whatever the number of rows; the rows themselves are twice on disk while this runs.
    Raises DataError if the data is not what `spec` says.
    """
    days = {} if spec.window is None else census(spec, spec.window)
    good, report = validate(spec, now=now)
    positives, dropped = _positives(good, spec, report["rows"] - report["bad_rows"])
    scratch = out / ".rows"
    shutil.rmtree(scratch, ignore_errors=True)  # rows that a killed run left are not of this log
    try:
        out.mkdir(parents=True, exist_ok=True)
        with reading_log(spec):
            # One after the other: what two queries share, polars would hold.
            users, items = (vocabulary(positives, side).collect() for side in ("user", "item"))
            ranges = write_ranges(positives, users, items, scratch / "ranges")
        rows = unique_rows(ranges, users.height, items.height, scratch, spec.duplicates)
        if spec.duplicates == "refuse" and rows.repeats:
            _refuse(rows, users, items, spec)
        user_counts, item_counts, rounds = k_core(rows.pairs, rows.users, rows.items, spec.min_user, spec.min_item)
        users, items = _left(users, user_counts), _left(items, item_counts)
        if users.is_empty():
            what = f"no interaction is left of {dropped['kept'] - rows.repeats} after min_user {spec.min_user}"
            fix = "lower log.min_user and log.min_item"
            raise DataError(f"{what} and min_item {spec.min_item}", where=where(spec), fix=fix)
        sides = encode_features(features or FeaturesSpec(), users["user_id"], items["item_id"])
        times = _write_log(rows, user_counts, item_counts, out / "log.parquet")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    users.write_parquet(out / "users.parquet")
    items.write_parquet(out / "items.parquet")
    coverage = write_features(sides, out)
    height = int(users["count"].sum())
    lost = {"event": dropped["event"], "min_weight": dropped["weight"], "duplicates": rows.repeats}
    lost |= {"bad_rows": report["bad_rows"], "k_core": dropped["kept"] - rows.repeats - height}
    write_text(out / "contract.json", json.dumps(report | {"dropped": lost}, indent=1, sort_keys=True))
    return {
        "rows_read": report["rows"],
        "rows": height,
        "dropped": lost,
        "rules": {r["rule"]: r["count"] for r in report["rules"]},
        "users": users.height,
        "items": items.height,
        "user_id_type": str(users["user_id"].dtype),
        "item_id_type": str(items["item_id"].dtype),
        "k_core_rounds": rounds,
        "features": coverage,
        **days,
        **times,
    }


def _positives(good: pl.LazyFrame, spec: LogSpec, height: int) -> tuple[pl.LazyFrame, dict[str, int]]:
    """Return which of the `height` good rows have an event and a weight that count; how many did not, event first."""
    if spec.events is None and spec.min_weight is None:
        return good, {"event": 0, "weight": 0, "kept": height}
    every = pl.col("row") > 0
    event = every if spec.events is None else pl.col("event").is_in(spec.events).fill_null(False)
    weight = every if spec.min_weight is None else pl.col("weight") >= spec.min_weight
    with reading_log(spec):
        lost = good.select(
            event=(~event).sum(),
            weight=(event & ~weight).sum(),
            kept=(event & weight).sum(),
        ).collect()
    counts = lost.row(0, named=True)
    if counts["kept"] == 0:
        what = f"no row counts: {counts['event']} have other events, {counts['weight']} a weight below min_weight"
        raise DataError(what, where=where(spec), fix="check log.events and log.min_weight against the data")
    return good.filter(event & weight), counts


def _refuse(rows: Unique, users: pl.DataFrame, items: pl.DataFrame, spec: LogSpec) -> None:
    first = [
        f"({users['user_id'][r['u']]!r}, {items['item_id'][r['i']]!r}) {r['len']} times, last in row {r['row']}"
        for r in rows.examples.to_dicts()
    ]
    what = f"{rows.repeats} rows repeat a (user, item) pair, first: {', '.join(first)}"
    fix = "repair the log, or set log.duplicates to keep_last or keep_first"
    raise DataError(what, where=f"{where(spec)}, columns {spec.user!r}, {spec.item!r}", fix=fix)


def _left(vocabulary: pl.DataFrame, counts: Int) -> pl.DataFrame:
    """Return the ids that have rows left, and how many."""
    return vocabulary.with_columns(count=counts).filter(pl.col("count") > 0)


def _write_log(rows: Unique, users: Int, items: Int, path: Path) -> dict[str, str]:
    """Write the rows of the users and items that are left, by their dense rows; return the first and last time."""
    dense_user, dense_item = np.cumsum(users > 0) - 1, np.cumsum(items > 0) - 1
    names = pl.scan_ipc(rows.files[0]).collect_schema().names()
    rest = [c for c in ("time", "weight", "event", "split") if c in names]
    low, high = list[int](), list[int]()

    def blocks() -> Iterator[pl.DataFrame]:
        for file in rows.files:
            block = pl.read_ipc(file)
            user, item = block["u"].to_numpy(), block["i"].to_numpy()
            kept = (users[user] > 0) & (items[item] > 0)
            block = block.select(pl.Series("user", dense_user[user]), pl.Series("item", dense_item[item]), *rest)
            block = block.filter(kept)
            if "split" in rest:
                block = block.with_columns(pl.col("split").cast(pl.String))
            if not encoded(block):
                raise StageError("the encoded log breaks its own contract", where=str(path), fix="report this as a bug")
            if "time" in rest and block.height:
                time = block["time"].to_numpy()
                low.append(int(time.min()))
                high.append(int(time.max()))
            yield block

    first = next(made := blocks())
    source = register_io_source(lambda *_: chain([first], made), schema=first.schema)
    source.sink_parquet(path, compression_level=1, row_group_size=ROW_GROUP)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    ends = {"first": min(low), "last": max(high)} if low else {}
    return {name: (epoch + timedelta(microseconds=t)).isoformat() for name, t in ends.items()}
