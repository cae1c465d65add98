"""What a row of a log must be; every row that is not is counted by rule, with its first examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from recdistill.data.log import PARTS, LogSpec, columns, is_text, reading_log, scan, where
from recdistill.data.typed import id_type, typed_id, typed_text, typed_time, typed_weight
from recdistill.data.window import inside
from recdistill.errors import DataError

EXAMPLES = 3
RAW = "raw_"


def encoded(log: pl.DataFrame) -> bool:
    """Say whether rows of log.parquet keep its contract: user, item and time, if there, are int64, known and from 0."""
    columns = [log[name] for name in ("user", "item", "time") if name in log.columns]
    kept = [c.dtype == pl.Int64 and not c.null_count() and not (c < 0).any() for c in columns]
    return {"user", "item"} <= set(log.columns) and all(kept)


@dataclass(frozen=True, slots=True)
class Rule:
    """One way a row can be wrong: its name, the canonical column, what to say of it, and how to tell."""

    name: str
    column: str
    text: str
    broken: pl.Expr
    fix: str | None = None


def rules(schema: Mapping[str, pl.DataType], spec: LogSpec, now: datetime) -> list[Rule]:
    """Return the rules for the canonical columns of `schema`; a row breaks at most one rule a column.

    `schema` also has the raw columns: only those that are not numbers are looked at as text.
    """
    found: list[Rule] = []
    for name in (n for n in schema if RAW + n in schema):
        value, raw = pl.col(name), pl.col(RAW + name)
        if name == "event":
            continue  # any text may name an event, and none is an event that does not count
        blank = pl.lit(False) if schema[RAW + name].is_numeric() else raw.cast(pl.String).str.strip_chars() == ""
        empty = raw.is_null() | blank
        found.append(Rule(f"null_{name}", name, "no value", empty))
        if name == "weight":
            found.append(Rule("wrong_type_weight", name, "not a number", ~empty & value.is_null()))
            found.append(Rule("not_finite_weight", name, "NaN or infinite", ~empty & ~value.is_finite()))
        elif name == "time":
            found.append(Rule("wrong_type_time", name, "not a time", ~empty & value.is_null(), _UNIT))
            found.append(Rule("negative_time", name, "before 1970", value < 0))
            moment = now if now.tzinfo else now.replace(tzinfo=UTC)
            late = value > int(moment.timestamp() * 1_000_000)
            unit = f"the unit is {spec.time_unit}; if these are milliseconds, set log.time_unit: ms"
            found.append(Rule("future_time", name, f"after {moment:%Y-%m-%d %H:%M}", late, unit))
        elif name == "split":
            parts = ", ".join(PARTS)
            unknown = ~empty & ~value.is_in(PARTS)
            found.append(Rule("unknown_split", name, f"not one of {parts}", unknown, f"rename the parts to {parts}"))
        else:
            found.append(Rule(f"wrong_type_{name}", name, "not a whole number", ~empty & value.is_null()))
    return found


_UNIT = "log.time_unit says what numbers count (s, ms, us); text must be ISO 8601"


def typed(spec: LogSpec) -> pl.LazyFrame:
    """Return the log with every column as its type (null where it cannot be), the raw ones, and `row` from 1.

    Of a window its rows alone, which keep their numbers. Raises DataError for a column whose type cannot hold what it
    should.
    """
    every = typed_rows(spec)
    return every if spec.window is None else every.filter(inside(pl.col("time"), spec.window))


def typed_rows(spec: LogSpec) -> pl.LazyFrame:
    """Return what `typed` returns with the rows outside the window that lie in the same files."""
    frame = scan(spec)
    caller = columns(spec)
    expressions = []
    with reading_log(spec):
        schema = frame.collect_schema()
        for name, dtype in schema.items():
            place = f"{where(spec)}, column {caller.get(name, name)!r}"
            if name in ("user", "item"):
                target = id_type(frame, name, is_text=is_text(spec), where=place)
                expressions.append(typed_id(name, dtype, target))
            elif name == "time":
                expressions.append(typed_time(name, dtype, spec.time_unit, place))
            elif name == "weight":
                expressions.append(typed_weight(name, dtype, place))
            else:
                expressions.append(typed_text(name))
    raw = [pl.col(name).alias(RAW + name) for name in schema]
    values = [e.alias(name) for e, name in zip(expressions, schema, strict=True)]
    return frame.select(*values, *raw).with_row_index("row", offset=1)


def validate(spec: LogSpec, *, now: datetime) -> tuple[pl.LazyFrame, dict[str, Any]]:
    """Return the good rows lazily (canonical columns and `row`) and the report on all of them.

    The report: rows, and for each broken rule its column, count, first examples (row number, value) and action.
    Times after `now` are in the future. Raises DataError naming file, column, count and examples if
    `spec.bad_rows` is refuse and a rule is broken, or if no row is good.
    """
    frame, path = typed(spec), where(spec)
    schema = frame.collect_schema()
    names = [n for n in schema if RAW + n in schema]
    checks = rules(schema, spec, now)
    any_broken = pl.any_horizontal([r.broken.fill_null(False) for r in checks])
    with reading_log(spec):
        tally = [r.broken.fill_null(False).sum().alias(r.name) for r in checks]
        counts = (
            frame.select(pl.len().alias("rows"), any_broken.sum().alias("bad"), *tally).collect().row(0, named=True)
        )
        if counts["rows"] == 0:
            raise DataError("there are no rows", where=path, fix="export the log again")
        broken = [r for r in checks if counts[r.name]]
        report = {"rows": counts["rows"], "bad_rows": counts["bad"], "rules": []}
        for rule in broken:
            report["rules"].append(
                {
                    "rule": rule.name,
                    "column": columns(spec).get(rule.column, rule.column),
                    "count": counts[rule.name],
                    "text": rule.text,
                    "examples": _examples(frame, rule),
                    "action": "dropped" if spec.bad_rows == "drop" else "refused",
                }
            )
    if broken and spec.bad_rows == "refuse":
        fixes = list(dict.fromkeys(r.fix for r in broken if r.fix))
        fixes.append("repair the rows, or set log.bad_rows: drop to leave them out, counted")
        raise DataError(describe(report), where=path, fix="; ".join(fixes))
    if counts["bad"] == counts["rows"]:
        raise DataError(f"no row is good\n{describe(report)}", where=path, fix="check the column mapping of `log`")
    # Where no row is bad nothing needs to be read to find that out again.
    return (frame.filter(~any_broken) if counts["bad"] else frame).select("row", *names), report


def _examples(frame: pl.LazyFrame, rule: Rule) -> list[dict[str, Any]]:
    value = pl.col(RAW + rule.column).cast(pl.String)
    rows = frame.filter(rule.broken.fill_null(False)).bottom_k(EXAMPLES, by="row")
    return rows.select("row", value=value).collect().sort("row").to_dicts()


def describe(report: dict[str, Any]) -> str:
    """Return the broken rules of a report as text: one line a rule."""
    lines = [f"{report['bad_rows']} of {report['rows']} rows break the contract"]
    for r in report["rules"]:
        first = ", ".join(f"row {e['row']} ({e['value']!r})" for e in r["examples"])
        lines.append(f"  - column {r['column']!r}: {r['count']} rows: {r['text']} [{r['rule']}], first: {first}")
    return "\n".join(lines)
