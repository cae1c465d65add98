"""The rows of a sweep: every model's means, its paired difference from its scratch twin, and what an epoch took."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np

from pipelines.console import table
from pipelines.sweep_fits import Made
from recdistill.evaluate import difference, gap
from recdistill.gains.refresh import overlap
from recdistill.metrics import Values, bootstrap, coverage
from recdistill.report import ReportSpec
from recdistill.store import write_text
from recdistill.types import Artifact, Int

T = TypeVar("T")
Factors = dict[float, float | None]
"""Factor of the terms' weights -> validation NDCG@10 of the first seed; None where nothing was to be chosen."""
Settings = dict[str, float | None]
"""The same of each of the student's settings that were tried."""
Row = dict[str, Any]
QUALITY = ("ndcg", "recall")  # what has a difference with an interval
SHOWN = (*QUALITY, "tail_recall", "popularity", "coverage", "overlap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of one method on one student, a `Made` a seed; of no method: of the scratch student."""

    method: str | None
    dim: int
    loss: str
    made: Sequence[Made]
    factors: Factors
    student: str = ""
    settings: Settings = field(default_factory=dict)
    teacher: Artifact | None = None  # what its teacher recommends

    @property
    def why(self) -> str:
        """Return why it has no figures; nothing if it has them."""
        return next((one.reason for one in self.made if one.judged is None), "")

    @property
    def fits(self) -> list[Artifact]:
        """Return the trained models."""
        return [one.fit for one in self.made if one.fit is not None]


def best(tried: Mapping[T, float | None]) -> T:
    """Return the factor, or the setting, of the best validation; the first of equals."""
    chances = {factor: -math.inf if value is None else value for factor, value in tried.items()}
    return max(chances, key=chances.__getitem__)


def rows(
    scratch: Sequence[Tried], found: Sequence[Tried], teacher: Artifact, report: ReportSpec, against: str = ""
) -> list[Row]:
    """Return one row a model: the teacher's, then each scratch student's with those of all methods on it.

    Differences are from the scratch student, and from the method `against` where it is named and has figures.
    """
    taught, columns = _values(teacher), teacher.manifest.facts["columns"]
    told: list[Row] = [{"model": "teacher", "metrics": _means(taught, columns) | _shown([teacher], teacher, report.k)}]
    for twin in scratch:
        group = [twin, *(each for each in found if (each.dim, each.loss) == (twin.dim, twin.loss))]
        values = {_name(each): _mean_of(each) for each in group if not each.why} | {"the teacher": taught}
        paired = _resampled(values, columns, report)
        plain = values["scratch"]
        for each in group:
            row = {"model": _name(each), "dim": each.dim, "loss": each.loss}
            if each.why:
                told.append(row | {"reason": each.why})
                continue
            more = _shown([one.judged for one in each.made if one.judged], each.teacher or teacher, report.k)
            row |= _figures(each, values[_name(each)], columns, more) | {"times_scratch": _ratio(each, twin)}
            if each is not twin:
                three = {"student": values[_name(each)], "scratch": plain, "teacher": taught}
                names = {"student": _name(each), "scratch": "scratch", "teacher": "the teacher"}
                row |= _gains(three, names, paired, columns)
                row |= _against(values, _name(each), against, paired, columns)
            told.append(row)
    return told


def _name(each: Tried) -> str:
    return Path(each.method).stem if each.method else "scratch"


def _figures(each: Tried, values: Values, columns: Sequence[str], more: dict[str, float | None]) -> Row:
    """Return what a model is by itself."""
    means = [_means(_values(one.judged), columns) for one in each.made if one.judged is not None]
    spread = {c: _spread([m[c] for m in means]) for c in columns}
    return {
        "metrics": _means(values, columns) | more,
        "seed_spread": spread,
        "factor": best(each.factors),
        "tuned": each.factors if len(each.factors) > 1 else {},
        "student": each.student,
        "settings": each.settings if len(each.settings) > 1 else {},
        "valid": [fit.manifest.facts.get("valid_ndcg_at_10") for fit in each.fits],
        "seconds_an_epoch": _epoch(each),
        "fits": [fit.fingerprint for fit in each.fits],
    }


def _shown(judged: Sequence[Artifact], teacher: Artifact, ks: Sequence[int]) -> dict[str, float | None]:
    """Return of what is shown the share of all items that anybody is shown, and that of a list its teacher shows too.

    Means over the seeds.
    """
    theirs, lists = _lists(teacher), [_lists(one) for one in judged]
    found: dict[str, float | None] = {}
    for k in ks:
        size = teacher.manifest.facts["items"]
        found[f"coverage@{k}"] = float(np.mean([coverage(each, size, k) for each in lists]))
        found[f"overlap@{k}"] = float(np.mean([overlap(each, theirs, k).mean() for each in lists]))
    return found


def _lists(judged: Artifact) -> Int:
    return np.load(judged.path / "lists.npy").astype(np.int64)


def _gains(
    three: Mapping[str, Values],
    names: Mapping[str, str],
    paired: Mapping[str, Mapping[str, Values]],
    columns: list[str],
) -> Row:
    """Return the difference of a student from its scratch twin, and its share of what the teacher is ahead."""
    found: Row = {"difference": {}, "gap_closed": {}}
    for column, resampled in paired.items():
        means = {part: values[:, columns.index(column)] for part, values in three.items()}
        again = {part: resampled[name] for part, name in names.items()}
        found["difference"][column] = difference(means, again)
        share = gap(means, again)
        found["gap_closed"][column] = None if math.isnan(share["share"]) else share
    return found


def _against(
    values: Mapping[str, Values], name: str, other: str, paired: Mapping[str, Mapping[str, Values]], columns: list[str]
) -> Row:
    """Return the difference of a student from that of the method `other`; nothing of that method itself."""
    if other not in values or name == other:
        return {}
    found = {}
    for column, resampled in paired.items():
        two = {"student": name, "scratch": other}
        means = {part: values[model][:, columns.index(column)] for part, model in two.items()}
        found[column] = difference(means, {part: resampled[model] for part, model in two.items()})
    return {"against": found}


def _resampled(values: Mapping[str, Values], columns: list[str], report: ReportSpec) -> dict[str, dict[str, Values]]:
    """Return for each metric with intervals each model's means, all on the same resamples of the users [times]."""
    asked = [f"{metric}@{k}" for metric in QUALITY for k in report.k]
    at = [columns.index(column) for column in asked]
    means = bootstrap(np.concatenate([v[:, at] for v in values.values()], axis=1), report.bootstrap, report.seed)
    return {
        column: {name: means[:, i * len(at) + j] for i, name in enumerate(values)} for j, column in enumerate(asked)
    }


def _values(judged: Artifact) -> Values:
    return np.load(judged.path / "values.npy")


def _mean_of(each: Tried) -> Values:
    """Return each user's values, averaged over the seeds [n,M]."""
    return np.mean([_values(one.judged) for one in each.made if one.judged is not None], axis=0)


def _means(values: Values, columns: Sequence[str]) -> dict[str, float | None]:
    """Return the mean of each column over the users that it is defined for."""
    known = ~np.isnan(values)
    sums, counts = np.where(known, values, 0).sum(0), known.sum(0)
    return {c: float(s / n) if n else None for c, s, n in zip(columns, sums, counts, strict=True)}


def _spread(means: Sequence[float | None]) -> float | None:
    known = [mean for mean in means if mean is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def _epoch(each: Tried) -> float | None:
    """Return the seconds an epoch took, the median of the seeds; None where the trainings do not say."""
    found = [fit.manifest.facts.get("seconds_per_epoch") for fit in each.fits]
    known = [seconds for seconds in found if seconds]
    return median(known) if known else None


def _ratio(each: Tried, twin: Tried) -> float | None:
    ours, theirs = _epoch(each), _epoch(twin)
    return ours / theirs if ours and theirs else None


def terminal(swept: Mapping[str, Any]) -> str:
    """Return the rows as columns of text, at the first k."""
    head, body = _cells(swept, swept["k"][:1])
    return table(body, head)


def markdown(swept: Mapping[str, Any]) -> str:
    """Return the rows as a Markdown table, at every k, under what was asked."""
    head, body = _cells(swept, swept["k"])
    asked = swept["asked"]
    lines = [f"# {swept['name']}: {len(asked['methods'])} methods", ""]
    lines += [f"From `{swept['file']}`" + "".join(f", `--set {s}`" for s in asked["sets"]) + "."]
    lines += [f"Seeds {', '.join(map(str, asked['seeds']))}; factors of the weights {_list(asked['tune'])}"]
    students = zip("ABCDEFGH", asked["students"], strict=False) if len(asked["students"]) > 1 else ()
    lines += [f"and the student's settings {letter} `{text or '{}'}`" for letter, text in students] + ["are chosen by"]
    lines += ["validation NDCG@10 of the first seed. Brackets: 95% paired bootstrap over users of the difference from"]
    lines += [
        "the scratch student. Gap closed: of NDCG, of what the teacher is ahead. Spread: over seeds, of NDCG.",
        "",
    ]
    lines += [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head))]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in body]
    return "\n".join(lines) + "\n"


