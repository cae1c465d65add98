"""Log -> train, valid, test: five ways to hold out, each checked by the linter before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from recdistill.data.lint import Finding, Rows, lint, refused
from recdistill.data.log import PARTS
from recdistill.data.order import mixed
from recdistill.errors import DataError
from recdistill.spec import Spec
from recdistill.store import write_text
from recdistill.types import Int

Fraction = Annotated[float, Field(gt=0, lt=1)]
Codes = NDArray[np.int8]  # [rows]: 0 train, 1 valid, 2 test
TRAIN, VALID, TEST = 0, 1, 2
KEPT = ("user", "item", "time", "weight", "event")
MOST_EVENTS = 1000  # more is a column that says something else, and would make a list of names that nobody can read


class _Split(Spec):
    allow: list[Finding] = Field(default_factory=list)
    """Findings of the split linter that are known and accepted."""


class _Fractions(_Split):
    valid_fraction: Fraction = 0.1
    """The share of interactions to choose models and stop training by."""
    test_fraction: Fraction = 0.1
    """The share of interactions to report on."""

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> _Fractions:
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction + test_fraction must be below 1, or nothing is left to train on")
        return self


class GlobalTime(_Fractions):
    """Everything before one moment is train: what a model knows when it is put to use. Needs times."""

    kind: Literal["global_time"] = "global_time"


class UserChronological(_Fractions):
    """The last of each user's interactions are held out. Needs times."""

    kind: Literal["user_chronological"]


class LeaveLast(_Split):
    """The last interaction of each user is test, the one before is valid. Needs times."""

    kind: Literal["leave_last"]


class UserRandom(_Fractions):
    """Interactions of each user are held out at random: for logs without times."""

    kind: Literal["user_random"]
    seed: int = 0
    """Of the draw."""


class Given(_Split):
    """The log says which part each row is in; valid is drawn from train if it has none."""

    kind: Literal["given"]
    valid_fraction: Fraction = 0.1
    """The share of each user's train interactions to draw valid from, if the log has no valid part."""
    seed: int = 0
    """Of that draw."""


SplitSpec = Annotated[GlobalTime | UserChronological | LeaveLast | UserRandom | Given, Field(discriminator="kind")]


def split(ingested: Path, spec: SplitSpec, out: Path) -> dict[str, Any]:
    """Write train.arrow, valid.arrow, test.arrow, events.json and lint.json into directory `out`; return facts.

    Reads the directory that `ingest` wrote. Each part is uncompressed Arrow IPC in one batch, sorted by user, time,
    item: user and item, int64, and what the log has of time (int64 microseconds), weight (float32) and event (int16,
    a place in the list of events.json, -1 for none). Memory is that of these columns. The facts are JSON-able.
    Raises DataError if the log lacks what the split needs, a part is empty, or the linter refuses the split.
    """
    log = pl.read_parquet(ingested / "log.parquet")
    codes = assign(log, spec)
    log, events = encode_events(log.select([c for c in KEPT if c in log.columns]), str(ingested))
    parts = [log.filter(codes == code) for code in range(3)]
    for name, part in zip(PARTS, parts, strict=True):
        if part.is_empty():
            what = f"the {name} part is empty: {log.height} rows, split.kind {spec.kind}"
            raise DataError(what, where=str(ingested), fix="use another split.kind or fractions, or a larger log")
    ids = pl.read_parquet(ingested / "items.parquet")["item_id"]
    numbers = ids.to_numpy() if ids.dtype == pl.Int64 else None
    findings = lint(*map(_rows, parts), item_order=id_order(ids), item_numbers=numbers, kind=spec.kind)
    bad = refused(findings, spec.allow)
    if bad:
        text = "\n".join(f"  - {f['name']}: {f['text']}" for f in bad)
        names = ", ".join(dict.fromkeys(f["name"] for f in bad))
        fix = f"change the split, or accept what was found with split.allow: [{names}]"
        raise DataError(f"the split linter refuses split.kind {spec.kind}\n{text}", where=str(ingested), fix=fix)
    out.mkdir(parents=True, exist_ok=True)
    for name, part in zip(PARTS, parts, strict=True):
        part.write_ipc(out / f"{name}.arrow", compression="uncompressed", record_batch_size=part.height)
    write_text(out / "events.json", json.dumps(events))
    report = {"kind": spec.kind, "allow": list(spec.allow), "findings": findings}
    write_text(out / "lint.json", json.dumps(report, indent=1, sort_keys=True))
    rows = {name: part.height for name, part in zip(PARTS, parts, strict=True)}
    users = {name: part["user"].n_unique() for name, part in zip(PARTS, parts, strict=True)}
    facts: dict[str, Any] = {"kind": spec.kind, "rows": rows, "users": users, "lint": findings}
    if events:
        counts = dict(parts[TRAIN]["event"].value_counts().iter_rows())
        facts["train_events"] = {name: counts.get(code, 0) for code, name in enumerate(events)}
    return facts


