"""Log -> train, valid, test: five ways to hold out, each checked by the linter before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from recdistill.data import mapped
from recdistill.data.assign import TEST, TRAIN, Codes, by_moments, chronological, held_out, last, moments
from recdistill.data.blocks import Blocks
from recdistill.data.lint import Counts, Finding, Rows, count, findings, refused
from recdistill.data.log import PARTS
from recdistill.errors import DataError
from recdistill.spec import Spec
from recdistill.store import write_text
from recdistill.types import Int

Fraction = Annotated[float, Field(gt=0, lt=1)]
TYPES = {"user": np.int64, "item": np.int64, "time": np.int64, "weight": np.float32, "event": np.int16}
KEPT = tuple(TYPES)
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
    a place in the list of events.json, -1 for none). Memory is that of a block of users and of a few counts a user
    and an item; the parts are twice on disk while this runs. The facts are JSON-able.
    Raises DataError if the log lacks what the split needs, a part is empty, or the linter refuses the split.
    """
    log = Blocks.of(ingested)
    events = event_names(log.scan, str(ingested)) if "event" in log.names else []
    assign = assigner(log, spec)
    empty = not out.exists()
    scratch = out / ".columns"
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed run left must not come before what this one adds
    try:
        scratch.mkdir(parents=True)
        counts, item_numbers = _spread(log, assign, events, ingested, scratch)
        parts = [mapped.grown(scratch, name, {c: TYPES[c] for c in KEPT if c in log.names}) for name in PARTS]
        _require_rows(counts, spec, ingested)
        times = [parts[p].get("time") for p in (TRAIN, TEST)]
        found = findings(counts, *times, kind=spec.kind, tokens=item_numbers)
        _require_sound(found, spec, ingested)
        for name, part in zip(PARTS, parts, strict=True):
            mapped.write(out / f"{name}.arrow", part)
        seen = np.bincount(parts[TRAIN]["event"] + 1, minlength=len(events) + 1)[1:] if events else []
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if empty and out.exists() and not any(out.iterdir()):
            out.rmdir()
    write_text(out / "events.json", json.dumps(events))
    report = {"kind": spec.kind, "allow": list(spec.allow), "findings": found}
    write_text(out / "lint.json", json.dumps(report, indent=1, sort_keys=True))
    rows, users = (dict(zip(PARTS, map(int, n), strict=True)) for n in (counts.rows, counts.users))
    facts: dict[str, Any] = {"kind": spec.kind, "rows": rows, "users": users, "lint": found}
    if events:
        facts["train_events"] = dict(zip(events, map(int, seen), strict=True))
    return facts


def _spread(
    log: Blocks, assign: Callable[[pl.DataFrame], Codes], events: list[str], ingested: Path, scratch: Path
) -> tuple[Counts, bool]:
    """Add every block to the columns of the parts in `scratch`; return what the linter counts, and if ids are whole."""
    ids = pl.read_parquet(ingested / "items.parquet")["item_id"]
    order, numbers = id_order(ids), ids.to_numpy() if ids.dtype == pl.Int64 else None
    counts = Counts.of(len(ids))
    for block in log:
        codes = assign(block)
        if "event" in log.names:
            block = block.with_columns(event_codes(block["event"], events))
        values = {name: block[name].to_numpy() for name in KEPT if name in log.names}
        rows = Rows(values["user"], values["item"], values.get("time"))
        count(counts, rows, codes, item_order=order, item_numbers=numbers)
        for code, name in enumerate(PARTS):
            at = np.flatnonzero(codes == code)
            mapped.append(scratch, name, {c: v[at].astype(TYPES[c], copy=False) for c, v in values.items()})
    return counts, numbers is not None


def _require_rows(counts: Counts, spec: SplitSpec, ingested: Path) -> None:
    for name, rows in zip(PARTS, counts.rows, strict=True):
        if not rows:
            what = f"the {name} part is empty: {counts.rows.sum()} rows, split.kind {spec.kind}"
            raise DataError(what, where=str(ingested), fix="use another split.kind or fractions, or a larger log")


