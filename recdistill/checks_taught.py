"""What a configuration can get wrong of what is taught in place of scores, and of how rows are treated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recdistill.checks_teacher import all_terms
from recdistill.distill.spec import ListTermSpec, trusts
from recdistill.distill.spec_targets import of_the_step

if TYPE_CHECKING:
    from recdistill.checks import Finding
    from recdistill.config import Config
    from recdistill.models.spec import StudentSpec

TAUGHT = ("smooth", "pt", "topk", "sim", "rectify", "blend", "half_way")
"""Targets that replace scores, which a loss that reads the order alone never sees."""


def taken_known(config: Config) -> Iterator[Finding]:
    """Who asks what the user took must be shown some of it."""
    for at, term in all_terms(config):
        kinds = [draw.kind for draw in term.draw]
        place = _asks_taken(term)
        if place is None:
            continue
        if "in_batch" in kinds or "rest" in kinds:
            yield (*at, "draw"), "asks what the user took, which draws of kind in_batch and rest do not say: draw own"
        elif term.teacher != "labels":
            yield (*at, *place), f"asks what the user took, and the lists of a {term.teacher} hold none of it"
        elif "own" not in kinds and config.labels.exclude_seen:
            yield (*at, *place), "asks what the user took, and the lists hold none of it: add a draw of kind own"


def targets_read(config: Config) -> Iterator[Finding]:
    """A target must reach what the loss reads, and be of what teaches."""
    for at, term in all_terms(config):
        for k, target in enumerate(term.target):
            if target.kind in TAUGHT and term.loss.needs == "rank":
                yield (*at, "target", k), f"has no effect: {term.loss.kind} reads the order alone"
            if target.kind in TAUGHT and target.kind != "half_way" and term.teacher != "labels":
                yield (*at, "target", k), f"has no effect: what a {term.teacher} says is taught as it is"
            if target.kind == "sim" and k:
                yield (*at, "target", k), "takes the place of the scores: write it first"
            if target.kind == "sim" and not config.labels.vectors:
                yield (*at, "target", k), "compares the teacher's item vectors: set labels.vectors: true"
            if of_the_step(target) and k + 1 < len(term.target):
                yield (*at, "target", k), "follows the student's own scores, after all else: write it last"
            if target.kind == "rectify" and target.how != "smooth" and "share" in target.model_fields_set:
                yield (*at, "target", k, "share"), f"has no effect with how: {target.how}"


def parts_named(config: Config) -> Iterator[Finding]:
    """The parts of a list are as many as the weights of their insides, and something of them must count."""
    for at, term in all_terms(config):
        loss = term.loss
        if loss.kind != "grouped_kl":
            continue
        if loss.by == "taken" and "groups" in loss.model_fields_set:
            yield (*at, "loss", "groups"), "has no effect with by: taken, which has two parts"
        if loss.by == "popularity" and term.side == "items":
            yield (*at, "loss", "by"), "popularity is of items in a user's list: leave it out, or take side users"
        if loss.within and len(loss.within) != loss.parts:
            yield (*at, "loss", "within"), f"has {len(loss.within)} weights for {loss.parts} parts"
        if not loss.between and loss.within and not any(loss.within):
            yield (*at, "loss"), "never counts: every weight is 0"


def signals_possible(config: Config) -> Iterator[Finding]:
    """A signal must be able to change something before the training ends."""
    epochs = config.student.train.epochs
    for i, term in enumerate(config.distill):
        signal = term.signal if isinstance(term, ListTermSpec) else None
        if signal is None or not isinstance(term, ListTermSpec):
            continue
        if signal.kind == "right_first" and not signal.start and not signal.ramp:
            yield ("distill", i, "signal"), "has no effect: all rows count from the beginning"
        if signal.kind == "right_first" and signal.start >= epochs:
            reason = f"training ends after {epochs} epochs: rows in which the teacher is wrong never count; drop them"
            yield ("distill", i, "signal", "start"), reason
        if signal.kind == "temperature" and term.loss.needs == "rank":
            yield ("distill", i, "signal"), f"has no effect on what is taught: {term.loss.kind} reads the order alone"


def stages_possible(config: Config) -> Iterator[Finding]:
    """Parts of a training must end before it does, and what is to stand still in one must be able to."""
    student = config.student
    stages, at = student.stages, ("student", "stages")
    if not stages:
        return
    gone, epochs = sum(stage.epochs or 0.0 for stage in stages), student.train.epochs
    if gone > epochs or (stages[-1].epochs is None and gone >= epochs):
        yield at, f"take {gone:g} epochs, and training ends after {epochs}: raise student.train.epochs"
    for i in (i for i, stage in enumerate(stages[:-1]) if stage.epochs is None):
        yield (*at, i, "epochs"), "is missing: the last part alone may go on to the end of the training"
    stops = [i for i, stage in enumerate(stages) if set(stage.moves) != {"users", "items"}]
    for i, stage in enumerate(stages):
        if i not in stops and stage.task and not any(s.width for s in stages[: i + 1]):
            yield (*at, i), "has no effect: everything learns, as it does without stages"
        if len(set(stage.moves)) < len(stage.moves):
            yield (*at, i, "moves"), "names a side twice"
    yield from _widths(student)
    stops += [i for i, stage in enumerate(stages) if stage.width is not None]
    if stops and student.train.optimizer == "adam":
        yield (
            ("student", "train", "optimizer"),
            "adam moves what has no gradient: take another where a table stands still",
        )
    if stops and student.train.weight_decay:
        yield ("student", "train", "weight_decay"), "takes from every row: a table that stands still must not decay"
    if any("users" not in stages[i].moves for i in stops) and getattr(student.model, "hidden", ()):
        yield (
            ("student", "model", "hidden"),
            "layers do not stand still with users: leave them out, or let users move",
        )


def _widths(student: StudentSpec) -> Iterator[Finding]:
    """Vectors that grow part by part do so in steps, and their scores must be sums over their numbers."""
    wide, at = 0, ("student", "stages")
    grown = [i for i, stage in enumerate(student.stages) if stage.width is not None]
    for i in grown:
        width = student.stages[i].width or 0
        if width <= wide or width > student.model.dim:
            reason = f"is {width} after {wide} of {student.model.dim}: widths rise, up to student.model.dim"
            yield (*at, i, "width"), reason
        wide = max(wide, width)
    if grown and student.model.space != "dot":
        what = "cosines of longer vectors are no sums: a width needs space: dot, and temperature: 1.0 with it"
        yield ("student", "model", "space"), what
    if grown and getattr(student.model, "hidden", ()):
        yield ("student", "model", "hidden"), "layers mix the numbers of a vector, which cannot grow: leave them out"


def exits_there(config: Config) -> Iterator[Finding]:
    """A tower can end a layer early only where it has layers, and one as wide as its end."""
    model = config.student.model
    for i, term in enumerate(config.distill):
        if not isinstance(term, ListTermSpec) or not term.exit:
            continue
        hidden = getattr(model, "hidden", ())
        if not hidden or hidden[-1] != model.dim:
            reason = f"needs a last hidden layer as wide as the vectors: student.model.hidden that ends in {model.dim}"
            yield ("distill", i, "exit"), reason
        if term.head is not None:
            yield ("distill", i, "head"), "has no effect: with exit the hidden layer is compared as it is"
        if term.side == "items" or term.teacher == "student" or any(d.kind == "rest" for d in term.draw):
            yield ("distill", i, "exit"), "is of lists of items for a user that somebody teaches, without rest"


def selection_possible(config: Config) -> Iterator[Finding]:
    """A policy chooses among terms, and hears of each turn before the training ends."""
    if config.student.select is not None and len(config.distill) < 2:
        yield ("student", "select"), "chooses among terms, and there is not more than one: leave it out"


def reliability_known(config: Config) -> Iterator[Finding]:
    """How far the teacher is right is measured where somebody asks, of a teacher that scores everything."""
    asked = [(i, t) for i, t in enumerate(config.distill) if isinstance(t, ListTermSpec) and trusts(t)]
    for i, term in asked:
        if config.labels.reliability is None:
            reason = "asks how far the teacher is right, which nobody measures: set labels.reliability: 4"
            yield ("distill", i), reason
        if term.side == "items" or term.teacher != "labels":
            yield ("distill", i), "asks how far the teacher is right about users: of the labels' lists of items alone"
    if config.labels.reliability is None:
        return
    at = ("labels", "reliability")
    if not asked:
        yield at, "has no effect: no target blend or signal reads it; leave it out"
    if config.teacher.model.kind in ("ranker", "external") or config.teacher.folds:
        yield at, "needs a teacher that scores everything and has seen no held-out item: an encoder, without folds"
    if config.labels.transfer is not None:
        yield at, "is of users, and histories that nobody had are nobody's: leave one of the two out"


def ladder_climbed(config: Config) -> Iterator[Finding]:
    """A ladder is climbed at refreshes, of which there must be one before the training ends."""
    student = config.student
    if student.ladder is not None and student.guide.refresh >= student.train.epochs:
        reason = f"is climbed every student.guide.refresh epochs, {student.guide.refresh}: never in this training"
        yield ("student", "ladder"), reason


def _asks_taken(term: ListTermSpec) -> tuple[str | int, ...] | None:
    """Return where a term asks what the user took, None where it does not."""
    for k, target in enumerate(term.target):
        if target.kind in ("smooth", "pt", "sim", "rectify", "blend"):
            return "target", k
    if term.loss.kind == "grouped_kl" and term.loss.by == "taken":
        return ("loss",)
    return ("signal",) if term.signal is not None and term.signal.kind == "right_first" else None


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    taken_known,
    targets_read,
    parts_named,
    signals_possible,
    stages_possible,
    selection_possible,
    exits_there,
    ladder_climbed,
    reliability_known,
)
