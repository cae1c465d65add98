"""One feature column -> codes or standardised numbers, whatever its type was on disk."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from recdistill.errors import DataError


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
    packed = flat.with_columns(code=codes).group_by("row", maintain_order=True).agg(pl.col("code").sort())
    empty = pl.lit([], dtype=pl.List(pl.Int64))
    joined = rows.select("row").join(packed, on="row", how="left", maintain_order="left")
    return joined.select(pl.col("code").fill_null(empty)).to_series().alias(values.name), words


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
