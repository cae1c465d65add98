"""A teacher, whatever it is -> its label store; and the same teacher's lists for an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recdistill.data.sequences import Sequences
from recdistill.distill.spec import LabelsSpec
from recdistill.external import external_lister
from recdistill.fit import load
from recdistill.models.build import history_length
from recdistill.models.ranker import Ranker
from recdistill.models.spec import ExternalSpec, Fitted
from recdistill.scoring import scaled, vectors
from recdistill.teachers import Lister, chooser, encoder_lister, ranker_lister, write_labels
from recdistill.types import Dataset, Interactions, Log


def label_data(
    dataset: Dataset,
    teacher: Fitted | ExternalSpec,
    scratch: Fitted,
    spec: LabelsSpec,
    out: Path,
    version: str,
    log: Log,
) -> dict[str, Any]:
    """Write the label store of `teacher` to `out` and return its facts; `version` is what it was made from."""
    seen = dataset.train if spec.exclude_seen else None
    kind = "external" if isinstance(teacher, ExternalSpec) else teacher.spec.kind
    facts = {"teacher": kind, "teacher_version": version, "space": "logit", "exclude_seen": spec.exclude_seen}
    if isinstance(teacher, ExternalSpec):
        lister, joined = external_lister(teacher, dataset, spec.depth, seen)
        return write_labels(out, lister, dataset, spec.depth, facts | {"joined": joined}, log)
    sequences = Sequences.of(dataset.train)
    lister = teacher_lister(dataset, teacher, scratch, spec, spec.depth, sequences, seen)
    return write_labels(out, lister, dataset, spec.depth, facts, log)


def teacher_lister(
    dataset: Dataset,
    teacher: Fitted,
    scratch: Fitted,
    spec: LabelsSpec,
    depth: int,
    sequences: Sequences,
    seen: Interactions | None,
) -> Lister:
    """Return the `depth` best of what `teacher` scores, `seen` left out; `sequences` is what it may read."""
    model, history = load(teacher.spec, dataset, teacher.artifact.path), history_length(teacher.spec)
    if not isinstance(model, Ranker):
        found = vectors(model, dataset, sequences, history)
        return encoder_lister(*scaled(found, model.temperature), depth, seen)
    near = None
    if spec.candidates is not None and spec.candidates.ann:
        finder = load(scratch.spec, dataset, scratch.artifact.path)
        found = vectors(finder, dataset, sequences, history_length(scratch.spec))
        near = found.users, found.items
    choose = chooser(spec.candidates, dataset, near, dataset.train if seen is None else seen)
    return ranker_lister(model, dataset, depth, sequences=sequences, history=history, seen=seen, choose=choose)
