"""What a user writes about how a teacher is made of trained models, and the value that flows; free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recdistill.distill.spec import ListTermSpec
from recdistill.models.spec import AnyTeacher, ExternalSpec, Fitted, ModelSpec, TrainSpec
from recdistill.models.spec_warm import WarmSpec
from recdistill.spec import Spec
from recdistill.types import Artifact

Terms = Annotated[tuple[ListTermSpec, ...], Field(min_length=1)]


class MemberSpec(Spec):
    """One more model beside the teacher's own."""

    model: Annotated[ModelSpec, Field(discriminator="kind")]
    train: TrainSpec


class Checkpoints(Spec):
    """Snapshots of the one training, one at each validation, added one by one while the mixture gains from it."""

    kind: Literal["checkpoints"] = "checkpoints"
    most: PositiveInt = 3
    """Snapshots to mix; every one costs a scoring. All of the training's are kept on disk."""


class Seeds(Spec):
    """The same training from several seeds, each as likely to be right."""

    kind: Literal["seeds"] = "seeds"
    seeds: Annotated[tuple[int, ...], Field(min_length=2)]
    """Instead of `teacher.train.seed`."""


class Assistants(Spec):
    """Models that learn from the teacher's labels and teach in its place, weighted to explain what is held out."""

    kind: Literal["assistants"] = "assistants"
    models: Annotated[tuple[MemberSpec, ...], Field(min_length=1)]
    terms: Terms
    """What they learn from the labels, as in `distill`."""


class Generations(Spec):
    """The teacher, and the same model trained again on the labels of the generation before; the best of them."""

    kind: Literal["self"] = "self"
    generations: PositiveInt = 1
    """After the first, which learns from no labels."""
    terms: Terms
    """What a generation learns from the labels of the one before, as in `distill`."""


class Pool(Spec):
    """The teacher and other models, each for the users whom it serves best."""

    kind: Literal["pool"] = "pool"
    members: Annotated[tuple[MemberSpec, ...], Field(min_length=1)]
    """Beside `teacher.model`."""
    segments: PositiveInt = 3
    """Groups of as many users each, by how much they did in training; each has one member of the pool."""


class Delta(Spec):
    """What yesterday's student said, moved as the teacher moved since: labels are of scores s + alpha (t_today - t).

    Who is new is scored by today's teacher. It needs `yesterday`, and a teacher of one encoder.
    """

    kind: Literal["delta"] = "delta"
    alpha: PositiveFloat = 1.0


Recipe = Annotated[Checkpoints | Seeds | Assistants | Generations | Pool | Delta, Field(discriminator="kind")]


class TeacherSpec(Spec):
    """The teacher; `train` is left out for an external one."""

    model: AnyTeacher
    train: TrainSpec | None = None
    recipe: Recipe | None = None
    """How several trainings make one teacher; left out, there is one training."""
    folds: Annotated[int, Field(ge=0, le=127)] = 0
    """Trainings that each lack another part of the interactions, so that every one of those has a teacher that did
    not learn from it; 0 for none, else 2 or more."""
    start: Literal["random", "yesterday"] = Field(default="random", exclude_if=lambda start: start == "random")
    """What the tables begin with; yesterday: where those of the day before ended, and who is new at random."""
    warm: WarmSpec | None = Field(default=None, exclude_if=lambda warm: warm is None)
    """What changes in `train` when they begin with yesterday's."""

    def trained(self) -> Iterator[tuple[tuple[int | str, ...], ModelSpec, TrainSpec]]:
        """Yield where each model that is trained stands below `teacher`, the model, and its training."""
        if not isinstance(self.model, ExternalSpec) and self.train is not None:
            yield (), self.model, self.train
        further = {"assistants": "models", "pool": "members"}.get(self.recipe.kind, "") if self.recipe else ""
        for i, member in enumerate(getattr(self.recipe, further, ())):
            yield ("recipe", further, i), member.model, member.train

    @property
    def moves(self) -> bool:
        """Say whether it could begin where yesterday's ended: it is one training of tables over ids alone."""
        alone = (self.recipe is None or isinstance(self.recipe, Delta)) and not self.folds
        return alone and self.train is not None and self.model.kind in ("mf", "two_tower", "lightgcn", "sequence")

    @property
    def first(self) -> TrainSpec | None:
        """Return how the teacher's own model is trained, where it is."""
        if self.train is None or self.warm is None or self.start == "random":
            return self.train
        return self.train.model_copy(update=self.warm.changes)

    @property
    def terms(self) -> tuple[ListTermSpec, ...]:
        """What models of the recipe learn from labels of the teacher itself."""
        return self.recipe.terms if isinstance(self.recipe, Assistants | Generations) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Whoever writes the labels: trained models or somebody else's file, and the artifact that says how they mix.

    With folds, `models` holds those of the first member, one that lacks each fold in turn, then those of the next.
    """

    models: tuple[Fitted, ...] = ()
    external: ExternalSpec | None = None
    folds: int = 0
    recipe: Artifact | None = None  # none for a single model, or a file, whose scores are taken as they are

    @property
    def kind(self) -> str:
        """Return what the labels call it."""
        return self.models[0].spec.kind if self.models else "external"

    @property
    def ranks(self) -> bool:
        """Say whether some of it scores pairs, which costs more than the product of two vectors."""
        return any(model.spec.kind == "ranker" for model in self.models)

    @property
    def fingerprint(self) -> str | None:
        """Return that of what says it all; none of a file, which is not an artifact."""
        if self.recipe is not None:
            return self.recipe.fingerprint
        return self.models[0].artifact.fingerprint if self.models else None
