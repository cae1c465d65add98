"""Every way to serve one student, measured: what users get from it, what it takes, and which of them nothing beats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recdistill.ann import EXHAUSTIVE, FACTS, INDEX, filled, one_thread, save_index
from recdistill.data.sequences import Sequences
from recdistill.evaluate import merge
from recdistill.export import as_served, first, serving
from recdistill.fit import load
from recdistill.metrics import METRICS, Values, bootstrap, hits, interval, relevant
from recdistill.models.build import Model, history_length
from recdistill.models.spec import Fitted
from recdistill.report import ReportSpec
from recdistill.scoring import vectors
from recdistill.spec import canonical
from recdistill.store import sha256, write_text
from recdistill.surface.front import unbeaten
from recdistill.surface.points import Point, Width, norms, points_at
from recdistill.surface.presets import presets
from recdistill.surface.spec import SurfaceSpec
from recdistill.surface.timing import timed
from recdistill.topk import top_items
from recdistill.types import Dataset, Int, Interactions, Log, Vectors

SURFACE, SCHEMA_VERSION = "surface.json", 1
SEARCHED_PAIRS = 2_000_000_000  # users by items of one exact scan, beyond which the users are sampled, seeded
FEWEST_USERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who is served, what counts, and how the bundles are made."""

    dataset: Dataset
    student: Fitted
    model: Model
    found: Vectors
    users: Int
    seen: Interactions
    spec: SurfaceSpec
    report: ReportSpec
    tables: str
    fingerprint: str

    def judge(self, lists: Int) -> Values:
        """Return the metric of each evaluated user for their `lists` [n,k]."""
        hit = hits(lists, self.dataset.test, self.users)
        return METRICS[self.report.metrics[0]](hit, relevant(self.dataset.test, self.users), self.report.k[0])


