"""A finished run, found again by its report: the artifacts that a refresh begins from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from recdistill.errors import ArtifactError
from recdistill.models.recipe import TeacherSpec
from recdistill.models.spec import ExternalSpec, Fitted, RankerSpec, StudentSpec
from recdistill.report import read_report
from recdistill.stages import Data
from recdistill.store import open_checked
from recdistill.types import Artifact
from recdistill.yesterday_stages import Before


def finished(path: Path, store: Path) -> Before:
    """Return the models of the run whose report is at `path`, from `store` or else the store beside its reports.

    Its first student is the one that was served. ArtifactError if the report, or an artifact that it names, is missing.
    """
    report = read_report(path)
    where = str(path)
    made = {str(row["stage"]): str(row["fingerprint"]) for row in report["stages"]}
    if odd := sorted(fp for fp in made.values() if not re.fullmatch("[0-9a-f]{32}", fp)):
        what = f"the report names {odd[0]!r}, which is no fingerprint"  # it may name a directory anywhere else
        raise ArtifactError(what, where=where, fix="make the report again")
    root = _root(path, store, made.get("split", ""))

    def of(stage: str, name: str) -> Artifact:
        fingerprint = made.get(name) or made.get(f"{name}-1")
        if fingerprint is None:
            what = f"the report names no {name}: it has {', '.join(made) or 'no stages'}"
            raise ArtifactError(what, where=where, fix="name the report of a whole run")
        return open_checked(root / stage / fingerprint, hit=True)

    try:
        student = StudentSpec.model_validate(report["config"]["student"])
        teacher = TeacherSpec.model_validate(report["config"]["teacher"])
    except (KeyError, ValidationError) as cause:
        what = "the configuration in the report is not one that this version reads"
        raise ArtifactError(what, where=where, fix="run it again with this version") from cause
    return Before(
        data=Data(of("ingest", "ingest"), of("split", "split")),
        student=Fitted(student.model, of("fit", "student")),
        scratch=Fitted(student.model, of("fit", "scratch")),
        teacher=_encoder(teacher, root, made),
    )


def _encoder(teacher: TeacherSpec, root: Path, made: Mapping[str, str]) -> Fitted | None:
    """Return the teacher where it was one encoder, before a calibration or what it was moved by."""
    recipe = teacher.recipe
    if isinstance(teacher.model, ExternalSpec | RankerSpec) or teacher.folds:
        return None
    if recipe is not None and recipe.kind != "delta":
        return None
    fits = [root / "fit" / made[name] for name in ("teacher", "teacher-1") if name in made]
    return Fitted(teacher.model, open_checked(fits[0], hit=True)) if fits else None


def _root(path: Path, store: Path, split: str) -> Path:
    """Return the store that has the run's split."""

    def roots() -> Iterator[Path]:
        yield store
        reports = (path if path.is_dir() else path.parent).resolve().parents[1]
        yield from sorted(folder for folder in reports.iterdir() if folder.is_dir())

    for root in roots():
        if split and (root / "split" / split).is_dir():
            return root
    what = f"the store of this run is neither {store} nor beside its reports: no split/{split}"
    raise ArtifactError(what, where=str(path), fix="bring its store back, or set exec.store to it")