def _require_sound(found: list[dict[str, Any]], spec: SplitSpec, ingested: Path) -> None:
    bad = refused(found, spec.allow)
    if bad:
        text = "\n".join(f"  - {f['name']}: {f['text']}" for f in bad)
        names = ", ".join(dict.fromkeys(f["name"] for f in bad))
        fix = f"change the split, or accept what was found with split.allow: [{names}]"
        raise DataError(f"the split linter refuses split.kind {spec.kind}\n{text}", where=str(ingested), fix=fix)


def event_names(log: pl.LazyFrame, where: str) -> list[str]:
    """Return the names in the column `event` in order of the text; blanks name none.

    Raises DataError, naming `where`, for a column that has too many different values to say what happened.
    """
    told = log.select(pl.col("event").unique()).collect()["event"]
    names = told.set(told.str.strip_chars() == "", None).drop_nulls().sort()
    if len(names) > MOST_EVENTS:
        what = f"log.event has {len(names)} different values, first: {names.head(3).to_list()}"
        fix = "name a column that says what happened, such as view or purchase, or leave log.event out"
        raise DataError(what, where=where, fix=fix)
    return names.to_list()


def event_codes(events: pl.Series, names: list[str]) -> pl.Series:
    """Return the place of each of `events` in `names`, int16, -1 for none."""
    return events.replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int16)


def id_order(ids: pl.Series) -> Int:
    """Return the place of each id among all in their own order: as numbers if all are, else as text."""
    numbers = ids.cast(pl.Int128, strict=False)
    return (ids if numbers.null_count() else numbers).rank("ordinal").to_numpy().astype(np.int64) - 1


def assigner(log: Blocks, spec: SplitSpec) -> Callable[[pl.DataFrame], Codes]:
    """Return what gives the part of each row of a block, called on the blocks of `log` in order.

    Raises DataError as `split` does.
    """
    match spec:
        case GlobalTime():
            _require_times(log, spec.kind)
            times = partial(log.column, "time")
            cuts = moments(log.rows, spec.valid_fraction, spec.test_fraction, times)
            return lambda block: by_moments(block["time"].to_numpy(), *cuts)
        case UserChronological() | LeaveLast():
            _require_times(log, spec.kind)
            return partial(_latest, spec)
        case UserRandom():
            return partial(_random, spec, np.random.default_rng(spec.seed))
        case Given():
            if "split" not in log.names:
                fix = "set log.split to the column that says the part, or give log.path as {train: ..., test: ...}"
                raise DataError("split.kind is given, but the log has no parts", where="split", fix=fix)
            told = log.scan.select((pl.col("split") == "valid").any()).collect().item()
            return partial(_given, None if told else spec, np.random.default_rng(spec.seed))


def _latest(spec: UserChronological | LeaveLast, block: pl.DataFrame) -> Codes:
    user, item, time = (block[name].to_numpy() for name in ("user", "item", "time"))
    order = chronological(user, item, time)
    user = user - user[0]
    counts = np.bincount(user)
    one = (counts >= 3).astype(np.int64)
    fractions = isinstance(spec, UserChronological)
    return last(user, order, *(held_out(counts, spec.valid_fraction, spec.test_fraction) if fractions else (one, one)))


def _random(spec: UserRandom, rng: np.random.Generator, block: pl.DataFrame) -> Codes:
    user = block["user"].to_numpy()
    user = user - user[0]
    order = np.lexsort((rng.random(len(user)), user))
    return last(user, order, *held_out(np.bincount(user), spec.valid_fraction, spec.test_fraction))


def _given(draw: Given | None, rng: np.random.Generator, block: pl.DataFrame) -> Codes:
    """Return the parts that the block says; with `draw`, valid is drawn from train."""
    codes = block["split"].replace_strict(list(PARTS), [0, 1, 2], return_dtype=pl.Int8).to_numpy().copy()
    rows = np.flatnonzero(codes == TRAIN)
    if draw is not None and len(rows):
        user = block["user"].to_numpy()[rows]
        user = user - user[0]
        order = np.lexsort((rng.random(len(rows)), user))
        valid, _ = held_out(np.bincount(user), draw.valid_fraction, draw.valid_fraction)
        codes[rows] = last(user, order, valid, np.zeros_like(valid))
    return codes


def _require_times(log: Blocks, kind: str) -> None:
    if "time" not in log.names:
        fix = "set log.time to the column of times, or split.kind: user_random"
        raise DataError(f"split.kind {kind} needs times, and the log has none", where="split", fix=fix)
