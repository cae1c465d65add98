"""What names an artifact: all that decides what labels and students are, and nothing of how they are computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from recdistill.config import ExecSpec
from recdistill.distill.spec import LabelsSpec, ListTermSpec
from recdistill.distill.spec_draws import StudentTop, Top
from recdistill.distill.spec_lists import PlackettLuce
from recdistill.distill.spec_transfer import Dropout, Splice
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted, GuideSpec, MFSpec, StudentSpec, TrainSpec
from recdistill.stages import Data, Run, fit, label
from recdistill.store import Step, directory
from recdistill.types import Artifact, Manifest

MODEL, TRAIN, HOW = MFSpec(dim=8), TrainSpec(epochs=2), ExecSpec()
TERM = ListTermSpec(weight=1.0, draw=(Top(k=3),), loss=PlackettLuce())
STUDENT = StudentSpec(model=MODEL, train=TRAIN)


def made(step: Step) -> Artifact:
    manifest = Manifest(
        format=1,
        stage=step.stage,
        version=step.version,
        fingerprint=step.fingerprint,
        config={},
        inputs={"teacher": "t"},
        files={},
        facts={},
        env={},
        created_at="",
        seconds=0.0,
    )
    return Artifact(path=directory(Path("store"), step), manifest=manifest, hit=False)


DATA = Data(made(Step("ingest", 2, {}, {})), made(Step("split", 2, {}, {})))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(store=tmp_path, dry=True)


def teacher(run: Run, **changed) -> Artifact:
    train = TrainSpec(**{"epochs": 2} | changed)
    return fit(DATA, MODEL, train, HOW, run, name="teacher")


def labels(run: Run, spec=None, keep=False, **changed) -> str:
    fitted = Fitted(MODEL, teacher(run, **changed))
    if keep:
        fitted = Fitted(MODEL, fit(DATA, MODEL, TRAIN, HOW, run, name="teacher", keep=True))
    scratch = Fitted(MODEL, teacher(run))
    return label(DATA, Teacher(models=(fitted,)), scratch, spec or LabelsSpec(), run).fingerprint


def test_labels_are_of_one_training_of_their_teacher(run: Run):
    assert labels(run) == labels(run)
    assert len({labels(run), labels(run, seed=2), labels(run, lr=0.2), labels(run, keep=True)}) == 4


def test_labels_are_of_one_version_of_their_teacher(run: Run, monkeypatch: pytest.MonkeyPatch):
    before = labels(run)
    real = Step.fingerprint.fget
    changed = property(lambda step: real(step) if step.stage != "fit" else real(step)[::-1])
    monkeypatch.setattr(Step, "fingerprint", changed)  # as another version of the code that fits would give it
    assert labels(run) != before


@pytest.mark.parametrize(
    "setting", [{"depth": 50}, {"vectors": True}, {"item_depth": 20}, {"trajectory": 3}, {"transfer": Dropout()}]
)
def test_labels_are_what_they_hold(run: Run, setting):
    assert labels(run, LabelsSpec(**setting)) != labels(run)


def test_labels_are_of_the_histories_that_are_listed_beside_users(run: Run):
    every = [None, Dropout(), Dropout(rate=0.5), Dropout(copies=2), Dropout(seed=2), Dropout(share=0.1), Splice()]
    assert len({labels(run, LabelsSpec(transfer=one)) for one in every}) == len(every)
    assert "transfer" not in LabelsSpec().model_dump()  # or all labels that were made before would have another name


def test_how_long_labels_are_good_for_is_no_part_of_them(run: Run):
    assert labels(run, LabelsSpec(ttl_days=3)) == labels(run)


def student(run: Run, terms=(TERM,), how=HOW, train=TRAIN, **changed) -> str:
    spec = StudentSpec(**{"model": MODEL, "train": train} | changed)
    taught = made(Step("labels", 3, {}, {}))
    return fit(DATA, MODEL, train, how, run, name="s", labels=taught, terms=terms, student=spec).fingerprint


CHANGES = [
    {"task": 0.5},
    {"start": "teacher"},
    {"guide": GuideSpec(depth=50)},
    {"guide": GuideSpec(refresh=3)},
    {"partner": MFSpec(dim=16)},
    {"partner": MFSpec(dim=32)},
    {"terms": (TERM.model_copy(update={"weight": 2.0}),)},
    {"terms": (TERM.model_copy(update={"balance": True}),)},
    {"terms": (TERM.model_copy(update={"compat": "sum"}),)},
    {"terms": (TERM.model_copy(update={"draw": (StudentTop(k=3),)}),)},
    {"train": TrainSpec(epochs=2, list_users=7)},
]


def test_a_student_is_of_its_task_guide_partner_and_terms(run: Run):
    found = [student(run)] + [student(run, **change) for change in CHANGES]
    assert len(set(found)) == len(CHANGES) + 1


def test_a_student_is_of_its_labels(run: Run):
    other = made(Step("labels", 3, {"depth": 9}, {}))
    assert fit(DATA, MODEL, TRAIN, HOW, run, name="s", labels=other, terms=[TERM]).fingerprint != student(run)


@pytest.mark.parametrize(
    "how",
    [
        {"store": "elsewhere"},
        {"device": "cuda"},
        {"tables": "row_wise"},
        {"threads": 3},
        {"mlflow": "sqlite:///x.db"},
        {"checkpoint_every": 7},
        {"prefetch": 2},
    ],
)
def test_how_it_is_computed_is_no_part_of_a_student(run: Run, how):
    assert student(run, how=ExecSpec(**how)) == student(run)


def test_a_scratch_student_is_the_same_whatever_its_twin_is_taught_with(run: Run):
    plain = fit(DATA, MODEL, TRAIN, HOW, run, name="scratch").fingerprint
    assert student(run, terms=(), task=0.5, guide=GuideSpec(depth=7), partner=MFSpec(dim=16)) == plain
    assert student(run, terms=(), train=TrainSpec(epochs=2, list_users=7)) == plain
    assert student(run) != plain
