"""Public data sets as people download them -> interactions, users and items as Parquet."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recdistill.data.files import did_you_mean, new_directory, reading
from recdistill.errors import DataError

GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
# The code of an occupation is its place here.
OCCUPATIONS_1M = (
    "other",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)
Tables = Mapping[str, pl.DataFrame]


def import_public(kind: str, source: Path, out: Path) -> dict[str, Any]:
    """Write the data set at `source` as Parquet files into the new directory `out`; return rows and columns of each.

    `kind` is one of KINDS. The directory appears whole or not at all. Raises DataError for an unknown kind, a
    missing or broken source (with the line), or if `out` already holds something.
    """
    if kind not in KINDS:
        near = did_you_mean(kind, list(KINDS))
        raise DataError(f"unknown kind {kind!r}; known are {', '.join(KINDS)}", where="import", fix=near)
    if not source.exists():
        raise DataError("no such file or directory", where=str(source), fix="give the path of the download")
    with new_directory(out) as partial:
        tables = KINDS[kind](source)
        for name, table in tables.items():
            table.write_parquet(partial / f"{name}.parquet")
    return {name: {"rows": table.height, "columns": table.columns} for name, table in tables.items()}


def movielens_100k(source: Path) -> Tables:
    """Read MovieLens 100k, the zip or its folder: u.data, u.user and u.item."""
    ratings = _delimited(source, "u.data", "\t", ["user_id", "item_id", "rating", "timestamp"])
    users = _delimited(source, "u.user", "|", ["user_id", "age", "gender", "occupation", "zip_code"])
    raw = _delimited(source, "u.item", "|", ["item_id", "movie_title", "released", "video", "url", *GENRES_100K])
    flags = [pl.when(pl.col(g) == "1").then(pl.lit(g)) for g in GENRES_100K]
    items = raw.with_columns(pl.concat_str(flags, separator=" ", ignore_nulls=True).alias("class"))
    return {
        "interactions": _numbers(ratings, source),
        "users": _numbers(users, source),
        "items": _numbers(_with_year(items), source),
    }


def movielens_1m(source: Path) -> Tables:
    """Read MovieLens 1M, the zip or its folder: ratings.dat, users.dat and movies.dat."""
    ratings = _delimited(source, "ratings.dat", "::", ["user_id", "item_id", "rating", "timestamp"])
    users = _delimited(source, "users.dat", "::", ["user_id", "gender", "age", "occupation", "zip_code"])
    jobs = {str(code): name for code, name in enumerate(OCCUPATIONS_1M)}
    users = users.with_columns(pl.col("occupation").replace(jobs))
    items = _delimited(source, "movies.dat", "::", ["item_id", "movie_title", "genres"])
    items = items.with_columns(pl.col("genres").str.replace_all("|", " ", literal=True).alias("class"))
    return {
        "interactions": _numbers(ratings, source),
        "users": _numbers(users, source).select("user_id", "age", "gender", "occupation", "zip_code"),
        "items": _numbers(_with_year(items), source),
    }


def lightgcn_text(source: Path) -> Tables:
    """Read train.txt and test.txt (and valid.txt) of a folder: each line a user and the items they took."""
    if not source.is_dir():
        raise DataError(
            "is not a directory", where=str(source), fix="give the folder that holds train.txt and test.txt"
        )
    parts = []
    for part in ("train", "valid", "test"):
        file = source / f"{part}.txt"
        if not file.is_file() and part == "valid":
            continue
        lines = _integers(_text(source, file.name), file)
        users, items = _pairs([(line[0], line[1:]) for line in lines if line])
        parts.append(pl.DataFrame({"user_id": users, "item_id": items, "split": [part] * len(users)}))
    return {"interactions": pl.concat(parts)}


def citeulike_users_dat(source: Path) -> Tables:
    """Read users.dat of CiteULike: line `n` is user `n` from 0, and begins with the count of the items that follow.

    Raises DataError with the line number where the count is wrong: read as an item, it would be the most popular.
    """
    file = source / "users.dat" if source.is_dir() else source
    lines = _integers(_text(file.parent, file.name), file)
    for number, line in enumerate(lines, start=1):
        if line and line[0] != len(line) - 1:
            what = f"line {number} begins with {line[0]}, but {len(line) - 1} items follow"
            raise DataError(what, where=str(file), fix="use the original file, where each line begins with its length")
    users, items = _pairs([(user, line[1:]) for user, line in enumerate(lines)])
    return {"interactions": pl.DataFrame({"user_id": users, "item_id": items})}


def _pairs(lists: list[tuple[int, list[int]]]) -> tuple[np.ndarray, np.ndarray]:
    users = np.repeat(np.array([u for u, _ in lists], np.int64), [len(items) for _, items in lists])
    return users, np.concatenate([np.zeros(0, np.int64), *(np.array(items, np.int64) for _, items in lists)])


def _integers(text: str, file: Path) -> list[list[int]]:
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            lines.append([int(token) for token in line.split()])
        except ValueError as cause:
            what = f"line {number} holds something other than whole numbers: {line[:60]!r}"
            raise DataError(what, where=str(file), fix="check that this is the file of the data set") from cause
    if not any(lines):
        raise DataError("the file is empty", where=str(file), fix="download it again")
    return lines


def _text(source: Path, name: str) -> str:
    """Return the text of file `name` in a zip or folder; UTF-8, or Latin-1 where it is not."""
    place = f"{source}: {name}"
    data: bytes | None = None
    if source.is_dir():
        found = sorted(source.rglob(name))
        with reading(place):
            data = found[0].read_bytes() if found else None
    else:
        try:
            with zipfile.ZipFile(source) as archive:
                inside = [n for n in archive.namelist() if Path(n).name == name]
                data = archive.read(inside[0]) if inside else None
        except (zipfile.BadZipFile, EOFError, OSError) as cause:
            fix = "download it again, or give the unpacked folder"
            raise DataError(f"not a whole zip file ({cause})", where=str(source), fix=fix) from cause
    if data is None:
        raise DataError(f"holds no {name}", where=str(source), fix="give the download of this data set, or its folder")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _delimited(source: Path, name: str, separator: str, columns: list[str]) -> pl.DataFrame:
    """Return a headerless file as text columns; raises DataError at the first line with another number of fields."""
    rows = []
    for number, line in enumerate(io.StringIO(_text(source, name)), start=1):
        fields = line.rstrip("\r\n").split(separator)
        if len(fields) != len(columns):
            what = f"line {number} has {len(fields)} fields, not {len(columns)}: {line.rstrip()[:60]!r}"
            raise DataError(what, where=f"{source}: {name}", fix="download it again")
        rows.append(fields)
    if not rows:
        raise DataError("the file is empty", where=f"{source}: {name}", fix="download it again")
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def _with_year(items: pl.DataFrame) -> pl.DataFrame:
    title, year = pl.col("movie_title"), r"\s*\((\d{4})\)\s*$"
    return items.select("item_id", title.str.replace(year, ""), title.str.extract(year).alias("release_year"), "class")


def _numbers(table: pl.DataFrame, source: Path) -> pl.DataFrame:
    whole = [c for c in ("user_id", "item_id", "age", "timestamp") if c in table.columns]
    types: dict[str, type[pl.DataType]] = dict.fromkeys(whole, pl.Int64)
    if "rating" in table.columns:
        types["rating"] = pl.Float32
    for name, dtype in types.items():
        wrong = table.with_row_index("line", 1).filter(pl.col(name).cast(dtype, strict=False).is_null())
        if wrong.height:
            what = f"{wrong.height} values are not numbers, first: line {wrong['line'][0]} ({wrong[name][0]!r})"
            raise DataError(what, where=f"{source}, column {name!r}", fix="download it again")
    return table.with_columns(pl.col(name).cast(dtype) for name, dtype in types.items())


KINDS: dict[str, Callable[[Path], Tables]] = {
    "movielens-100k": movielens_100k,
    "movielens-1m": movielens_1m,
    "lightgcn": lightgcn_text,
    "citeulike": citeulike_users_dat,
}
