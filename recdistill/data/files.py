"""Tables on disk, read lazily: what a path means, what is wrong with it, and the digest of what it holds."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import polars as pl

from recdistill.causes import errno_of
from recdistill.errors import DataError

Format = Literal["auto", "csv", "ndjson", "parquet", "ipc"]
EXTENSIONS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".ipc": "ipc",
    ".feather": "ipc",
}
PACKED = (".gz", ".zst")
WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # what befalls what is written, and no log


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Yield a directory to write into that becomes `out` when the block ends well, and is removed otherwise.

    Raises DataError if `out` already holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError("is not empty", where=str(out), fix="name a new directory, or remove this one")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        partial.mkdir()
        yield partial
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def reading(where: str, locate: Callable[[], str | None] | None = None) -> Iterator[None]:
    """Turn what the reader raises inside the block into a DataError that names the file, and the line if `locate`d."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as cause:
        if errno_of(cause) in WRITING:
            raise
        reason = (locate and locate()) or " ".join(str(cause).split("\n\n")[0].split())
        fix = "check that the file is whole, is UTF-8 where it is text, and has the format its name says"
        raise DataError(f"cannot be read: {reason}", where=where, fix=fix) from cause


def scan_table(
    path: str, *, format: Format = "auto", separator: str = ",", only: Sequence[Path] | None = None
) -> pl.LazyFrame:
    """Return a lazy frame over one file, or over a directory of files (hive partitions become columns).

    CSV columns are all text, so that nothing is guessed; a `.tsv` file is separated by tabs. With `only` no other
    files of a directory are looked at.
    Raises DataError if there is nothing at `path`, it is empty, or its format cannot be read.
    """
    place = Path(path)
    files = table_files(path, format) if only is None else list(only)
    kind = kind_of(path, format)
    if all(f.stat().st_size == 0 for f in files):
        raise DataError("the file is empty", where=path, fix="export the log again")
    with reading(path):
        if kind == "parquet":
            frame = pl.scan_parquet(place if only is None else files, hive_partitioning=place.is_dir())
        elif kind == "ipc":
            whole = place.is_dir() and only is None
            frame = pl.scan_ipc(place if whole else files, hive_partitioning=place.is_dir())
        elif kind == "ndjson":
            frame = pl.scan_ndjson(files, infer_schema_length=None)
        else:
            tab = separator == "," and {".tsv"} & set(files[0].suffixes)
            frame = pl.scan_csv(files, infer_schema=False, separator="\t" if tab else separator)
        frame.collect_schema()
    return frame


def ragged_line(path: str, separator: str) -> str | None:
    """Say which line of a CSV file first has more fields than its header; None if none has, or it cannot be told."""
    try:
        with Path(path).open(newline="", encoding="utf-8", errors="strict") as stream:
            reader = csv.reader(stream, delimiter=separator)
            width = len(next(reader))
            for fields in reader:
                if len(fields) > width:
                    return f"line {reader.line_num} has {len(fields)} fields, the header {width}"
    except (OSError, csv.Error, StopIteration, UnicodeDecodeError):
        pass
    return None


def kind_of(path: str, format: Format = "auto") -> str:
    """Return the format of `path`: the one given, else by its extension; a directory holds Parquet."""
    if format != "auto":
        return format
    place = Path(path)
    if place.is_dir():
        return "parquet"
    suffix = Path(place.stem).suffix if place.suffix.lower() in PACKED else place.suffix
    if suffix.lower() not in EXTENSIONS:
        known = " ".join(EXTENSIONS)
        raise DataError(f"unknown extension {suffix!r}", where=path, fix=f"set the format, or use one of {known}")
    return EXTENSIONS[suffix.lower()]


def table_files(path: str, format: Format = "auto") -> list[Path]:
    """Return the files of a table in order of their names; raises DataError if there are none."""
    place = Path(path)
    if place.is_dir():
        kind = kind_of(path, format)
        endings = [e for e, k in EXTENSIONS.items() if k == kind]
        found = sorted(f for f in place.rglob("*") if f.suffix.lower() in endings and f.is_file())
        if not found:
            raise DataError(f"the directory holds no {kind} file", where=path, fix=f"put {endings[0]} files there")
        return found
    if not place.is_file():
        beside = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        near = did_you_mean(place.name, beside)
        fix = near or "give a path relative to where the command is run, or an absolute one"
        raise DataError("no such file", where=path, fix=fix)
    return [place]


def require(frame: pl.LazyFrame, columns: Iterable[str], where: str) -> None:
    """Raise DataError unless `frame` has every one of `columns`; says which names are near."""
    present = frame.collect_schema().names()
    missing = [c for c in columns if c not in present]
    if missing:
        near = [n for n in (did_you_mean(c, present) for c in missing) if n]
        what = f"no column {', '.join(map(repr, missing))}; it has {', '.join(present)}"
        raise DataError(what, where=where, fix="; ".join(near) or "name a column that is there")


def did_you_mean(name: str, among: Sequence[str]) -> str | None:
    """Return "did you mean 'x'?" for the nearest of `among`, whatever its case; None if nothing is near."""
    lower = {a.lower(): a for a in among}
    near = get_close_matches(name.lower(), list(lower), n=1, cutoff=0.6)
    return f"did you mean {lower[near[0]]!r}?" if near else None


def digest_table(path: str, format: Format = "auto", only: Sequence[Path] | None = None) -> str:
    """Return the hash of what a table holds: of a directory also the names below it, which carry hive values.

    With `only` of these files of it.
    """
    place, total = Path(path), hashlib.blake2b(digest_size=16)
    for file in table_files(path, format) if only is None else only:
        with reading(path), file.open("rb") as stream:
            name = str(file.relative_to(place)) if place.is_dir() else ""
            total.update(f"{name}\0{hashlib.file_digest(stream, 'blake2b').hexdigest()}\n".encode())
    return total.hexdigest()
