"""User and item feature tables: what a column is, its codes, and the arrays a model reads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from recdistill.data.encode import encode_categorical, encode_hashed, encode_multi, encode_numeric
from recdistill.data.files import Format, digest_table, kind_of, reading, require, scan_table
from recdistill.data.typed import id_type, typed_id
from recdistill.errors import DataError
from recdistill.spec import Spec
from recdistill.store import write_text
from recdistill.types import Features

Side = Literal["user", "item"]
SIDES: tuple[Side, ...] = ("user", "item")


class HashedText(Spec):
    """How free text becomes codes without a vocabulary: each word goes to the bucket that its hash says."""

    buckets: int = Field(16_384, ge=2)
    """How many codes there are; words that meet in one share its embedding, and the facts say how many do."""
    pairs: bool = False
    """Hash each two neighbouring words too: new york is more than new and york."""


class FeatureTableSpec(Spec):
    """One row of features for each user or item; ids without a row get code 0 and the mean."""

    path: str
    """A CSV, NDJSON, Parquet or Arrow IPC file."""
    key: str | None = None
    """The column of ids; user_id or item_id if not given."""
    categorical: list[str] = Field(default_factory=list)
    """Columns with one value: text, whole numbers or booleans."""
    multi: list[str] = Field(default_factory=list)
    """Columns with several values: lists, or text with `separator` between them."""
    hashed: dict[str, HashedText] = Field(default_factory=dict)
    """Columns of free text, such as titles; each word is a value, in lower case."""
    numeric: list[str] = Field(default_factory=list)
    """Columns of numbers, standardised; missing becomes 0, the mean."""
    separator: str = " "
    """Between the values of a multi column that is text."""
    format: Format = "auto"
    """auto goes by the extension."""

    @model_validator(mode="after")
    def _each_column_once(self) -> FeatureTableSpec:
        named = self.columns
        twice = sorted({c for c in named if named.count(c) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} named twice: a column is categorical, multi, hashed or numeric")
        if not named:
            raise ValueError("a feature table without columns has no effect: name some, or leave the table out")
        if not self.separator:
            raise ValueError("separator is empty")
        return self

    @property
    def columns(self) -> list[str]:
        """Return the names of all feature columns, in the order in which a model has them.

        Hashed ones go by name, because two orders of a mapping are one configuration.
        """
        return [*self.categorical, *self.multi, *sorted(self.hashed), *self.numeric]


class FeaturesSpec(Spec):
    """The optional feature tables; only a teacher that ranks reads them, so to the student they are privileged."""

    users: FeatureTableSpec | None = None
    """Features of users."""
    items: FeatureTableSpec | None = None
    """Features of items."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One side's features aligned to its rows, its vocabularies, and what is to be said about them (JSON-able)."""

    frame: pl.DataFrame
    vocabulary: pl.DataFrame  # side, column, value, code
    facts: dict[str, Any]


def digest_features(spec: FeaturesSpec | None) -> str:
    """Return the hash of the contents of the feature tables; raises DataError if one is missing."""
    tables = (None, None) if spec is None else (spec.users, spec.items)
    parts = "\n".join("-" if t is None else digest_table(t.path, t.format) for t in tables)
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def encode_features(spec: FeaturesSpec, user_ids: pl.Series, item_ids: pl.Series) -> dict[Side, Encoded]:
    """Return the encoded features of each side, row-aligned to the vocabularies `user_ids` and `item_ids`.

    Raises DataError for a missing file or column, a repeated or null id, and values of the wrong type.
    """
    return {"user": encode_table(spec.users, "user", user_ids), "item": encode_table(spec.items, "item", item_ids)}


def encode_table(spec: FeatureTableSpec | None, side: Side, ids: pl.Series) -> Encoded:
    """Return the features of one side for `ids`; without a table, no columns.

    Code 0 is missing; the others count down from the most frequent value, ties in order of the value, or are hashes,
    which need no vocabulary.
    """
    facts: dict[str, Any] = {"categorical": [], "multi": [], "hashed": {}, "numeric": [], "sizes": {}, "moments": {}}
    columns: list[pl.Series] = []
    words: list[pl.DataFrame] = []
    if spec is not None:
        frame, found, unused = _aligned(spec, side, ids)
        facts |= {"categorical": spec.categorical, "multi": spec.multi, "numeric": spec.numeric}
        facts |= {"rows": found, "ids_without_row": len(ids) - found, "rows_without_id": unused}
        for name in [*spec.categorical, *spec.multi]:
            place = f"{spec.path}, column {name!r}"
            several = name in spec.multi
            column = frame[name]
            codes, known = encode_multi(column, spec.separator, place) if several else encode_categorical(column, place)
            columns.append(codes)
            facts["sizes"][name] = len(known) + 1
            words.append(_vocabulary(side, name, known))
        for name, how in sorted(spec.hashed.items()):
            place = f"{spec.path}, column {name!r}"
            codes, facts["hashed"][name] = encode_hashed(frame[name], how.buckets, how.pairs, place)
            columns.append(codes)
            facts["sizes"][name] = how.buckets + 1
        for name in spec.numeric:
            values, facts["moments"][name] = encode_numeric(frame[name], f"{spec.path}, column {name!r}")
            columns.append(values)
    return Encoded(
        pl.DataFrame(columns), pl.concat([_vocabulary(side, "", pl.Series([], dtype=pl.String)), *words]), facts
    )


