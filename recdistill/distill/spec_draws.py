"""What a user writes about draws: which items a term compares."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recdistill.spec import Spec

Source = Literal["labels", "student", "vectors", "trajectory"]
"""What a draw reads beside the teacher's lists: the student's own, or what the label store keeps on request."""


class Top(Spec):
    """The first `k` items of the teacher's list."""

    reads: ClassVar[tuple[Source, ...]] = ("labels",)
    kind: Literal["top"] = "top"
    k: PositiveInt


class Ranked(Spec):
    """`k` items of the list without replacement, with probability falling as exp(-(rank + 1) / temperature)."""

    reads: ClassVar[tuple[Source, ...]] = ("labels",)
    kind: Literal["ranked"] = "ranked"
    k: PositiveInt
    temperature: PositiveFloat = 10.0


class Unseen(Spec):
    """`n` uniform items that are neither the user's own nor in the teacher's list."""

    reads: ClassVar[tuple[Source, ...]] = ("labels",)
    kind: Literal["unseen"] = "unseen"
    n: PositiveInt


class Rest(Spec):
    """All items that are neither the user's own nor in the list, as one: what the student gives them is summed up."""

    reads: ClassVar[tuple[Source, ...]] = ("labels",)
    kind: Literal["rest"] = "rest"


class Own(Spec):
    """`n` of what the user took in training, each as likely: for targets, losses and signals that ask what it took."""

    reads: ClassVar[tuple[Source, ...]] = ("vectors",)
    kind: Literal["own"] = "own"
    n: PositiveInt


class Whole(Spec):
    """Every item of the catalogue, scored by the teacher's vectors."""

    reads: ClassVar[tuple[Source, ...]] = ("vectors",)
    kind: Literal["whole"] = "whole"


class InBatch(Spec):
    """The items of the student's own batch: each row's positive and the first `n` of its negatives."""

    reads: ClassVar[tuple[Source, ...]] = ("vectors",)
    kind: Literal["in_batch"] = "in_batch"
    n: PositiveInt


class StudentTop(Spec):
    """The first `k` items of the student's own list."""

    reads: ClassVar[tuple[Source, ...]] = ("student",)
    kind: Literal["student_top"] = "student_top"
    k: PositiveInt


class StudentRanked(Spec):
    """`k` items of the student's own list, with probability falling as exp(-(rank + 1) / temperature)."""

    reads: ClassVar[tuple[Source, ...]] = ("student",)
    kind: Literal["student_ranked"] = "student_ranked"
    k: PositiveInt
    temperature: PositiveFloat = 20.0


class RankGap(Spec):
    """`k` items that teacher and student rank differently, probability tanh(gap / temperature), never below 1e-5.

    `under`: of the teacher's list, what the student puts lower; `over`: of the student's, what the teacher puts lower.
    """

    reads: ClassVar[tuple[Source, ...]] = ("labels", "student")
    kind: Literal["rank_gap"] = "rank_gap"
    k: PositiveInt
    side: Literal["under", "over"]
    temperature: PositiveFloat = 10.0


class Closure(Spec):
    """The student's first `k`; then `n` items it ranks above what the teacher wants, with the teacher's first `k`.

    `n` are drawn with weight exp((z + 1) / temperature), z of the teacher's first `k` standing below the item in the
    student's list. The share of the second list is exp(-beta * the part of the teacher's first `k` it caught).
    """

    reads: ClassVar[tuple[Source, ...]] = ("labels", "student", "vectors")
    kind: Literal["closure"] = "closure"
    k: PositiveInt
    n: PositiveInt
    temperature: PositiveFloat = 10.0
    beta: Annotated[float, Field(ge=0)] = 3.0


class Pairs(Spec):
    """In each of `groups` popularity groups of equal mass, `n` pairs of the teacher's list, the better one first.

    Both places are drawn with probability falling as exp(-rank in the group / temperature).
    """

    reads: ClassVar[tuple[Source, ...]] = ("labels",)
    kind: Literal["pairs"] = "pairs"
    n: PositiveInt
    groups: PositiveInt = 4
    temperature: PositiveFloat = 20.0


class Trajectory(Spec):
    """The first `k` of the lists of several teachers, each at the moment of its training the student is ready for.

    At every `every`-th refresh (student.guide) a user's place moves on in a teacher's training when the student's list
    agrees with the next moment about as well as with this one: D(now) / D(next) > alpha * decay^moves, D = 1 - NDCG@k.
    """

    reads: ClassVar[tuple[Source, ...]] = ("student", "trajectory")
    kind: Literal["trajectory"] = "trajectory"
    k: PositiveInt
    every: PositiveInt = 10
    """Refreshes of the student's lists."""
    alpha: PositiveFloat = 1.05
    decay: PositiveFloat = 0.995


Draw = Annotated[
    Top
    | Ranked
    | Unseen
    | Rest
    | Own
    | Whole
    | InBatch
    | StudentTop
    | StudentRanked
    | RankGap
    | Closure
    | Pairs
    | Trajectory,
    Field(discriminator="kind"),
]
