"""How long the models of a run take for the same answer: the student over both indexes, and the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recdistill import http_latency, teacher_latency, throughput
from recdistill.latency import How, Target, turns, worker
from recdistill.latency_spec import LatencySpec
from recdistill.measure import Judged
from recdistill.models.spec import Fitted
from recdistill.turns import take_turns


def time_all(
    ingested: Path, divided: Path, judged: Judged, k: int, spec: LatencySpec, simd: str | None = None
) -> dict[str, Any]:
    """Return `latency` rows and their environment: the student over both indexes, and the teacher unless external.

    They are asked in turns, for the same users' best `k`, what a user took left out as the teacher leaves it out, where
    the bundle keeps histories. Where `spec` asks for it there are rows of `throughput`, and of part `http`.
    """
    how = How(k=k, queries=spec.queries, repeats=spec.repeats, simd=simd)
    targets = targets_of(judged.index.path)
    workers, teacher = [worker(targets, how)], judged.teacher
    if teacher.models:
        request = teacher_latency.Request(
            ingested=str(ingested.absolute()),
            divided=str(divided.absolute()),
            models=[_plain(model) for model in teacher.models],
            folds=teacher.folds,
            recipe=None if teacher.recipe is None else str(teacher.recipe.path.absolute()),
            labels=judged.candidates.model_dump(mode="json"),
            scratch=_plain(judged.scratch[0]),
            k=k,
            turns=turns(how),
            repeats=how.repeats,
            queries=min(teacher_latency.QUERIES, how.queries * how.repeats),
        )
        workers.append(teacher_latency.worker(request))
    student, *others = take_turns(workers, turns(how))
    for asked in others:
        student["rows"].append(asked["row"])
        student["environment"]["targets"]["teacher"] = asked["told"]
    return {"latency": student["rows"], "latency_environment": student["environment"]} | _more(
        targets, k, spec, student, simd
    )


def time_bundle(index: Path, k: int, spec: LatencySpec, simd: str | None = None) -> dict[str, Any]:
    """Return what `time_all` returns, of a student alone: of a bundle's directory, or of the one that holds it."""
    how, targets = How(k=k, queries=spec.queries, repeats=spec.repeats, simd=simd), targets_of(index)
    (student,) = take_turns([worker(targets, how)], turns(how))
    return {"latency": student["rows"], "latency_environment": student["environment"]} | _more(
        targets, k, spec, student, simd
    )


def targets_of(index: Path) -> list[Target]:
    """Return the ways to answer that an index stage at `index` left, or that a bundle there is."""
    bundle = index / "bundle" if (index / "bundle").is_dir() else index
    same = {"bundle": bundle, "exclude": (bundle / "histories.parquet").is_file()}
    flat = index / "flat.faiss"
    over = [Target(label="student@flat", index=flat, **same)] if flat.is_file() else []
    return [Target(label="student@index", **same), *over]


def _more(
    targets: Sequence[Target], k: int, spec: LatencySpec, student: Mapping[str, Any], simd: str | None
) -> dict[str, Any]:
    """Return the rows of throughput; those of HTTP, and both their environments, go to what there is of `student`."""
    found: dict[str, Any] = {}
    rows, environment = student["rows"], student["environment"]
    if spec.batches:
        asked = {"batches": spec.batches, "threads": spec.threads, "simd": simd}
        found["throughput"], environment["throughput"] = throughput.measure_throughput(targets, k=k, **asked)
    if spec.http:
        served = targets[0]
        over, environment["http"] = http_latency.measure_http(
            served.bundle, label=served.label, k=k, exclude=served.exclude
        )
        sizes = {row["model"]: row["size_bytes"] for row in rows}
        rows += [row | {"size_bytes": sizes[row["model"]]} for row in over]
    return found


def _plain(model: Fitted) -> dict[str, Any]:
    return {"path": str(model.artifact.path.absolute()), "spec": model.spec.model_dump(mode="json")}