def _vocabulary(side: Side, column: str, values: pl.Series) -> pl.DataFrame:
    named = [pl.lit(side).alias("side"), pl.lit(column).alias("column")]
    code = pl.int_range(1, len(values) + 1, dtype=pl.Int64, eager=True).alias("code")
    return pl.DataFrame({"value": values}).select(*named, "value", code)


def _aligned(spec: FeatureTableSpec, side: Side, ids: pl.Series) -> tuple[pl.DataFrame, int, int]:
    """Return the table with one row for each of `ids`, how many had a row, and how many rows no id asked for."""
    key = spec.key or f"{side}_id"
    frame = scan_table(spec.path, format=spec.format)
    require(frame, [key, *spec.columns], spec.path)
    place = f"{spec.path}, column {key!r}"
    with reading(spec.path):
        dtype = frame.collect_schema()[key]
        id_type(frame, key, is_text=kind_of(spec.path, spec.format) == "csv", where=place)
        named = [typed_id(key, dtype, ids.dtype).alias("__id"), pl.col(key).alias("__key")]
        table = frame.select(*named, *spec.columns).collect()
    bad = table.filter(pl.col("__id").is_null())
    if bad.height:
        what = f"{bad.height} ids are missing or not {ids.dtype} as in the log, first: {bad['__key'].head(3).to_list()}"
        raise DataError(what, where=place, fix="give every row an id of the log's type")
    repeated = table.group_by("__id").len().filter(pl.col("len") > 1).sort("__id")
    if repeated.height:
        what = f"{repeated.height} ids have more than one row, first: {repeated['__id'].head(3).to_list()}"
        raise DataError(what, where=place, fix="keep one row for each id")
    found_rows = table.with_columns(__found=True)
    rows = pl.DataFrame({"__id": ids}).join(found_rows, on="__id", how="left", maintain_order="left")
    found = int(rows["__found"].sum())
    if found == 0:
        what = f"none of its {table.height} ids is in the log"
        raise DataError(what, where=place, fix=f"use the ids of the log, such as {ids.head(3).to_list()}")
    return rows, found, table.height - found


def write_features(encoded: dict[Side, Encoded], out: Path) -> dict[str, Any]:
    """Write {user,item}_features.parquet, features_vocab.parquet and features.json into `out`; return the latter."""
    for side, one in encoded.items():
        one.frame.write_parquet(out / f"{side}_features.parquet")
    pl.concat([one.vocabulary for one in encoded.values()]).write_parquet(out / "features_vocab.parquet")
    facts: dict[str, Any] = {side: one.facts for side, one in encoded.items()}
    write_text(out / "features.json", json.dumps(facts, indent=1, sort_keys=True))
    return facts


def read_features(directory: Path) -> tuple[Features, Features]:
    """Return the encoded features of users and items that `ingest` wrote into `directory`."""
    facts = json.loads((directory / "features.json").read_text(encoding="utf-8"))
    return _read(directory, "user", facts["user"]), _read(directory, "item", facts["item"])


def _read(directory: Path, side: Side, facts: dict[str, Any]) -> Features:
    if not (facts["sizes"] or facts["numeric"]):
        return Features()
    frame = pl.read_parquet(directory / f"{side}_features.parquet")
    multi = {}
    for name in [*facts["multi"], *facts["hashed"]]:
        lengths = frame[name].list.len().to_numpy().astype(np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        multi[name] = (offsets, frame[name].explode(empty_as_null=False).to_numpy())
    return Features(
        sizes=facts["sizes"],
        categorical={name: frame[name].to_numpy() for name in facts["categorical"]},
        multi=multi,
        numeric={name: frame[name].to_numpy() for name in facts["numeric"]},
    )
