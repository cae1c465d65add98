"""What a user writes about labels and distillation; a published method is a few lines of this."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from recdistill.distill.spec_align import AlignLoss, Filter, Preserve
from recdistill.distill.spec_draws import Draw
from recdistill.distill.spec_lists import ListLoss
from recdistill.distill.spec_signals import Signal
from recdistill.distill.spec_targets import Target
from recdistill.distill.spec_transfer import Transfer
from recdistill.spec import Spec


class CandidatesSpec(Spec):
    """Which items a ranker scores for each user; the whole catalogue if their number reaches it."""

    ann: NonNegativeInt = 500
    """Nearest items of the scratch student, the retrieval that a ranker would stand behind."""
    popular: NonNegativeInt = 100
    uniform: NonNegativeInt = 200
    """Draws from the whole catalogue, with their probability: what the labels know of all other items."""


class LabelsSpec(Spec):
    """The teacher's lists: how deep, over which items, and how they are kept."""

    depth: PositiveInt = 100
    rest: NonNegativeInt = 0
    """Uniform samples a user of what the teacher scored outside the list, with their probability."""
    precision: Literal["f32", "f16"] = "f32"
    """Of the scores on disk; f16 keeps about three digits, and the order of the list as it is."""
    compute: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the products. With bf16, faster where the processor has it, an encoder's lists and scores stay the
    same bit for bit and its residuals within 2e-3; a ranker's scores move by about a hundredth of their spread."""
    shard_users: Annotated[int, Field(gt=0, le=65_536)] = 65_536
    """Users in one file, at most: what a killed run may lose, and what `label --shard` hands out."""
    ttl_days: PositiveFloat | None = None
    """Labels that were scored longer ago are refused. Not a part of what they are: it may be changed at any time."""
    candidates: CandidatesSpec | None = None
    """Read for a ranker only; an encoder is scored over the whole catalogue. Left out: the whole catalogue."""
    vectors: bool = False
    """Keep an encoder teacher's vectors beside its lists: for terms that compare vectors, or score any item."""
    item_depth: NonNegativeInt = 0
    """Users listed for each item, by an encoder teacher: for terms of side items."""
    trajectory: NonNegativeInt = 0
    """Moments of each model's training whose lists are kept too, the best one last: for draws of kind trajectory."""
    reliability: Annotated[int | None, Field(gt=0, exclude_if=lambda groups: groups is None)] = None
    """Groups of users by activity, each trusted to the teacher as far as it explains their held-out items better than
    the scratch student: for target blend and signal reliability."""
    gates: Annotated[bool, Field(exclude_if=lambda kept: not kept)] = False
    """How much each item of a user's history moves the chance that the teacher gives the first item of the list: for
    terms of kind gates."""
    exclude_seen: bool = True
    """Leave each user's training items out of the list."""
    calibration: Literal["none", "temperature", "platt"] = "none"
    """What the scores are fitted to on held-out data: the chance of an item as the next of a list (temperature), or the
    chance that the user takes it at all (platt), in a time as long as the validation part's."""
    # One that is not used leaves the name of the labels as it was before there were any.
    transfer: Annotated[Transfer | None, Field(exclude_if=lambda transfer: transfer is None)] = None
    """Histories that nobody had, listed too, for a student that reads one: what the teacher does between users."""


class Auxiliary(Spec):
    """A head of the term's own on the student's last shared vectors: the head that serves learns from users alone.

    Its gradient reaches the shared vectors times `gradient` (ExFM, Rec-Distill).
    """

    gradient: Annotated[float, Field(ge=0)] = 1.0


class Phase(Spec):
    """When a term counts, in epochs: from `start`, rising over `ramp`, up to `stop`."""

    start: Annotated[float, Field(ge=0)] = 0.0
    ramp: Annotated[float, Field(ge=0)] = 0.0
    stop: PositiveFloat | None = None


class _Term(Spec):
    weight: PositiveFloat
    balance: bool = False
    """`weight` is the ratio of the term's gradient to the task's, both as they reach the student's vectors."""
    phase: Phase = Phase()


class ListTermSpec(_Term):
    """One distillation term over lists: what to draw, what is taught, how to compare, how much it weighs."""

    kind: Literal["list"] = "list"
    side: Literal["users", "items"] = "users"
    """users: items are compared for a user; items: users for an item (labels.item_depth)."""
    teacher: Literal["labels", "partner", "student"] = "labels"
    """Who teaches whom: the label store the student, the partner that learns beside it the student, or the student the
    partner."""
    draw: Annotated[tuple[Draw, ...], Field(min_length=1)]
    target: tuple[Target, ...] = ()
    loss: ListLoss
    # One that is not used leaves the name of a result as it was before there were any.
    signal: Annotated[Signal | None, Field(exclude_if=lambda signal: signal is None)] = None
    """What a row counts, or at which temperature it is compared, as the student and the teacher stand to it; left out,
    all rows alike."""
    exit: Annotated[bool, Field(exclude_if=lambda early: not early)] = False
    """The student's last hidden layer is compared, against the item vectors that serve: a tower that may end early."""
    head: Auxiliary | None = None
    """Left out, the scores that serve are compared."""
    compat: Literal["mean", "sum"] = "mean"
    """sum: over a list's items and a step's users, divided by the interactions of the batch, as papers that sum both
    losses have it."""


class AlignTermSpec(_Term):
    """One distillation term over vectors: the student's, adapted, against the teacher's (labels.vectors)."""

    kind: Literal["align"] = "align"
    sides: Annotated[tuple[Literal["users", "items"], ...], Field(min_length=1)] = ("users", "items")
    loss: AlignLoss
    filter: Filter | None = None
    preserve: Preserve | None = None


class GatesTermSpec(_Term):
    """The student looks where the teacher looks: at the items of a history that move its confidence.

    2 - 2 cos of both gradients, by gates on the history's items, of the chance of the list's first item among the whole
    list (labels.gates; Wang, Li and Sun, Gradient knowledge distillation, ENLSP at NeurIPS 2022).
    """

    kind: Literal["gates"] = "gates"


def trusts(term: ListTermSpec) -> bool:
    """Say whether a term asks how far the teacher is to be trusted with each user."""
    blended = any(t.kind == "blend" and t.teacher == "reliable" for t in term.target)
    return blended or (term.signal is not None and term.signal.kind == "reliability")


TermSpec = Annotated[ListTermSpec | AlignTermSpec | GatesTermSpec, Field(discriminator="kind")]
