"""One feature column -> codes or standardised numbers, whatever its type was on disk."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import polars as pl

from recdistill.errors import DataError

WORD = r"[\p{L}\p{M}\p{N}]+"  # letters with their marks, and digits, of any script


def encode_categorical(values: pl.Series, where: str) -> tuple[pl.Series, pl.Series]:
    """Return the code of each row (int64, 0 where missing) and the values of codes 1, 2, ... as text.

    Raises DataError for floats, lists and other types that are not names of things.
    """
    dtype = values.dtype
    if not (dtype.is_integer() or dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum, pl.Null)):
        raise DataError(
            f"a categorical feature of type {dtype}", where=where, fix="list it as numeric or multi, or cast"
        )
    words = values.cast(pl.String)
    words = pl.select(pl.when(words.str.strip_chars() != "").then(words)).to_series()
    return _codes(words.alias(values.name))


def encode_multi(values: pl.Series, separator: str, where: str) -> tuple[pl.Series, pl.Series]:
    """Return the codes of each row as List(Int64), empty where missing, and the values of codes 1, 2, ... as text.

    A value repeated in a row counts once. Raises DataError for a column that is neither a list nor text.
    """
    dtype = values.dtype
    if dtype == pl.String:
        lists = values.str.split(separator)
    elif isinstance(dtype, pl.List) and (dtype.inner.is_integer() or dtype.inner in (pl.String, pl.Categorical)):
        lists = values.cast(pl.List(pl.String))
    else:
        raise DataError(f"a multi-valued feature of type {dtype}", where=where, fix="give text or a list of text")
    rows = pl.DataFrame({"row": pl.int_range(len(values), dtype=pl.Int64, eager=True), "value": lists})
    flat = rows.explode("value").filter(pl.col("value").str.strip_chars() != "").unique(maintain_order=True)
    codes, words = _codes(flat["value"])
    return _packed(rows["row"], flat["row"], codes).alias(values.name), words


def encode_hashed(values: pl.Series, buckets: int, pairs: bool, where: str) -> tuple[pl.Series, dict[str, Any]]:
    """Return the codes 1 to `buckets` of each row's words as List(Int64), empty where it has none, and facts.

    Words are lower-case after Unicode's NFKC, and repeated in a row count once; `pairs` adds each two neighbours.
    The facts count words and rows without any; `collision_rate` is the share of the distinct words (and pairs) that
    have their code in common with another. Raises DataError for a column that is not text.
    """
    if values.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        fix = "list it as categorical, multi or numeric, or give text"
        raise DataError(f"a hashed feature of type {values.dtype}", where=where, fix=fix)
    text = values.cast(pl.String).str.normalize("NFKC").str.to_lowercase()
    row = pl.int_range(len(values), dtype=pl.Int64, eager=True)
    rows = pl.DataFrame({"row": row, "word": text.str.extract_all(WORD)})
    flat = rows.explode("word").drop_nulls("word")
    occurring = flat.height
    if pairs:
        after = flat.select("row", "word", next=pl.col("word").shift(-1), same=pl.col("row") == pl.col("row").shift(-1))
        both = after.filter("same").select("row", word=pl.concat_str("word", "next", separator=" "))
        flat = pl.concat([flat, both])
    known = pl.DataFrame({"word": flat["word"].unique()})
    known = known.with_columns(code=pl.Series([hash_word(w, buckets) for w in known["word"]], dtype=pl.Int64))
    coded = flat.join(known, on="word", how="left").select("row", "code").unique()
    shared = int(known["code"].is_duplicated().sum())
    facts = {
        "buckets": buckets,
        "words": occurring,
        "distinct": known.height,
        "collision_rate": round(shared / max(1, known.height), 6),
        "rows_without_words": len(values) - flat["row"].n_unique(),
    }
    return _packed(row, coded["row"], coded["code"]).alias(values.name), facts


def hash_word(word: str, buckets: int) -> int:
    """Return the code of `word`, 1 to `buckets`: the same on every machine and under every version of everything."""
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % buckets + 1


def _packed(rows: pl.Series, at: pl.Series, codes: pl.Series) -> pl.Series:
    """Return for each of `rows` the sorted list of the `codes` that stand `at` it, empty where none does."""
    lists = pl.DataFrame({"row": at, "code": codes}).group_by("row").agg(pl.col("code").sort())
    joined = pl.DataFrame({"row": rows}).join(lists, on="row", how="left", maintain_order="left")
    return joined.select(pl.col("code").fill_null(pl.lit([], dtype=pl.List(pl.Int64)))).to_series()


def _codes(words: pl.Series) -> tuple[pl.Series, pl.Series]:
    counts = pl.DataFrame({"value": words}).drop_nulls().group_by("value").len()
    known = counts.sort("len", "value", descending=[True, False])["value"]
    table = pl.DataFrame({"value": known, "code": pl.int_range(1, len(known) + 1, dtype=pl.Int64, eager=True)})
    rows = pl.DataFrame({"value": words}).join(table, on="value", how="left", maintain_order="left")
    return rows["code"].fill_null(0).alias(words.name), known


def encode_numeric(values: pl.Series, where: str) -> tuple[pl.Series, dict[str, float]]:
    """Return the column with mean 0 and variance 1 over its known values (float32), missing 0, and the two moments.

    NaN is missing, as pandas writes it. Raises DataError for text that is no number and for infinite values.
    """
    if not (values.dtype.is_numeric() or values.dtype in (pl.String, pl.Boolean, pl.Null)):
        raise DataError(f"a numeric feature of type {values.dtype}", where=where, fix="give numbers")
    text = values if values.dtype == pl.String else None
    numbers = values.cast(pl.Float64, strict=False).fill_nan(None)
    if text is not None:
        known = text.str.strip_chars() != ""
        wrong = text.filter(known & numbers.is_null() & (text.str.to_lowercase() != "nan"))
        if len(wrong):
            what = f"{len(wrong)} values are not numbers, first: {wrong.head(3).to_list()}"
            raise DataError(what, where=where, fix="list the column as categorical, or repair the values")
    infinite = values.filter(numbers.is_infinite().fill_null(False))
    if len(infinite):
        what = f"{len(infinite)} values are infinite"
        raise DataError(what, where=where, fix="repair the values, or leave them empty")
    # Sums are taken in row order by numpy, because a parallel sum of floats differs from run to run.
    array = numbers.to_numpy()
    known_values = array[~np.isnan(array)]
    mean = float(known_values.mean()) if len(known_values) else 0.0
    deviation = float(known_values.std()) if len(known_values) else 0.0
    if deviation <= 1e-9 * abs(mean):  # a constant: what is left is rounding
        deviation = 0.0
    scaled = np.nan_to_num((array - mean) / (deviation or math.inf), nan=0.0).astype(np.float32)
    return pl.Series(values.name, scaled), {"mean": mean, "std": deviation}
