"""The stages as artifacts: the only code that knows both the algorithms and the store.

Each function names its step (what it is, its config, its inputs) and says how to work it out; the store decides
whether that is needed. Nothing outside `work` reads an artifact, so a run that only plans walks the same lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill import store
from recdistill.ann import IndexSpec
from recdistill.data.features import FeaturesSpec, digest_features
from recdistill.data.ingest import ingest as ingest_log
from recdistill.data.log import LogSpec, digest
from recdistill.data.split import SplitSpec
from recdistill.data.split import split as split_log
from recdistill.distill.spec import LabelsSpec, TermSpec
from recdistill.latency_spec import LatencySpec
from recdistill.models.recipe import Teacher, TeacherSpec
from recdistill.models.spec import ExternalSpec, Fitted, ModelSpec, StudentSpec, TrainSpec, settings_of
from recdistill.report import ReportSpec
from recdistill.store import Step, write_text
from recdistill.types import Artifact, Log, Manifest, quiet
from recdistill.world import World

if TYPE_CHECKING:  # torch is a second of start-up that a plan can do without
    from recdistill.config import ExecSpec
    from recdistill.measure import Judged
    from recdistill.shards import Share
    from recdistill.spoil import Spoil


@dataclass(frozen=True, slots=True)
class Run:
    """Where results go, who computes them, who watches; what every stage takes last."""

    store: Path
    world: World = field(default_factory=World)
    log: Log = quiet
    dry: bool = False  # name every artifact, build none
    share: Share | None = None  # of the labels: write these shards beside other processes, and do not finish
    finalize: bool = False  # the labels: score nothing, finish what others have written

    def build(self, step: Step, work: store.Work) -> Artifact:
        """Return the artifact of `step`, found or built."""
        path = store.directory(self.store, step)
        if self.dry:
            state = store.state(self.store, step)
            return _stub(path, step, {"state": state}, hit=state == "hit")
        if not step.collective:  # a training tells of itself
            self.log(step.stage, 0, 0, {})
        return store.build(self.store, self.world, step, work)


def _stub(path: Path, step: Step, facts: Mapping[str, Any], *, hit: bool) -> Artifact:
    """Return what stands for an artifact that is not whole, or not looked into."""
    manifest = Manifest(
        format=store.FORMAT,
        stage=step.stage,
        version=step.version,
        fingerprint=step.fingerprint,
        config={},
        inputs={},
        files={},
        facts=facts,
        env={},
        created_at="",
        seconds=0.0,
    )
    return Artifact(path=path, manifest=manifest, hit=hit)


@dataclass(frozen=True, slots=True)
class Data:
    """The two artifacts that a dataset is read from."""

    ingested: Artifact
    divided: Artifact
    spoil: Spoil | None = None  # of the training part, for a diagnosis alone

    @property
    def inputs(self) -> dict[str, str]:
        """Return the fingerprints that a stage over this data depends on."""
        found = {"ingest": self.ingested.fingerprint, "split": self.divided.fingerprint}
        return found | ({} if self.spoil is None else {"spoil": self.spoil.name})

    def read(self) -> Any:
        """Return the Dataset."""
        from recdistill.data.dataset import read_dataset
        from recdistill.spoil import spoilt

        found = read_dataset(self.ingested.path, self.divided.path)
        return found if self.spoil is None else spoilt(found, self.spoil)


def ingest(log: LogSpec, features: FeaturesSpec | None, run: Run) -> Artifact:
    """Log and feature tables -> validated rows over dense ids. Their contents are hashed, not their paths."""
    tables = {} if features is None else features.model_dump(exclude={"users": {"path"}, "items": {"path"}})
    config = {"log": log.model_dump(mode="json", exclude={"path"}), "features": tables}
    inputs = run.world.share(lambda: {"log": digest(log), "features": digest_features(features)})
    now = datetime.now(UTC)
    return run.build(Step("ingest", 2, config, inputs), lambda out: ingest_log(log, features, out, now=now))


def split(ingested: Artifact, spec: SplitSpec, run: Run) -> Data:
    """Rows -> train, valid, test."""
    step = Step("split", 2, spec, {"ingest": ingested.fingerprint})
    return Data(ingested, run.build(step, lambda out: split_log(ingested.path, spec, out)))


def fit(
    data: Data,
    model: ModelSpec,
    train: TrainSpec,
    how: ExecSpec,
    run: Run,
    *,
    name: str,
    labels: Artifact | None = None,
    terms: Sequence[TermSpec] = (),
    student: StudentSpec | None = None,
    fold: tuple[int, int] | None = None,
    keep: bool = False,
    after: Artifact | None = None,
    part: tuple[int, int] = (0, 1),
    yesterday: Artifact | None = None,
) -> Artifact:
    """Data -> a trained model: teacher and scratch student without terms, the student with them.

    `student` says with what else a distilled student is trained. `fold` (k, K) leaves out of the training interactions
    those of fold k of K; `keep` keeps every validation's weights. It begins with the weights of `after`; `part` (k, K)
    of a training goes on from the part before it, which `after` then is. `yesterday` is read by a student that
    remembers it, and by a teacher that is given one.
    """
    settings = train.model_dump(exclude=set() if terms else {"list_users"})
    config: dict[str, Any] = {"model": model, "train": settings, "distill": list(terms)}
    config |= settings_of(student) if student is not None and terms else {}
    config |= ({"fold": fold} if fold else {}) | ({"keep": True} if keep else {})
    config |= {"part": part} if part[1] > 1 else {}
    inputs = data.inputs | ({"labels": labels.fingerprint} if labels is not None and terms else {})
    inputs |= {} if after is None else {"after": after.fingerprint}
    day = yesterday if student is None or (student.remembers and terms) else None
    inputs |= {"yesterday": day.fingerprint} if day is not None else {}

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.fit import fit as fit_model
        from recdistill.folds import Fold, lacking
        from recdistill.labels import open_labels
        from recdistill.teaching import teaching_of
        from recdistill.yesterday import open_yesterday

        teaching = None
        if labels is not None and terms:
            taught = open_labels(labels.path, teacher=labels.manifest.inputs["teacher"])
            teaching = teaching_of(student, terms, taught, None if day is None else open_yesterday(day.path))
        dataset = lacking(data.read(), Fold(*fold)) if fold else data.read()
        since = None if day is None or student is not None else day.path
        goes = {"after": None if after is None else after.path, "part": part, "keep": keep, "since": since}
        place, every = how.placement(train.batch), how.checkpoint_every
        runs = {"world": run.world, "log": run.log, "layout": place, "checkpoint_every": every}
        runs["prefetch"] = how.prefetch
        return fit_model(dataset, model, train, out, name=name, teaching=teaching, **goes, **runs)

    return run.build(Step("fit", 1, config, inputs, resumes=True, collective=True), work)


def recipe(data: Data, teacher: Teacher, spec: TeacherSpec, labels: LabelsSpec, run: Run) -> Artifact:
    """Trained models, or a file -> how they speak as one: temperatures, shares, and the calibration of the labels."""
    made = spec.recipe
    config: dict[str, Any] = {
        "kind": made.kind if made is not None else "one",
        "most": getattr(made, "most", 1),
        "segments": getattr(made, "segments", 1),
        "calibration": labels.calibration,
    }
    inputs = data.inputs | {f"teacher-{i}": model.artifact.fingerprint for i, model in enumerate(teacher.models)}
    known = config | {"folds": teacher.folds}
    if teacher.external is not None:
        inputs["teacher"] = _digest(teacher.external, run)
        known["external"] = teacher.external.model_dump(exclude={"path"})

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.recipes import Choice, choose

        return choose(data.read(), teacher, Choice(**config), out, run.log)

    return run.build(Step("recipe", 1, known, inputs), work)


def _digest(external: ExternalSpec, run: Run) -> str:
    from recdistill.data.files import digest_table

    return run.world.share(lambda: digest_table(external.path, "parquet"))


def label(
    data: Data, teacher: Teacher, scratch: Fitted, spec: LabelsSpec, run: Run, *, student: Fitted | None = None
) -> Artifact:
    """Teacher -> its ranked lists; a ranker's candidates come from the scratch student, the retrieval before it.

    Histories are flipped against `student`, the scratch one if None. Of a run that writes a share of them, what is
    returned stands for a store that is not whole: its path is that of the partial directory. Raises ArtifactError if
    what is found is of another teacher, or older than `spec.ttl_days`.
    """
    inputs = dict(data.inputs)
    config: dict[str, Any] = {"labels": spec.model_dump(exclude={"ttl_days": True, "transfer": {"rounds"}})}
    if teacher.external is not None:
        config["external"] = teacher.external.model_dump(exclude={"path"})
        inputs["file"] = _digest(teacher.external, run)
    inputs["teacher"] = teacher.fingerprint or inputs["file"]
    if (teacher.ranks and spec.candidates is not None and spec.candidates.ann) or spec.reliability:
        inputs["scratch"] = scratch.artifact.fingerprint
    if spec.transfer is not None and spec.transfer.kind == "flips":
        inputs["student"] = (student or scratch).artifact.fingerprint
    step = Step("labels", 3, config, inputs, resumes=True)
    stamp = {"step": step.fingerprint, "teacher": inputs["teacher"]}

    def work(out: Path, *, whole: bool = True) -> Mapping[str, Any]:
        from recdistill.labelling import label_data
        from recdistill.shards import Share

        share = None if run.finalize else run.share or Share()
        how = {"share": share, "whole": whole, "student": student}
        return label_data(data.read(), teacher, scratch, spec, out, stamp, run.log, **how)

    if run.share is not None and not run.dry:
        return _label_share(run, step, run.share, lambda out: work(out, whole=False))
    labels = run.build(step, work)
    if not run.dry:
        from recdistill.shards import check_fresh

        now, facts = datetime.now(UTC), labels.manifest.facts
        run.world.share(lambda: check_fresh(labels.path, facts, inputs["teacher"], spec.ttl_days, now))
    return labels


def _label_share(run: Run, step: Step, share: Share, work: store.Work) -> Artifact:
    """Write the shards of `share` into the partial directory, beside other processes that write others."""

    def alone() -> dict[str, Any]:
        path = store.directory(run.store, step)
        with store.part(run.store, step, f"{share.number}-of-{share.of}") as out:
            if out is None:
                return {"path": str(path), "facts": {"written": [], "missing": []}, "hit": True}
            run.log(step.stage, 0, 0, {})
            return {"path": str(out), "facts": dict(work(out) or {}), "hit": False}

    made = run.world.share(alone)
    return _stub(Path(made["path"]), step, made["facts"], hit=made["hit"])


def index(data: Data, student: Fitted, spec: IndexSpec, run: Run) -> Artifact:
    """Student -> the bundle that is served: query side, ids, FAISS index; and the exact index beside it."""

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.export import index_student

        return index_student(data.read(), student, spec, out, step.fingerprint)

    step = Step("index", 2, spec, data.inputs | {"student": student.artifact.fingerprint})
    return run.build(step, work)


def evaluate(data: Data, judged: Judged, report: ReportSpec, run: Run) -> Artifact:
    """Every model -> quality on the test part, with intervals."""

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.measure import evaluate_all

        return evaluate_all(data.read(), judged, report, out, run.log)

    return run.build(Step("evaluate", 1, report, data.inputs | judged.inputs()), work)


def latency(data: Data, judged: Judged, k: int, spec: LatencySpec, run: Run) -> Artifact:
    """Bundle and teacher -> service times of the same answer, in turns, each in a process of its own."""

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.timed import time_all

        measured = time_all(data.ingested.path, data.divided.path, judged, k, spec)
        write_text(out / "latency.json", json.dumps(measured, indent=1, sort_keys=True))
        return {}

    inputs = data.inputs | {n: f for n, f in judged.inputs().items() if n in ("index", "teacher", "labels")}
    config: dict[str, Any] = {"k": k} | ({} if spec == LatencySpec() else {"latency": spec})
    return run.build(Step("latency", 2, config, inputs), work)
