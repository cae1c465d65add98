"""The stages of a diagnosis as artifacts: labels of controls, the students they teach, and the diagnosis itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill import stages
from recdistill.diagnosis.controls import CONTROLS, Kind, control_terms, cooled_terms
from recdistill.distill.spec import LabelsSpec, TermSpec
from recdistill.errors import ConfigError
from recdistill.measure import Judged
from recdistill.models.spec import Fitted, StudentSpec
from recdistill.report import ReportSpec
from recdistill.stages import Data, Run
from recdistill.store import Step, open_artifact, write_text
from recdistill.types import Artifact

if TYPE_CHECKING:
    from recdistill.config import ExecSpec
    from recdistill.diagnosis.panel import Panel
    from recdistill.diagnosis.voices import Asked
    from recdistill.types import Dataset

FILE = "diagnosis.json"
RANKING = ("recall", "ndcg", "mrr", "hit", "precision")
SEED = 29  # of who gets whose lists
TUNE = (1.0, 0.1)  # times the terms' weights: at those of the run what is worth little mostly does harm


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """What the run's student is taught, and how: what a control keeps but for the one thing it lacks."""

    student: StudentSpec
    terms: Sequence[TermSpec]
    labels: LabelsSpec
    how: ExecSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What stands beside the run's models: one model a seed of each."""

    controls: Mapping[Kind, Sequence[Fitted]] = field(default_factory=dict)
    factors: Mapping[Kind, float] = field(default_factory=dict)  # of the terms' weights, at which a control does best
    tuned: Sequence[float] = (1.0,)  # those that were tried
    uncontrolled: Sequence[str] = ()
    temperatures: Mapping[float, Sequence[Fitted]] = field(default_factory=dict)


def beside(
    data: Data,
    judged: Judged,
    lessons: Lessons,
    run: Run,
    *,
    controls: bool,
    temperatures: Sequence[float] = (),
    tune: Sequence[float] = TUNE,
) -> Beside:
    """Train what a gain is held against, and students of other teacher temperatures; each is found or built.

    `tune` are factors of the terms' weights, of which each control has the best: said as loudly as what is worth
    hearing, what is worth nothing does harm. Every factor but that one costs the training of one seed.
    """
    if not lessons.terms or judged.labels is None:
        return Beside(uncontrolled=["all controls: this run teaches nothing by labels"])
    made, factors, missing = dict[Kind, Sequence[Fitted]](), dict[Kind, float](), list[str]()
    for kind in CONTROLS:
        pupils, why = _control(kind, data, judged, lessons, run) if controls else (None, "left out (--no-controls)")
        if pupils is None:
            missing.append(f"{CONTROLS[kind].name}: {why}")
        else:
            factors[kind] = _best(pupils, tune)
            made[kind] = pupils.students(factors[kind])
    cooled = dict[float, Sequence[Fitted]]()
    if temperatures and getattr(lessons.labels.transfer, "rounds", 1) > 1:
        what = "students of other temperatures learn in one round, and would not be of the run's kind"
        raise ConfigError(what, where="--temperatures", fix="set labels.transfer.rounds to 1, or leave it out")
    for temperature in temperatures:
        terms = cooled_terms(lessons.terms, temperature)
        if terms:
            name, student = f"taught at {temperature:g}", lessons.student
            cooled[temperature] = _Pupils(
                name, data, judged.labels, terms, student, lessons.how, run, judged.yesterday
            ).students()
    return Beside(controls=made, factors=factors, tuned=tuple(tune), uncontrolled=missing, temperatures=cooled)


