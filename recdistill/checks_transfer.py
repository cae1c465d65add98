"""What a configuration can get wrong of histories that nobody had: who can be asked about them, and who learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recdistill.distill.spec import ListTermSpec
from recdistill.distill.spec_transfer import Flips, asked
from recdistill.yamlfile import KeyPath

if TYPE_CHECKING:
    from recdistill.checks import Finding
    from recdistill.config import Config

AT: KeyPath = ("labels", "transfer")


def teacher_asked(config: Config) -> Iterator[Finding]:
    """The teacher must have something to say of a history that is nobody's, and be one model that says it."""
    if config.labels.transfer is None or not config.distill:
        return
    model = config.teacher.model
    if model.kind not in ("two_tower", "sequence", "ranker"):
        yield AT, f"needs a teacher that reads a history: {model.kind} does not; take a two_tower, sequence or ranker"
    if model.kind in ("two_tower", "sequence") and not model.id_dropout:
        reason = (
            "is 0: a teacher that never hid an id does not know what to say of nobody's history; see labels.transfer"
        )
        yield ("teacher", "model", "id_dropout"), reason
    if config.teacher.folds or config.teacher.recipe is not None:
        yield AT, "needs a teacher of one training: leave teacher.folds and teacher.recipe out"
    if config.labels.candidates is not None:
        yield (
            ("labels", "candidates"),
            "are of users: for labels.transfer the whole catalogue is scored; leave them out",
        )


def student_reads(config: Config) -> Iterator[Finding]:
    """A student must read histories, and be taught lists of items for them."""
    transfer, train = config.labels.transfer, config.student.train
    if transfer is None or not config.distill:
        return
    if config.student.model.kind != "two_tower":
        reason = (
            f"has no effect on a student of kind {config.student.model.kind}, which reads no history: use two_tower"
        )
        yield AT, reason
    if not any(_compares(term) for term in config.distill if isinstance(term, ListTermSpec)):
        yield AT, "has no effect: no term of distill compares lists of items that are drawn for a user"
    rows = asked(train.list_users, transfer.share)
    if not 0 < rows < train.list_users:
        reason = f"would take {rows} of the {train.list_users} rows of student.train.list_users: some must be of each"
        yield (*AT, "share"), reason


def flips_possible(config: Config) -> Iterator[Finding]:
    """Flips are edits of what two towers pool; where both pool the same they are gains of one and the same history."""
    transfer, student, teacher = config.labels.transfer, config.student.model, config.teacher.model
    if not isinstance(transfer, Flips) or not config.distill or student.kind != "two_tower":
        return
    if teacher.kind != "two_tower":
        yield (*AT, "kind"), f"needs a teacher that pools its history: {teacher.kind} does not; take a two_tower"
    elif teacher.history != student.history:
        reason = (
            f"is {student.history}, and the teacher's {teacher.history}: flips are of what both read; make them equal"
        )
        yield ("student", "model", "history"), reason
    if transfer.count >= student.history:
        reason = f"leaves no room in a history of {student.history} items for what is inserted: make it smaller"
        yield (*AT, "count"), reason
    if transfer.rounds > config.student.train.epochs:
        reason = f"is more than the {config.student.train.epochs} epochs of student.train: each takes one at least"
        yield (*AT, "rounds"), reason


def terms_of_anybody(config: Config) -> Iterator[Finding]:
    """Nobody's history has no list of the student's own, and nobody's vector to come near to."""
    if config.labels.transfer is None:
        return
    for i, term in enumerate(config.distill):
        at: KeyPath = ("distill", i)
        if not isinstance(term, ListTermSpec):
            what = "align compares vectors" if term.kind == "align" else "gates are on histories"
            yield (*at, "kind"), f"{what} of known users: not with labels.transfer"
            continue
        if term.side == "users" and term.teacher != "labels":
            yield (*at, "teacher"), f"lists of a {term.teacher} are of known users: not with labels.transfer"
        for j, draw in enumerate(term.draw):
            if {"student", "trajectory"} & set(draw.reads):
                yield (*at, "draw", j), f"{draw.kind} follows the lists of known users: not with labels.transfer"


def _compares(term: ListTermSpec) -> bool:
    """Say whether `term` compares items for the users that a step lists."""
    return term.side == "users" and all(draw.kind != "in_batch" for draw in term.draw)


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    teacher_asked,
    student_reads,
    flips_possible,
    terms_of_anybody,
)
