"""The command that measures service times again: of a run's models, or of a bundle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pipelines.console import Json, say
from recdistill.errors import ArtifactError, ConfigError

Counts = Annotated[str, Parameter(help="Whole numbers, a comma between them.")]
Flag = Annotated[bool, Parameter(negative="")]
K = 10


def latency(
    target: Path,
    /,
    *,
    queries: int = 2000,
    repeats: int = 5,
    threads: Counts = "",
    batch: Counts = "1,32,256",
    http: Flag = False,
    k: int | None = None,
    simd: str | None = None,
    json: Json = False,
) -> int:
    """Measure again, in fresh processes, how long a run's student and teacher take, or a bundle.

    Parameters
    ----------
    target
        The YAML file of a run whose index is built, or a directory: a bundle, or the index stage that holds it.
    queries
        Single queries of each repeat.
    threads
        Numbers of threads that answer the batches; 1 and as many as there are CPUs if left out.
    batch
        How many queries are asked at once, for queries a second; empty for single queries alone.
    http
        Also time requests to an MLflow scoring server of the bundle on loopback.
    k
        Length of the lists; the first of report.k if left out, 10 of a bundle.
    simd
        The SIMD instructions to compute by: NONE, AVX2, AVX512; the best of the processor if left out.
    """
    from pydantic import ValidationError

    from pipelines.models import prepare_mlflow
    from recdistill.latency_spec import LatencySpec
    from recdistill.timed import time_all, time_bundle

    prepare_mlflow()
    batches = _counts(batch, "--batch")
    answering = (_counts(threads, "--threads") or sorted({1, os.cpu_count() or 1})) if batches else [1]
    try:
        spec = LatencySpec(
            queries=queries, repeats=repeats, batches=tuple(batches), threads=tuple(answering), http=http
        )
    except ValidationError as cause:
        problem = cause.errors()[0]
        raise ConfigError(problem["msg"], where=f"--{problem['loc'][0] if problem['loc'] else 'threads'}") from cause
    if target.is_dir():
        measured = time_bundle(target, k or K, spec, simd)
    else:
        data, judged, first = _built(target)
        measured = time_all(data.ingested.path, data.divided.path, judged, k or first, spec, simd)
    say(measured, _text(measured), as_json=json)
    return 0


def _built(config: Path) -> tuple[Any, Any, int]:
    """Return the data and the models of the run of `config`, and the k it reports first; nothing is built.

    Raises ArtifactError if something of it is not there.
    """
    from pipelines.distill import Made, path
    from recdistill.config import load_config
    from recdistill.stages import Run

    found = load_config(config)
    missing: list[str] = []
    data = judged = None
    for step in path(found, Run(store=Path(found.exec.store), dry=True)):
        if isinstance(step, Made) and step.name in ("evaluate", "defer"):
            continue
        if not isinstance(step, Made):
            data = step.data
        elif step.name not in ("latency", "refresh"):
            missing += [step.name for artifact in step.artifacts if not artifact.hit]
            judged = step.judged or judged
    if missing or data is None or judged is None:
        what = f"not built yet: {', '.join(dict.fromkeys(missing))}"
        raise ArtifactError(what, where=str(config), fix=f"recdistill run {config} --until index")
    return data, judged, found.report.k[0]


def _counts(text: str, option: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if bad := [word for word in words if not word.isdecimal() or not int(word)]:
        raise ConfigError(f"{bad[0]!r} is not a whole number of at least 1", where=option, fix=f"{option} 1,2,8")
    return [int(word) for word in words]


def _text(measured: Mapping[str, Any]) -> str:
    """Return what was measured as tables for a terminal, and whether to judge by it."""
    import sys

    from rich.console import Console

    from pipelines.show import rich_table
    from recdistill import report_view as view
    from recdistill.latency_stats import warning
    from recdistill.report_form import check

    report = check({"schema_version": 1, "name": "latency", **measured})
    out, seen = StringIO(), sys.stdout.isatty()
    console = Console(file=out, force_terminal=seen, width=None if seen else 120)
    for title, table in {"latency": view.latency(report), "throughput": view.throughput(report)}.items():
        if table.rows:
            console.print(rich_table(title, table))
    environment = measured["latency_environment"]
    about = ("cpu", "simd", "threads", "k", "faiss")
    console.print(", ".join(f"{name} {environment[name]}" for name in about), markup=False)
    if (over := environment.get("http", {})).get("skipped"):
        console.print(f"http: skipped: {over['skipped']}", markup=False)
    console.print(warning(environment) or f"quiet enough to judge by: {environment['noise']['why']}", markup=False)
    return out.getvalue().rstrip()