def encode_events(log: pl.DataFrame, where: str) -> tuple[pl.DataFrame, list[str]]:
    """Return `log` with its events as codes (int16, -1 where there is none), and their names in order of the text.

    Raises DataError, naming `where`, for a column that has too many different values to say what happened.
    """
    if "event" not in log.columns:
        return log, []
    told = log["event"].set(log["event"].str.strip_chars() == "", None)
    names = told.drop_nulls().unique().sort()
    if len(names) > MOST_EVENTS:
        what = f"log.event has {len(names)} different values, first: {names.head(3).to_list()}"
        fix = "name a column that says what happened, such as view or purchase, or leave log.event out"
        raise DataError(what, where=where, fix=fix)
    codes = told.replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int16)
    return log.with_columns(codes.alias("event")), names.to_list()


def _rows(part: pl.DataFrame) -> Rows:
    time = part["time"].to_numpy() if "time" in part.columns else None
    return Rows(part["user"].to_numpy(), part["item"].to_numpy(), time)


def id_order(ids: pl.Series) -> Int:
    """Return the place of each id among all in their own order: as numbers if all are, else as text."""
    numbers = ids.cast(pl.Int128, strict=False)
    return (ids if numbers.null_count() else numbers).rank("ordinal").to_numpy().astype(np.int64) - 1


def assign(log: pl.DataFrame, spec: SplitSpec) -> pl.Series:
    """Return the part of each row of an encoded log: 0 train, 1 valid, 2 test. Raises DataError as `split` does."""
    user, item = log["user"].to_numpy(), log["item"].to_numpy()
    counts = np.bincount(user)
    match spec:
        case GlobalTime():
            codes = _by_time(_times(log, spec.kind), spec.valid_fraction, spec.test_fraction)
        case UserChronological():
            order = np.lexsort((mixed(user, item), _times(log, spec.kind), user))
            codes = _last(user, order, *held_out(counts, spec.valid_fraction, spec.test_fraction))
        case LeaveLast():
            order = np.lexsort((mixed(user, item), _times(log, spec.kind), user))
            one = (counts >= 3).astype(np.int64)
            codes = _last(user, order, one, one)
        case UserRandom():
            order = np.lexsort((np.random.default_rng(spec.seed).random(len(user)), user))
            codes = _last(user, order, *held_out(counts, spec.valid_fraction, spec.test_fraction))
        case Given():
            codes = _given(log, spec)
    return pl.Series(codes)


def held_out(counts: Int, valid_fraction: float, test_fraction: float) -> tuple[Int, Int]:
    """Return how many of each user's `counts` interactions are valid and test.

    The fraction rounded down, but at least one each; users with fewer than three stay in train whole, and every
    other keeps at least one there.
    """
    enough = counts >= 3
    # The small number keeps 0.29 * 100 from becoming 28.
    valid, test = (np.floor(counts * f + 1e-9).astype(np.int64) for f in (valid_fraction, test_fraction))
    valid = np.minimum(np.maximum(valid, 1), counts - 2)
    test = np.minimum(np.maximum(test, 1), counts - 1 - valid)
    return np.where(enough, valid, 0), np.where(enough, test, 0)


def _last(user: Int, order: Int, valid: Int, test: Int) -> Codes:
    """Give the last `test[u]` rows of each user in `order` (by user) to test and those before to valid."""
    ends = np.cumsum(np.bincount(user))
    after = np.empty(len(user), np.int64)
    after[order] = ends[user[order]] - 1 - np.arange(len(user))
    return np.where(after < test[user], TEST, np.where(after < (test + valid)[user], VALID, TRAIN)).astype(np.int8)


def _by_time(time: Int, valid_fraction: float, test_fraction: float) -> Codes:
    """Cut at two moments; rows of the very moment of a cut fall after it, so no train row is as late as a test row."""
    ordered, n = np.sort(time), len(time)
    test_at = ordered[min(n - 1, int(np.floor(n * (1 - test_fraction) + 1e-9)))]
    valid_at = ordered[min(n - 1, int(np.floor(n * (1 - test_fraction - valid_fraction) + 1e-9)))]
    return np.where(time >= test_at, TEST, np.where(time >= valid_at, VALID, TRAIN)).astype(np.int8)


def _given(log: pl.DataFrame, spec: Given) -> Codes:
    if "split" not in log.columns:
        fix = "set log.split to the column that says the part, or give log.path as {train: ..., test: ...}"
        raise DataError("split.kind is given, but the log has no parts", where="split", fix=fix)
    codes = log["split"].replace_strict(list(PARTS), [0, 1, 2], return_dtype=pl.Int8).to_numpy().copy()
    if not (codes == VALID).any():
        rows = np.flatnonzero(codes == TRAIN)
        user = log["user"].to_numpy()[rows]
        order = np.lexsort((np.random.default_rng(spec.seed).random(len(rows)), user))
        counts = np.bincount(user, minlength=1)
        valid, _ = held_out(counts, spec.valid_fraction, spec.valid_fraction)
        codes[rows] = _last(user, order, valid, np.zeros_like(valid))
    return codes


def _times(log: pl.DataFrame, kind: str) -> Int:
    if "time" not in log.columns:
        fix = "set log.time to the column of times, or split.kind: user_random"
        raise DataError(f"split.kind {kind} needs times, and the log has none", where="split", fix=fix)
    return log["time"].to_numpy()