@dataclass(frozen=True, slots=True)
class _Pupils:
    """Students of all seeds that are taught the same."""

    name: str
    data: Data
    labels: Artifact
    terms: Sequence[TermSpec]
    student: StudentSpec
    how: ExecSpec
    run: Run
    yesterday: Artifact | None = None

    def students(self, factor: float = 1.0, *, first: bool = False) -> list[Fitted]:
        """Return them, with the weights of what labels teach times `factor`; the `first` seed's alone if asked."""
        model, seeds = self.student.model, self.student.all_seeds
        terms = [t.model_copy(update={"weight": t.weight * (factor if _of_labels(t) else 1.0)}) for t in self.terms]
        found = []
        for seed in seeds[:1] if first else seeds:
            train, name = self.student.train.model_copy(update={"seed": seed}), f"{self.name}, seed {seed}"
            taught = {"labels": self.labels, "terms": terms, "student": self.student, "yesterday": self.yesterday}
            found.append(Fitted(model, stages.fit(self.data, model, train, self.how, self.run, name=name, **taught)))
        return found


def _of_labels(term: TermSpec) -> bool:
    return getattr(term, "teacher", "labels") == "labels"  # which vectors that are aligned always are


def _best(pupils: _Pupils, tune: Sequence[float]) -> float:
    """Return the factor of the best validation NDCG@10 of the first seed, the first of equals.

    Where nothing is held out for validation there is nothing to choose by, and the first one is taken.
    """
    found = dict[float, float]()
    for factor in tune if len(tune) > 1 else ():
        valid = pupils.students(factor, first=True)[0].artifact.manifest.facts.get("valid_ndcg_at_10")
        if valid is None:
            break
        found[factor] = valid
    return max(found, key=lambda factor: found[factor], default=tune[0])


def _control(kind: Kind, data: Data, judged: Judged, lessons: Lessons, run: Run) -> tuple[_Pupils | None, str]:
    """Return the students of a control, or why there are none."""
    terms = control_terms(kind, lessons.terms, lessons.labels.depth)
    if not any(map(_of_labels, terms)):
        return None, "no term compares lists of items, which alone can be taught without a teacher"
    assert judged.labels is not None
    labels = (
        _scored_labels(data, judged, lessons, run) if kind == "pt" else control_labels(data, judged.labels, kind, run)
    )
    if labels is None:
        return None, "the teacher's lists do not score what users took, and it has no vectors that would"
    student = lessons.student
    if kind != "strangers":  # the teacher's dimensions would be told by the start
        student = student.model_copy(update={"start": "random", "items": "learned"})
    return _Pupils(CONTROLS[kind].name, data, labels, terms, student, lessons.how, run, judged.yesterday), ""


def _scored_labels(data: Data, judged: Judged, lessons: Lessons, run: Run) -> Artifact | None:
    """Return labels that score what users took: the run's, or the same with the teacher's vectors."""
    if lessons.labels.vectors or not lessons.labels.exclude_seen:
        return judged.labels
    teacher = judged.teacher
    if teacher.ranks or not teacher.models or teacher.folds or teacher.recipe is not None:
        return None
    spec = lessons.labels.model_copy(update={"vectors": True})
    return stages.label(data, teacher, judged.scratch[0], spec, run)


def control_labels(data: Data, labels: Artifact, kind: Kind, run: Run) -> Artifact:
    """Labels -> those of a control: a label store like any other, whose teacher is the store it is made from."""
    config = {"control": kind} | ({"seed": SEED} if kind == "strangers" else {})
    step = Step("labels", 3, config, data.inputs | {"teacher": labels.fingerprint})

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.diagnosis.stores import write_control
        from recdistill.labels import open_labels

        stamp = {"step": step.fingerprint, "teacher": labels.fingerprint}
        return write_control(kind, open_labels(labels.path), data.read().train, out, stamp, seed=SEED)

    return run.build(step, work)


def measure(report: ReportSpec) -> dict[str, Any]:
    """Return what quality means in a diagnosis, as the values of a `Measure`: the first ranking metric of a report."""
    metric = next((name for name in report.metrics if name in RANKING), "ndcg")
    return {"metric": metric, "k": report.k[0], "times": report.bootstrap, "seed": report.seed}


