"""What a configuration can get wrong of gates on histories: who reads one, who is asked, and who learns of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recdistill.distill.spec import GatesTermSpec
from recdistill.yamlfile import KeyPath

if TYPE_CHECKING:
    from recdistill.checks import Finding
    from recdistill.config import Config

AT: KeyPath = ("labels", "gates")
ONE = "has one item, which is where anybody would look"


def gates_known(config: Config) -> Iterator[Finding]:
    """The teacher's gates are kept where a term reads them, of one model that reads a history."""
    terms = [i for i, term in enumerate(config.distill) if isinstance(term, GatesTermSpec)]
    if not config.labels.gates:
        for i in terms:
            reason = "compares with where the teacher looks, and the labels do not say it: set labels.gates: true"
            yield ("distill", i, "kind"), reason
        return
    if not terms:
        yield AT, "has no effect: no term of kind gates reads it; leave it out"
    model = config.teacher.model
    if model.kind not in ("two_tower", "sequence", "ranker"):
        yield AT, f"needs a teacher that reads a history: {model.kind} does not; take a two_tower, sequence or ranker"
    elif model.history < 2:
        yield ("teacher", "model", "history"), f"{ONE}: 2 or more for gates"
    if config.teacher.folds or config.teacher.recipe is not None:
        yield AT, "needs a teacher of one training: leave teacher.folds and teacher.recipe out"


def gates_learned(config: Config) -> Iterator[Finding]:
    """A student learns where to look only if it reads a history, of more than one item."""
    model = config.student.model
    for i, term in enumerate(config.distill):
        if not isinstance(term, GatesTermSpec):
            continue
        if model.kind != "two_tower":
            yield ("distill", i, "kind"), f"needs a student that reads a history: {model.kind} does not; use two_tower"
        elif model.history < 2:
            yield ("student", "model", "history"), f"{ONE}: 2 or more for gates"


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (gates_known, gates_learned)