def write_surface(
    dataset: Dataset,
    student: Fitted,
    spec: SurfaceSpec,
    report: ReportSpec,
    out: Path,
    *,
    widths: Sequence[int],
    tables: str,
    teacher: Mapping[str, Any] | None,
    fingerprint: str,
    log: Log,
) -> dict[str, Any]:
    """Write surface.json, a bundle for each of `widths`, and the indexes of what nothing beats to `out`.

    `teacher` is what surface.json says of it. Returns how many points were measured, and how many nothing beats.
    """
    asked = _asked(dataset, student, spec, report, tables, fingerprint)
    points: list[Point] = []
    exact: dict[int, Values] = {}
    lengths: dict[str, Any] = {}
    with one_thread():
        for done, width in enumerate(widths):
            log(f"surface, width {width}", done, len(widths) + 1, {})
            exact[width], lengths[str(width)] = _at(asked, width, out, points)
    log("surface, times", len(widths), len(widths) + 1, {})
    bundles = {width: out / f"d{width}" / "bundle" for width in widths}
    times, environment = timed(points, bundles, report.k[0])
    bounds = _intervals([*exact.values(), *(point.values for point in points)], report)
    rows = [row | bound for row, bound in zip(_rows(points, times, bundles, out), bounds[len(exact) :], strict=True)]
    for row, kept in zip(rows, _kept(rows), strict=True):
        row["kept"] = bool(kept)
    _drop(rows, out)
    found = {
        "schema_version": SCHEMA_VERSION,
        "metric": report.metrics[0],
        "k": report.k[0],
        "users": len(asked.users),
        "num_items": dataset.num_items,
        "fingerprint": fingerprint,
        "teacher": teacher,
        "exact": {str(width): bound for width, bound in zip(exact, bounds, strict=False)},
        "norms": lengths,
        "environment": environment,
        "points": rows,
    }
    write_text(out / SURFACE, json.dumps(found, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return {"points": len(rows), "kept": sum(row["kept"] for row in rows)}


def _asked(
    dataset: Dataset, student: Fitted, spec: SurfaceSpec, report: ReportSpec, tables: str, fingerprint: str
) -> Asked:
    model, seen = load(student.spec, dataset, student.artifact.path), merge(dataset.train, dataset.valid)
    return Asked(
        dataset=dataset,
        student=student,
        model=model,
        found=vectors(model, dataset, Sequences.of(seen), history_length(student.spec)),
        users=evaluated(dataset),
        seen=seen,
        spec=spec,
        report=report,
        tables=tables,
        fingerprint=fingerprint,
    )


def evaluated(dataset: Dataset) -> Int:
    """Return the users with something to find, or of many a sample that is the same for every point."""
    users = np.flatnonzero(np.diff(dataset.test.indptr))
    limit = max(SEARCHED_PAIRS // max(dataset.num_items, 1), FEWEST_USERS)
    if len(users) <= limit:
        return users
    return np.sort(np.random.Generator(np.random.Philox(13)).choice(users, limit, replace=False))


def _at(asked: Asked, width: int, out: Path, points: list[Point]) -> tuple[Values, dict[str, Any]]:
    """Add the points of one width; return the metric of each user by exact search in fp32, and what norms say."""
    dataset, folder = asked.dataset, out / f"d{width}"
    items, everyone = (first(side, width, asked.found.space) for side in (asked.found.items, asked.found.users))
    folder.mkdir(parents=True)
    save_index(filled(EXHAUSTIVE, items, 0), folder / INDEX)
    told = {"factory": EXHAUSTIVE, "metric": "inner_product", "params": "", "num_items": len(items), "dim": width}
    write_text(folder / FACTS, canonical(told) + "\n")
    how = {"width": width, "tables": asked.tables, "whole": True, "fingerprint": asked.fingerprint}
    serving(dataset, asked.student, asked.model, folder, folder / "bundle", **how)
    (folder / INDEX).unlink()
    depth, users = asked.report.k[0], asked.users
    exact = asked.judge(top_items(everyone, items, depth, seen=asked.seen, rows=users))
    at = Width(
        width=width,
        items=items,
        queries=as_served(folder / "bundle", Sequences.of(asked.seen), users),
        seen=[asked.seen.items[asked.seen.indptr[user] : asked.seen.indptr[user + 1]] for user in users],
        folder=folder,
    )
    spec = asked.spec
    factories = presets(len(items), width) if spec.factories == "auto" else spec.factories
    points += points_at(at, factories, spec.recall_k, depth, asked.judge)
    files = {file.name: sha256(file) for file in sorted(folder.glob("*.faiss"))}
    write_text(folder / FACTS, canonical(told | {"files": files}) + "\n")
    return exact, norms(items, factories)


def _rows(
    points: Sequence[Point], times: Sequence[Mapping[str, Any]], bundles: Mapping[int, Path], out: Path
) -> list[dict[str, Any]]:
    """Return the points as surface.json has them, without quality."""
    rows = []
    for point, each in zip(points, times, strict=True):
        held = point.file.stat().st_size, (bundles[point.width] / "query.safetensors").stat().st_size
        rows.append(
            {
                "id": point.id,
                "width": point.width,
                "factory": point.factory,
                "params": point.params,
                "recall": {str(k): found for k, found in point.recall.items()},
                "index_bytes": held[0],
                "query_bytes": held[1],
                "bytes": sum(held),
                "build_s": point.build_s,
                "file": point.file.relative_to(out).as_posix(),
                "sha256": sha256(point.file),
                **each,
            }
        )
    return rows


def _intervals(columns: Sequence[Values], report: ReportSpec) -> list[dict[str, float]]:
    """Return mean and interval of each column, all over the same resamples of the users."""
    resampled = bootstrap(np.stack(columns, 1), report.bootstrap, report.seed)
    found = []
    for column, means in zip(columns, resampled.T, strict=True):
        low, high = interval(means)
        found.append({"quality": float(column.mean()), "low": float(low), "high": float(high)})
    return found


def _kept(rows: Sequence[Mapping[str, Any]]) -> Sequence[bool]:
    """Return which rows no other beats in quality, p95 of the whole answer, and bytes at once."""
    costs = [[-row["quality"], row["latency"]["total"]["p95_ms"], row["bytes"]] for row in rows]
    return unbeaten(np.array(costs, np.float64)).tolist()


def _drop(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Take away the index files that nothing kept is searched in; what they were stays told."""
    wanted = {row["file"] for row in rows if row["kept"] or row["factory"] == EXHAUSTIVE}
    for row in rows:
        if row["file"] not in wanted:
            (out / row["file"]).unlink(missing_ok=True)
            row["file"] = None
    for facts in out.glob(f"d*/{FACTS}"):
        told = json.loads(facts.read_text(encoding="utf-8"))
        told["files"] = {name: digest for name, digest in told["files"].items() if (facts.parent / name).is_file()}
        write_text(facts, canonical(told) + "\n")