def write(swept: Mapping[str, Any], out: Path) -> None:
    """Write sweep.json and sweep.md to the directory `out`, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "sweep.json", json.dumps(swept, indent=1, allow_nan=False) + "\n")
    write_text(out / "sweep.md", markdown(swept))


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _cells(swept: Mapping[str, Any], ks: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    first, against = f"ndcg@{ks[0]}", swept["asked"]["against"]
    columns = [f"{metric}@{k}" for k in ks for metric in SHOWN]
    head = [
        "model",
        "loss",
        "dim",
        *columns,
        f"{first} - scratch",
        *([f"{first} - {against}"] if against else []),
        "gap closed",
        "spread",
        "factor",
        "student",
        "epoch / scratch",
    ]
    body = []
    for row in swept["rows"]:
        names = [row["model"], row.get("loss", ""), str(row.get("dim", ""))]
        if "reason" in row:
            body.append([*names, *[""] * (len(head) - 4), row["reason"]])
            continue
        share = row.get("gap_closed", {}).get(first)
        spread, times = row.get("seed_spread", {}).get(first), row.get("times_scratch")
        body.append(
            [
                *names,
                *(_number(row["metrics"][column], column) for column in columns),
                *(_signed(row.get(told, {}).get(first)) for told in ("difference", *(["against"] if against else []))),
                "" if share is None else f"{share['share']:.0%}",
                "" if spread is None else f"{spread:.4f}",
                f"{row['factor']:g}" if "difference" in row else "",
                _letter(row),
                "" if times is None else f"x{times:.2f}",
            ]
        )
    return head, body


def _signed(told: Mapping[str, float] | None) -> str:
    return "" if told is None else f"{told['difference']:+.4f} [{told['low']:+.4f}, {told['high']:+.4f}]"


def _letter(row: Row) -> str:
    """Return which of the student's settings was kept, A the first that was asked for."""
    settings = list(row.get("settings", {}))
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[settings.index(row["student"])] if settings else ""


def _number(value: float | None, column: str) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if column.startswith("popularity") else f"{value:.4f}"
