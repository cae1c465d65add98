"""Log -> dense rows: validate, drop what does not count, k-core, vocabularies, encoded log and features."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from recdistill.data.contract import LogRows, TimedLogRows, validate
from recdistill.data.features import FeaturesSpec, encode_features, write_features
from recdistill.data.log import LogSpec, reading_log, where
from recdistill.data.vocabulary import k_core
from recdistill.errors import DataError, StageError
from recdistill.store import write_text

ROW_GROUP = 1 << 18


def ingest(spec: LogSpec, features: FeaturesSpec | None, out: Path, *, now: datetime) -> dict[str, Any]:
    """Write the log and its feature tables as dense rows into directory `out`; return facts about them (JSON-able).

    In this order: rows that break the contract are refused or dropped, then events that do not count, then rows
    below `min_weight`, then repeated pairs, then users and items outside the k-core. Writes log.parquet (user,
    item, time in microseconds, weight, event, split; sorted by user, time, item, split), users.parquet and
    items.parquet (id and count; the row number is the dense row; by id), features,
    and contract.json. Times after `now` are in the future. Raises DataError if the data is not what `spec` says.
    """
    good, report = validate(spec, now=now)
    positives, dropped = _positives(good, spec)
    scratch = out / ".rows.parquet"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with reading_log(spec):
            repeated = _sink_unique(positives, spec, scratch, dropped["kept"])
        rows = pl.scan_parquet(scratch)
        users, items, rounds = k_core(rows, spec.min_user, spec.min_item)
        if users.is_empty():
            what = f"no interaction is left of {dropped['kept'] - repeated} after min_user {spec.min_user}"
            fix = "lower log.min_user and log.min_item"
            raise DataError(f"{what} and min_item {spec.min_item}", where=where(spec), fix=fix)
        encoded = encode_features(features or FeaturesSpec(), users["user_id"], items["item_id"])
        _write_log(rows, users, items, out / "log.parquet")
    finally:
        scratch.unlink(missing_ok=True)
    users.write_parquet(out / "users.parquet")
    items.write_parquet(out / "items.parquet")
    coverage = write_features(encoded, out)
    height = int(users["count"].sum())
    lost = {"event": dropped["event"], "min_weight": dropped["weight"], "duplicates": repeated}
    lost |= {"bad_rows": report["bad_rows"], "k_core": dropped["kept"] - repeated - height}
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
        **_time_range(out / "log.parquet"),
    }


def _positives(good: pl.LazyFrame, spec: LogSpec) -> tuple[pl.LazyFrame, dict[str, int]]:
    """Return the rows whose event and weight count, and how many were lost to each (event first)."""
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


def _sink_unique(rows: pl.LazyFrame, spec: LogSpec, path: Path, height: int) -> int:
    """Write `rows` with every (user, item, part) once; return how many rows were repeats.

    The last of them is the latest, and of equal times the lowest in the file. Raises DataError on duplicates: refuse.
    """
    present = rows.collect_schema().names()
    key = [c for c in ("user", "item", "split") if c in present]
    order = [*key, *(c for c in ("time",) if c in present), "row"]
    if spec.duplicates == "refuse":
        repeats = rows.group_by(key).agg(pl.len(), pl.col("row").max()).filter(pl.col("len") > 1).collect()
        if repeats.height:
            first = [
                f"({r[0]!r}, {r[1]!r}) {r[-2]} times, last in row {r[-1]}" for r in repeats.sort(key).head(3).rows()
            ]
            what = f"{int((repeats['len'] - 1).sum())} rows repeat a (user, item) pair, first: {', '.join(first)}"
            fix = "repair the log, or set log.duplicates to keep_last or keep_first"
            raise DataError(what, where=f"{where(spec)}, columns {spec.user!r}, {spec.item!r}", fix=fix)
    keep = "first" if spec.duplicates == "keep_first" else "last"
    rows.sort(order).unique(key, keep=keep, maintain_order=True).drop("row").sink_parquet(path)
    return height - int(pl.scan_parquet(path).select(pl.len()).collect().item())


def _write_log(rows: pl.LazyFrame, users: pl.DataFrame, items: pl.DataFrame, path: Path) -> None:
    """Encode ids by join, so that vocabularies never become Python objects, and sort by a full key."""
    present = rows.collect_schema().names()
    rest = [c for c in ("time", "weight", "event", "split") if c in present]
    order = ["user", *(c for c in rest if c == "time"), "item", *(c for c in rest if c == "split")]
    for side, vocabulary in (("user", users), ("item", items)):
        table = vocabulary.select(f"{side}_id").with_row_index("dense").with_columns(pl.col("dense").cast(pl.Int64))
        rows = rows.join(table.lazy(), left_on=side, right_on=f"{side}_id").drop(side).rename({"dense": side})
    rows.select("user", "item", *rest).sort(order).sink_parquet(path, row_group_size=ROW_GROUP)
    if not (TimedLogRows if "time" in rest else LogRows).is_valid(pl.scan_parquet(path)):
        raise StageError("the encoded log breaks its own contract", where=str(path), fix="report this as a bug")


def _time_range(path: Path) -> dict[str, str]:
    frame = pl.scan_parquet(path)
    if "time" not in frame.collect_schema().names():
        return {}
    low, high = frame.select(low=pl.col("time").min(), high=pl.col("time").max()).collect().row(0)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return {name: (epoch + timedelta(microseconds=t)).isoformat() for name, t in (("first", low), ("last", high))}
