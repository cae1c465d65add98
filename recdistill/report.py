"""The report of a run: report.json is the source; Markdown, one HTML page and a model card are readings of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from recdistill.errors import ArtifactError
from recdistill.report_form import SCHEMA_VERSION, check, schema
from recdistill.report_markdown import markdown, model_card
from recdistill.report_page import html
from recdistill.spec import Spec
from recdistill.store import write_text

__all__ = [
    "SCHEMA_VERSION",
    "ReportSpec",
    "check",
    "html",
    "markdown",
    "model_card",
    "read_report",
    "schema",
    "write_report",
]


class ReportSpec(Spec):
    """What is measured and reported."""

    k: tuple[PositiveInt, ...] = Field(default=(10, 20), min_length=1)
    """Lengths of the lists that quality is measured at; the first is the headline's."""
    metrics: tuple[Literal["recall", "ndcg", "mrr", "hit", "precision", "coverage", "popularity"], ...] = Field(
        default=("recall", "ndcg"), min_length=1
    )
    """Quality metrics, each at every k; popularity is the mean number of training interactions of what is shown."""
    slices: tuple[Literal["popularity", "activity"], ...] = ()
    """Also measure quality by how popular the items are or how active the users are."""
    bootstrap: PositiveInt = 1000
    """Resamples of the users that make an interval."""
    seed: int = 0
    """Seed of the resampling."""


def write_report(report: Mapping[str, Any], out: Path) -> None:
    """Write report.json, report.md, report.html and MODEL_CARD.md to the directory `out`, each whole or not at all.

    Everything is rendered before the first file is written. Raises ArtifactError if `report` is not a report.
    """
    checked = check(report)
    texts = {
        "report.json": json.dumps(checked, indent=1, allow_nan=False) + "\n",
        "report.md": markdown(checked),
        "report.html": html(checked),
        "MODEL_CARD.md": model_card(checked),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(out / name, text)


def read_report(path: Path) -> dict[str, Any]:
    """Return the report in a report.json, or in the directory that holds one.

    Raises ArtifactError if the file is missing, is no JSON, is malformed, or was written by a newer version.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except OSError as cause:
        what = f"the report cannot be read ({cause.strerror})"
        raise ArtifactError(what, where=str(file), fix="give a report.json or the directory that holds one") from cause
    except ValueError as cause:
        raise ArtifactError(f"not JSON ({cause})", where=str(file), fix="make the report again") from cause
    if not isinstance(report, dict):
        what = f"a report is an object; this is {type(report).__name__}"
        raise ArtifactError(what, where=str(file), fix="make the report again")
    return check(report, where=str(file))
