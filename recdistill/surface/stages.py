"""The surface as a stage: it reads what was evaluated and timed of the teacher, and measures the student itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.measure import Judged, read_json
from recdistill.report import ReportSpec
from recdistill.stages import Data, Run
from recdistill.store import Step
from recdistill.surface.spec import SurfaceSpec
from recdistill.types import Artifact

if TYPE_CHECKING:
    from recdistill.ann import IndexSpec


def surface(
    data: Data,
    judged: Judged,
    spec: SurfaceSpec,
    index: IndexSpec,
    report: ReportSpec,
    evaluated: Artifact,
    timed: Artifact,
    run: Run,
) -> Artifact:
    """The served student -> quality, milliseconds and bytes of every way to serve it, and the indexes worth serving."""
    served, metric, k = judged.student[0], report.metrics[0], report.k[0]
    full: Any = served.spec
    widths = (*judged.widths, full.dim) if spec.widths == "auto" else spec.widths

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.surface.measure import write_surface

        teacher = teacher_row(read_json(evaluated, "quality.json"), read_json(timed, "latency.json"), metric, k)
        how = {"widths": widths, "tables": index.tables, "teacher": teacher, "fingerprint": step.fingerprint}
        return write_surface(data.read(), served, spec, report, out, log=run.log, **how)

    kept = {"metric": metric, "k": k, "bootstrap": report.bootstrap, "seed": report.seed}
    config = {"surface": spec, "widths": widths, "tables": index.tables, "report": kept}
    # The index of the run changes nothing here, so that what is chosen from a surface does not call for another.
    asked = {name: one for name, one in judged.inputs().items() if name in ("teacher", "labels")}
    step = Step("surface", 1, config, data.inputs | asked | {"student": served.artifact.fingerprint})
    return run.build(step, work)


def teacher_row(quality: Mapping[str, Any], latency: Mapping[str, Any], metric: str, k: int) -> dict[str, Any] | None:
    """Return what surface.json says of the teacher, None where it was not evaluated; an external one has no times."""
    wanted = {"model": "teacher", "slice": "all", "metric": metric, "k": k}
    found = next((row for row in quality["quality"] if wanted.items() <= row.items()), None)
    if found is None:
        return None
    whole = {"model": "teacher", "part": "total"}
    none: dict[str, Any] = {}
    took = next((row for row in latency["latency"] if whole.items() <= row.items()), none)
    times = {name: took.get(name) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")}
    bounds = {"quality": found["value"], "low": found["low"], "high": found["high"]}
    shape = {"histogram": took["histogram"]} if took.get("histogram") else {}
    return {**bounds, **times, **shape, "bytes": took.get("size_bytes")}
