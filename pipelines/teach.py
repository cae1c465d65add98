"""How a teacher comes to be: its trainings, what some of them learn from others, and how they speak as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from recdistill import stages, yesterday_stages
from recdistill.config import Config
from recdistill.models.recipe import Assistants, Checkpoints, Delta, Generations, MemberSpec, Pool, Seeds, Teacher
from recdistill.models.spec import ExternalSpec, Fitted
from recdistill.stages import Data, Run
from recdistill.types import Artifact


def teach(
    config: Config, data: Data, scratch: Fitted, run: Run, yesterday: Artifact | None = None
) -> tuple[Teacher, list[Artifact]]:
    """Return the teacher that `config` describes, and every artifact that was made on the way; collective.

    `yesterday` is what the day before left, for a teacher or a recipe that moves on from it.
    """
    spec, made = config.teacher, list[Artifact]()
    if isinstance(spec.model, ExternalSpec):
        teacher = Teacher(external=spec.model)
    else:
        models = list[Fitted]()
        for fitted, artifacts in _trainings(config, data, scratch, run, yesterday):
            made += artifacts
            models += [fitted] if fitted is not None else []
        teacher = Teacher(models=tuple(models), folds=spec.folds)
    if isinstance(spec.recipe, Delta):
        encoder = yesterday_stages.encoder_of(spec, teacher)
        assert encoder is not None  # load_config has checked both
        assert yesterday is not None
        chosen = yesterday_stages.delta(data, encoder, yesterday, spec.recipe, config.labels, run)
        teacher, made = replace(teacher, recipe=chosen), [*made, chosen]
    elif spec.recipe is not None or spec.folds or config.labels.calibration != "none":
        chosen = stages.recipe(data, teacher, spec, config.labels, run)
        teacher, made = replace(teacher, recipe=chosen), [*made, chosen]
    return teacher, made


def told(artifacts: Sequence[Artifact]) -> str:
    """Return in a line how the models of a teacher came to speak as one; nothing of a single one as it is."""
    facts = next((a.manifest.facts for a in artifacts if a.manifest.stage == "recipe"), None)
    if facts is None:
        return ""
    parts = [
        "one model" if facts["kind"] == "one" else f"{facts['kind']}, {facts['members']} of {facts['judged']} models"
    ]
    parts = parts if facts["members"] else ["somebody else's"]
    if facts["kind"] == "delta":
        parts = [f"what yesterday's student said, moved by {facts['alpha']:g} x what the teacher has moved since"]
    parts += [f"{facts['folds']} folds"] if facts["folds"] else []
    if facts["kind"] not in ("one", "delta"):
        parts.append(f"held-out list NLL {facts['nll']:.4f}, of the best model alone {facts['nll_best_alone']:.4f}")
    if "ece_after" in facts:
        parts.append(f"calibration error {facts['ece_before']:.3f}, calibrated {facts['ece_after']:.3f}")
    return f"teacher: {'; '.join(parts)}; scores are {facts['space']}"


def _trainings(
    config: Config, data: Data, scratch: Fitted, run: Run, yesterday: Artifact | None
) -> Iterator[tuple[Fitted | None, list[Artifact]]]:
    """Yield each model of the teacher with what was made for it; None for what only prepares others."""
    spec, how, recipe = config.teacher, config.exec, config.teacher.recipe
    assert not isinstance(spec.model, ExternalSpec)
    assert spec.first is not None  # load_config has checked it
    if isinstance(recipe, Assistants | Generations):
        yield from _learned(config, recipe, data, scratch, run)
        return
    own = MemberSpec(model=spec.model, train=spec.first)
    day = yesterday if spec.start == "yesterday" else None  # load_config has checked that it is alone then
    members = [("teacher", own)]
    if isinstance(recipe, Seeds):
        seeded = [own.train.model_copy(update={"seed": seed}) for seed in recipe.seeds]
        members = [(f"teacher, seed {t.seed}", own.model_copy(update={"train": t})) for t in seeded]
    if isinstance(recipe, Pool):
        members += [(f"teacher, pool {i}", member) for i, member in enumerate(recipe.members, start=1)]
    keep = isinstance(recipe, Checkpoints) or config.labels.trajectory > 0
    for name, one in members:
        for k in range(spec.folds) if spec.folds else [None]:
            fold = None if k is None else (k, spec.folds)
            called = name if k is None else f"{name}, without fold {k + 1} of {spec.folds}"
            more = {"fold": fold, "keep": keep, "yesterday": day}
            fit = stages.fit(data, one.model, one.train, how, run, name=called, **more)
            yield Fitted(one.model, fit), [fit]


def _learned(
    config: Config, recipe: Assistants | Generations, data: Data, scratch: Fitted, run: Run
) -> Iterator[tuple[Fitted | None, list[Artifact]]]:
    """Yield the models that learn from labels: the assistants from the teacher's, a generation from the last one's."""
    spec, how = config.teacher, config.exec
    assert not isinstance(spec.model, ExternalSpec)
    assert spec.train is not None
    # These labels are a step on the way: nobody shares them out, and what calibrates the teacher's comes later.
    alone = replace(run, share=None, finalize=False)
    plain = config.labels.model_copy(update={"calibration": "none"})
    first = Fitted(spec.model, stages.fit(data, spec.model, spec.train, how, run, name="teacher"))

    def labelled(by: Fitted) -> Artifact:
        return stages.label(data, Teacher(models=(by,)), scratch, plain, alone)

    def learn(member: MemberSpec, labels: Artifact, name: str) -> Fitted:
        fit = stages.fit(data, member.model, member.train, how, run, name=name, labels=labels, terms=recipe.terms)
        return Fitted(member.model, fit)

    if isinstance(recipe, Assistants):
        labels = labelled(first)
        yield None, [first.artifact, labels]
        for i, member in enumerate(recipe.models, start=1):
            assistant = learn(member, labels, f"assistant {i}")
            yield assistant, [assistant.artifact]
        return
    yield first, [first.artifact]
    own, last = MemberSpec(model=spec.model, train=spec.train), first
    for generation in range(1, recipe.generations + 1):
        labels = labelled(last)
        last = learn(own, labels, f"teacher, generation {generation}")
        yield last, [labels, last.artifact]