def _step(data: Data, judged: Judged, others: Beside, report: ReportSpec, robust: Artifact | None) -> Step:
    config = measure(report) | {"uncontrolled": list(others.uncontrolled)}
    config |= {"factors": others.factors, "tuned": list(others.tuned)} if others.controls else {}
    inputs = _inputs(data, judged)
    if robust is not None:
        inputs["robustness"] = robust.fingerprint
    groups = {**others.controls, **{f"{t:g}": models for t, models in others.temperatures.items()}}
    for name, models in groups.items():
        inputs |= {f"{name}-{i}": model.artifact.fingerprint for i, model in enumerate(models)}
    return Step("diagnose", 2, config, inputs)


def diagnose(
    data: Data, judged: Judged, others: Beside, report: ReportSpec, run: Run, *, robust: Artifact | None = None
) -> Artifact:
    """Every model -> diagnosis.json, and pages of it as Markdown and HTML; `robust` is what `robustness` found."""
    step = _step(data, judged, others, report, robust)

    def work(out: Path) -> Mapping[str, Any]:
        from recdistill.diagnosis.habits import habits
        from recdistill.diagnosis.lists import Measure
        from recdistill.diagnosis.page import html, markdown
        from recdistill.diagnosis.panel import diagnose as look
        from recdistill.diagnosis.robust import read_rows
        from recdistill.diagnosis.voices import asked, reads_history, views

        dataset = data.read()
        how = Measure(**measure(report))
        everyone = [*judged.teacher.models, *judged.scratch, *judged.student]
        who = asked(dataset, max(50, *report.k), ranker=any(model.spec.kind == "ranker" for model in everyone))
        histories = views(dataset, reads=bool(judged.teacher.models) and reads_history(*everyone))
        found = look(dataset, _panel(dataset, judged, others, who), histories, who, how, run.log)
        more, unsaid = habits(dataset, judged, who, how, run.log)
        found = found.model_copy(
            update={
                "inherited": [*found.inherited, *more],
                "notes": [*found.notes, *unsaid],
                "robustness": [] if robust is None else read_rows(robust),
            }
        )
        write_text(out / FILE, json.dumps(found.model_dump(mode="json"), indent=1, allow_nan=False))
        write_text(out / "diagnosis.md", markdown(found))
        write_text(out / "diagnosis.html", html(found))
        return {"users": found.users, "controls": list(others.controls)}

    return run.build(step, work)


def _panel(dataset: Dataset, judged: Judged, others: Beside, who: Asked) -> Panel:
    from recdistill.diagnosis.panel import Panel
    from recdistill.diagnosis.voices import Voice, student_voice, teacher_voice

    def of(models: Sequence[Fitted]) -> list[Voice]:
        return [student_voice(model, dataset, who) for model in models]

    scratch = judged.scratch[0]
    return Panel(
        teacher=teacher_voice(judged.teacher, scratch, judged.labels, judged.candidates, dataset, who),
        scratch=of(judged.scratch),
        student=of(judged.student),
        controls={CONTROLS[kind].name: of(models) for kind, models in others.controls.items()},
        lacks={one.name: one.lacks for one in CONTROLS.values()},
        factors={CONTROLS[kind].name: factor for kind, factor in others.factors.items()},
        tuned=others.tuned,
        uncontrolled=others.uncontrolled,
        temperatures={t: of(models) for t, models in others.temperatures.items()},
    )


def _inputs(data: Data, judged: Judged) -> dict[str, str]:
    return data.inputs | {name: value for name, value in judged.inputs().items() if name != "index"}


def found(data: Data, judged: Judged, store: Path) -> dict[str, Any] | None:
    """Return the diagnosis of a run that is in the store, the fullest of several, as JSON values; None without any."""
    own, best = _inputs(data, judged), None
    for path in sorted((store / "diagnose").glob("*/manifest.json")):
        made = open_artifact(path.parent)
        more = {name: value for name, value in made.manifest.inputs.items() if own.get(name) != value}
        twins = any(name.startswith(("student-", "scratch-", "teacher", "labels")) for name in more)
        if own.items() <= made.manifest.inputs.items() and not twins:
            place = (len(more), made.manifest.created_at)
            best = max(best or (place, path), (place, path))
    return None if best is None else json.loads((best[1].parent / FILE).read_text(encoding="utf-8"))
