"""What a configuration can get wrong of subclasses: who can invent them, and which terms can teach them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recdistill.checks_teacher import all_terms
from recdistill.yamlfile import KeyPath

if TYPE_CHECKING:
    from recdistill.checks import Finding
    from recdistill.config import Config

ENCODERS = ("mf", "two_tower", "lightgcn")
APART = ("in_batch", "rest")
"""Draws whose scores are made with the batch's own, or stand for many items."""


def subclasses_trained(config: Config) -> Iterator[Finding]:
    """Subclasses are of one teacher whose scores are products of vectors; nobody else has a use for a head of them."""
    at: KeyPath = ("teacher", "train", "subclasses")
    if config.student.train.subclasses is not None:
        yield ("student", "train", "subclasses"), "has no effect: they are a teacher's; set teacher.train.subclasses"
    for place, _, train in config.teacher.trained():
        if place and train.subclasses is not None:
            yield ("teacher", *place, "train", "subclasses"), "has no effect: a recipe's models teach by their scores"
    if config.teacher.train is None or config.teacher.train.subclasses is None:
        return
    kind = config.teacher.model.kind
    if kind not in ENCODERS:
        yield at, f"are of pairs of vectors, and a {kind} trains none with its own loss: take mf, two_tower or lightgcn"
    for name in ("recipe", "folds"):
        if getattr(config.teacher, name):
            yield at, f"are one model's: teacher.{name} mixes several, and nobody says whose they would be"


def subclasses_taught(config: Config) -> Iterator[Finding]:
    """A term that compares sub-logits needs a teacher that has some, as it trained them, and items drawn for a user."""
    train = config.teacher.train
    for at, term in all_terms(config):
        if term.loss.kind != "subclass_kl":
            continue
        if at[0] == "teacher":
            yield (*at, "loss"), "subclass_kl is for students: take another loss here"
            continue
        if train is None or train.subclasses is None:
            reason = (
                "subclass_kl compares sub-logits, and the teacher has none: set teacher.train.subclasses: {count: 4}"
            )
            yield (*at, "loss"), reason
        if config.labels.calibration != "none":
            reason = "moves the scores, and sub-logits are of the vectors as they were trained: leave it out"
            yield ("labels", "calibration"), reason
        if term.side == "items" or term.teacher != "labels":
            yield (*at, "loss"), "subclass_kl is of the labels' lists of items for a user"
        for name in ("target", "head", "exit", "signal"):
            if getattr(term, name):
                yield (*at, name), "is of scores, and subclass_kl compares sub-logits: leave it out"
        for j, draw in enumerate(term.draw):
            if draw.kind in APART:
                yield (*at, "draw", j), f"{draw.kind} gives scores alone: draw items, such as top and unseen"


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (subclasses_trained, subclasses_taught)
