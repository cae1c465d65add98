"""Raw columns of a log as expressions of the type they should have; null where a value cannot be read so."""

from __future__ import annotations

import polars as pl

from recdistill.errors import DataError

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
LAST = 2**63 - 1  # a time beyond what int64 microseconds can say: far enough in the future to be refused as such
MOSTLY = 0.99  # from this share on, a text column of whole numbers is one of numbers with some wrong rows
INTEGER = r"^(0|-?[1-9][0-9]*)$"
FLOAT = r"^-?[0-9]+\.[0-9]*$"
PADDED = r"^0[0-9]+$"
ISO = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d", "%Y%m%d")
ISO_ZONE = "%Y-%m-%dT%H:%M:%S%.f%#z"


def id_type(frame: pl.LazyFrame, column: str, *, is_text: bool, where: str) -> pl.DataType:
    """Return the type that keeps the ids in `column` as they are: Int64, UInt64 above 2^63, or String.

    `is_text` says that the file has no types, so that text of whole numbers means numbers; a zero in front keeps
    it text. Raises DataError for floats, which round above 2^53, and for types that name nothing.
    """
    dtype = frame.collect_schema()[column]
    if dtype.is_float():
        raise DataError("ids are floats, which round above 2^53", where=where, fix="cast them to integers, or to text")
    if dtype.is_integer():
        if dtype in (pl.UInt64, pl.Int128, pl.UInt128):
            top = frame.select(pl.col(column).max()).collect().item()
            return pl.UInt64() if top is not None and top > LAST else pl.Int64()
        return pl.Int64()
    if dtype == pl.String and is_text:
        return _text_id_type(frame, column, where)
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return pl.String()
    raise DataError(f"ids are {dtype}", where=where, fix="ids must be whole numbers or text")


def _text_id_type(frame: pl.LazyFrame, column: str, where: str) -> pl.DataType:
    c = pl.col(column)
    counts = frame.select(
        c.count().alias("all"),
        c.str.contains(INTEGER).sum().alias("whole"),
        c.str.contains(FLOAT).sum().alias("float"),
        c.str.contains(PADDED).sum().alias("padded"),
        c.cast(pl.Int64, strict=False).count().alias("signed"),
        c.cast(pl.UInt64, strict=False).count().alias("unsigned"),
    )
    n = counts.collect().row(0, named=True)
    if n["float"] and n["float"] + n["whole"] == n["all"]:
        what = f"{n['float']} ids are written as floats, such as 12.0"
        raise DataError(
            what, where=where, fix="cast the column to integers before writing it (Int64, where it has gaps)"
        )
    if not n["all"] or n["padded"] or n["whole"] < MOSTLY * n["all"]:
        return pl.String()
    if n["signed"] >= n["whole"]:
        return pl.Int64()
    return pl.UInt64() if n["unsigned"] >= n["whole"] else pl.String()


def typed_id(column: str, dtype: pl.DataType, target: pl.DataType) -> pl.Expr:
    """Return ids as `target`; text that is empty, or not a whole number where numbers are meant, becomes null."""
    c = pl.col(column)
    if dtype == pl.String and target != pl.String:
        return pl.when(c.str.contains(INTEGER)).then(c).cast(target, strict=False)
    if target == pl.String:
        text = c.cast(pl.String)
        return pl.when(text.str.strip_chars() != "").then(text)
    return c.cast(target, strict=False)


def typed_time(column: str, dtype: pl.DataType, unit: str, where: str) -> pl.Expr:
    """Return times as int64 microseconds since 1970 (UTC); numbers count `unit`, text that is none is ISO 8601.

    Raises DataError for a type that cannot say a time.
    """
    c = pl.col(column)
    if isinstance(dtype, (pl.Datetime, pl.Date)):
        return c.dt.timestamp("us")
    if dtype == pl.String and unit == "iso":
        return _iso(c)
    if dtype == pl.String:
        whole, real = c.cast(pl.Int64, strict=False), c.cast(pl.Float64, strict=False)
        return pl.coalesce(_scaled_integer(whole, unit), _scaled_float(real, unit), _iso(c))
    if unit == "iso":
        raise DataError(f"times are {dtype}, not text", where=where, fix="set log.time_unit to s, ms or us")
    if dtype.is_integer():
        return _scaled_integer(c, unit)
    if dtype.is_float():
        return _scaled_float(c.cast(pl.Float64), unit)
    raise DataError(f"times are {dtype}", where=where, fix="give numbers, datetimes or ISO 8601 text")


def _scaled_integer(c: pl.Expr, unit: str) -> pl.Expr:
    factor = 1_000_000 // PER_SECOND[unit]
    signed = c.cast(pl.Int64, strict=False)
    beyond = pl.when(c > 0).then(LAST).when(c < 0).then(-LAST)
    return pl.when(signed.is_between(-(LAST // factor), LAST // factor)).then(signed * factor).otherwise(beyond)


def _scaled_float(c: pl.Expr, unit: str) -> pl.Expr:
    micro = (c * float(1_000_000 // PER_SECOND[unit])).round()
    beyond = pl.when(c.is_finite() & (c > 0)).then(LAST).when(c.is_finite()).then(-LAST)
    return pl.when(micro.abs() < 2.0**63).then(micro.cast(pl.Int64, strict=False)).otherwise(beyond)


def _iso(c: pl.Expr) -> pl.Expr:
    text = c.str.strip_chars().str.replace(" ", "T", literal=True)
    plain = [text.str.to_datetime(f, time_unit="us", strict=False).dt.timestamp("us") for f in ISO]
    return pl.coalesce(text.str.to_datetime(ISO_ZONE, time_unit="us", strict=False).dt.timestamp("us"), *plain)


def typed_weight(column: str, dtype: pl.DataType, where: str) -> pl.Expr:
    """Return weights as Float32; raises DataError for a type that is neither a number nor text."""
    if not (dtype.is_numeric() or dtype == pl.String):
        raise DataError(f"weights are {dtype}", where=where, fix="give numbers")
    return pl.col(column).cast(pl.Float64, strict=False).cast(pl.Float32)


def typed_text(column: str) -> pl.Expr:
    """Return events and parts as text."""
    return pl.col(column).cast(pl.String)
