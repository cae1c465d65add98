"""What a configuration can get wrong of vectors whose first numbers, or fewer bits, are what serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recdistill.distill.spec import ListTermSpec

if TYPE_CHECKING:
    from recdistill.checks import Finding
    from recdistill.config import Config


def prefixes_possible(config: Config) -> Iterator[Finding]:
    """Every loss is of each prefix, so nothing may stand beside the vectors that reads the whole of them alone."""
    student, at = config.student, ("student", "model", "nested")
    if not student.model.nested:
        return
    if any(stage.width for stage in student.stages):
        yield at, "not with widths of student.stages, whose numbers stand still once learned: leave one of the two out"
    if student.items == "folded":
        yield (
            ("student", "items"),
            "folded ones take the place of what was trained to be cut: leave it, or nested, out",
        )
    for i, term in enumerate(config.distill):
        if not isinstance(term, ListTermSpec):
            continue
        if term.head is not None:
            what = "is of whole vectors and never serves, so no prefix would be taught: leave it, or nested, out"
            yield ("distill", i, "head"), what
        if term.loss.kind == "subclass_kl":
            what = "compares sub-logits, which a head makes of whole vectors: take another loss, or leave nested out"
            yield ("distill", i, "loss"), what
        if term.teacher == "student":
            what = "has a partner learn from the student, of which there is one a width: leave it, or nested, out"
            yield ("distill", i, "teacher"), what


def rounding_possible(config: Config) -> Iterator[Finding]:
    """What was trained to be rounded is what must serve, in the dimensions in which it was."""
    student = config.student
    if student.model.rounding == "fp32":
        return
    for name in ("items", "axes"):
        if name in student.model_fields_set and getattr(student, name) not in ("learned", "own"):
            what = "turns what was trained to be rounded in its own dimensions: leave it, or model.rounding, out"
            yield ("student", name), what


def of_the_student(config: Config) -> Iterator[Finding]:
    """How vectors are cut and rounded is of those that serve."""
    models = [(("teacher", *at, "model"), model) for at, model, _ in config.teacher.trained()]
    if config.student.partner is not None:
        models.append((("student", "partner"), config.student.partner))
    for at, model in models:
        if getattr(model, "nested", ()):
            yield (*at, "nested"), "is for a student: this model does not serve; leave it out"
        if getattr(model, "rounding", "fp32") != "fp32":
            yield (*at, "rounding"), "is for a student: this model does not serve; leave it out"


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (prefixes_possible, rounding_possible, of_the_student)
