"""Which rows of which files are the log: its specification, and a lazy scan under canonical column names."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field, model_validator

from recdistill.data.files import Format, digest_table, kind_of, ragged_line, reading, require, scan_table
from recdistill.data.typed import typed_time
from recdistill.data.window import Window, day_files, inside
from recdistill.spec import Spec

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")


class LogSpec(Spec):
    """An interaction log: where it is, which columns mean what, and which rows count."""

    path: str | list[str] | dict[Part, str]
    """One file or directory, several of them, or one for each part of a given split (train, valid, test)."""
    user: str
    """The column of user ids: whole numbers or text, kept as they are."""
    item: str
    """The column of item ids."""
    time: str | None = None
    """The column of times: numbers in `time_unit`, dates, or ISO 8601 text (UTC where no zone is given)."""
    time_unit: Literal["s", "ms", "us", "iso"] = "s"
    """What a number in the time column counts since 1970; iso reads all text as ISO 8601, even digits."""
    weight: str | None = None
    """A column of strengths, such as ratings."""
    min_weight: float | None = None
    """Rows below this weight are not positives and are left out."""
    event: str | None = None
    """A column that says what happened: view, click, purchase."""
    events: list[str] | None = None
    """The events that count; the others are left out, and no model can learn from them."""
    split: str | None = None
    """A column with train, valid and test, for `split: {kind: given}`."""
    format: Format = "auto"
    """auto goes by the extension; a directory holds Parquet, hive-partitioned or not."""
    separator: str = ","
    """Between the fields of a CSV file."""
    min_user: int = 1
    """Users with fewer interactions are left out, and with `min_item` again until nothing changes (k-core)."""
    min_item: int = 1
    """Items with fewer interactions are left out, likewise."""
    bad_rows: Literal["refuse", "drop"] = "refuse"
    """Rows that break the contract stop the run, or are left out and counted."""
    duplicates: Literal["refuse", "keep_last", "keep_first"] = "keep_last"
    """What to do when a user meets an item again (in the same part, where parts are given); always counted.

    The row that is kept brings its own weight and event; those of the others are gone.
    """

    window: Window | None = Field(default=None, exclude_if=lambda window: window is None)
    """Only the rows of these days, as in {first: 2026-10-24, last: 2026-11-20}; of a directory whose files lie in one
    a day, as in date=2026-11-20/, the others are not read."""

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> LogSpec:
        if self.min_weight is not None and self.weight is None:
            raise ValueError("min_weight has no effect without weight: name the column, as in weight: rating")
        if self.events is not None and self.event is None:
            raise ValueError("events has no effect without event: name the column, as in event: action")
        if isinstance(self.path, dict) and self.split is not None:
            raise ValueError("split has no effect where path names the parts: leave one of them out")
        if self.window is not None and self.time is None:
            raise ValueError("window needs times: name their column, as in time: timestamp")
        if self.window is not None and isinstance(self.path, dict):
            raise ValueError("window has no effect where path names the parts: leave one of them out")
        if not self.path:
            raise ValueError("path names no file")
        if len(self.separator) != 1 or not self.separator.isascii() or self.separator in '"\r\n':
            raise ValueError(f"separator must be one ASCII character, no quote and no newline, not {self.separator!r}")
        if self.min_user < 1 or self.min_item < 1:
            raise ValueError("min_user and min_item count interactions: 1 keeps all")
        return self


def columns(spec: LogSpec) -> dict[str, str]:
    """Return canonical name -> the caller's column, in order: user, item, then those that are given."""
    named = {
        "user": spec.user,
        "item": spec.item,
        "time": spec.time,
        "weight": spec.weight,
        "event": spec.event,
        "split": spec.split,
    }
    return {name: column for name, column in named.items() if column is not None}


def sources(spec: LogSpec) -> list[tuple[Part | None, str]]:
    """Return the tables of the log as (part, path); the part is None where the path does not say it."""
    if isinstance(spec.path, dict):
        return [(part, spec.path[part]) for part in PARTS if part in spec.path]
    return [(None, path) for path in ([spec.path] if isinstance(spec.path, str) else spec.path)]


def where(spec: LogSpec) -> str:
    """Return the path for messages."""
    return ", ".join(path for _, path in sources(spec))


def is_text(spec: LogSpec) -> bool:
    """Say whether the log's ids came as text only because its format has no types (CSV)."""
    return any(kind_of(path, spec.format) == "csv" for _, path in sources(spec))


def scan(spec: LogSpec) -> pl.LazyFrame:
    """Return the log lazily with columns user, item and those of time, weight, event, split that it has.

    Nothing is cast or dropped yet, but for files of other days than `spec.window`. Raises DataError for a missing,
    empty or unreadable file or a missing column.
    """
    frames = []
    for part, path in sources(spec):
        only = day_files(path, spec.format, spec.window)
        frame = scan_table(path, format=spec.format, separator=spec.separator, only=only)
        require(frame, columns(spec).values(), path)
        # A column of nothing but nulls has no type of its own; as text, each of its rows can be told to be null.
        nothing = [name for name, dtype in frame.collect_schema().items() if dtype == pl.Null]
        frame = frame.with_columns(pl.col(nothing).cast(pl.String)) if nothing else frame
        chosen = [pl.col(column).alias(name) for name, column in columns(spec).items()]
        if part is not None:
            chosen.append(pl.lit(part).alias("split"))
        frames.append(frame.select(chosen))
    return frames[0] if len(frames) == 1 else pl.concat(frames)


def reading_log(spec: LogSpec) -> AbstractContextManager[None]:
    """Turn what the reader raises inside the block into a DataError that names the file and, in CSV, the line."""

    def locate() -> str | None:
        texts = [path for _, path in sources(spec) if Path(path).is_file() and kind_of(path, spec.format) == "csv"]
        found = [(path, ragged_line(path, spec.separator)) for path in texts]
        return next((f"{Path(path).name}: {line}" for path, line in found if line), None)

    return reading(where(spec), locate)


def digest(spec: LogSpec) -> str:
    """Return the hash of the contents of every file of the log: the fingerprint uses it in place of paths.

    Of a window it is of that alone: of the files of its days, or where those cannot be told apart of its rows, so that
    what comes to other days changes nothing. Raises DataError if a file is missing or unreadable.
    """
    parts = "\n".join(f"{part or ''}={_digest(spec, path)}" for part, path in sources(spec))
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def _digest(spec: LogSpec, path: str) -> str:
    if spec.window is None:
        return digest_table(path, spec.format)
    only = day_files(path, spec.format, spec.window)
    if only is not None:
        return digest_table(path, spec.format, only)
    frame, total = scan(spec.model_copy(update={"path": path})), hashlib.blake2b(digest_size=16)
    with reading_log(spec):
        time = typed_time("time", frame.collect_schema()["time"], spec.time_unit, path)
        for block in frame.filter(inside(time, spec.window)).collect_batches(maintain_order=True):
            total.update(block.write_csv(include_header=False).encode())
    return total.hexdigest()
