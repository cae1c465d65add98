"""All that a whole path leaves behind, and the report of it: what was measured, without a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.ages import ages
from recdistill.config import Config
from recdistill.coverage import thin, told
from recdistill.latency_stats import warning as noise_warning
from recdistill.masking import masked
from recdistill.measure import Judged, read_json
from recdistill.report_defer import warning
from recdistill.stages import Data
from recdistill.store import environment
from recdistill.types import Artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """What a whole path leaves behind, for the report and the registry."""

    data: Data
    judged: Judged
    evaluated: Artifact
    timed: Artifact
    deferred: Artifact | None = None  # the gate that asks the teacher, where there is one
    refreshed: Artifact | None = None  # where there was a day before
    surface: Artifact | None = None  # where every way to serve was measured

    @property
    def bundle(self) -> Path:
        """Return the bundle that is registered, with its gate if it has one."""
        return (self.judged.index if self.deferred is None else self.deferred).path / "bundle"


def assemble(config: Config, all_: Everything, stages: Sequence[Mapping[str, Any]], command: str) -> dict[str, Any]:
    """Return the report of what was measured, without a verdict."""
    quality = read_json(all_.evaluated, "quality.json")
    timed = read_json(all_.timed, "latency.json")
    index = read_json(all_.judged.index, "index.json")
    lint = read_json(all_.data.divided, "lint.json")
    judged = all_.judged
    fitted = {"scratch": judged.scratch[0].artifact, "student": judged.student[0].artifact}
    if judged.teacher.models:  # of several the first, which is the teacher's own or as good as any
        fitted = {"teacher": judged.teacher.models[0].artifact} | fitted
    split_facts = dict(all_.data.divided.manifest.facts)
    environment_ = timed["latency_environment"]
    warnings = [noisy] if (noisy := noise_warning(environment_)) else []
    warnings += _warnings(quality, index)
    labels = {} if judged.labels is None else told(judged.labels.manifest.facts)
    warnings += thin(labels)
    asking = None if all_.deferred is None else read_json(all_.deferred, "defer.json")
    warnings += [said for said in [warning(asking) if asking else ""] if said]
    return {
        "schema_version": 1,
        "name": config.name,
        "created_at": all_.timed.manifest.created_at,
        "verdict": {"promoted": None, "text": "no registry is configured", "reasons": [], "model": None},
        "headline": {"metric": config.report.metrics[0], "k": config.report.k[0]},
        "quality": quality["quality"],
        "gap_closed": quality["gap_closed"],
        "kept_of_teacher": quality.get("kept_of_teacher", []),
        "student_minus_scratch": quality["student_minus_scratch"],
        "latency": timed["latency"],
        "latency_environment": environment_,
        "throughput": timed.get("throughput", []),
        "index": dict(index),
        "gates": [],
        "data": {
            "ingest": dict(all_.data.ingested.manifest.facts),
            "split": split_facts | ({"lint": lint} if isinstance(lint, list) else dict(lint)),
            "labels": labels,
            "teacher": {} if judged.teacher.recipe is None else dict(judged.teacher.recipe.manifest.facts),
            "ages": {name: days for name, days in ages(all_.data, judged).items() if days is not None},
            "evaluated": {"users": quality["users"], "users_without_test": quality["users_without_test"]},
        },
        "curves": {name: _curve(artifact) for name, artifact in fitted.items()},
        "environment": environment(),
        "command": masked(command),
        "config": config.model_dump(mode="json", exclude={"exec"}),
        "stages": [dict(row) for row in stages],
        "warnings": warnings,
        "defer": asking,
        "refresh": None if all_.refreshed is None else read_json(all_.refreshed, "refresh.json"),
        "surface": None if all_.surface is None else read_json(all_.surface, "surface.json"),
    }


def _curve(artifact: Artifact) -> list[dict[str, Any]]:
    points = read_json(artifact, "curve.json")
    return [
        {
            "step": point["step"],
            "loss": sum(v for k, v in point.items() if k not in ("step", "valid")),
            "valid": point["valid"],
        }
        for point in points
    ]


def _warnings(quality: Mapping[str, Any], index: Mapping[str, Any]) -> list[str]:
    found = []
    for row in quality["student_minus_scratch"]:
        if not row["low"] > 0:
            found.append(
                f"the student's {row['metric']}@{row['k']} is not surely above scratch: the difference is "
                f"{row['difference']:.4f}, between {row['low']:.4f} and {row['high']:.4f}"
            )
    for row in quality["gap_closed"]:
        if row["share"] is None or math.isnan(row["share"]):
            found.append(
                f"the teacher's {row['metric']}@{row['k']} is not surely above scratch: it has little to teach"
            )
    if not index.get("reached", True):
        found.append("the index misses index.min_recall: name another factory, or accept a lower recall")
    return found
