"""What a user writes about a model and its training; free of torch, so that checking a file is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recdistill.spec import Spec
from recdistill.types import Artifact

Dim = Annotated[int, Field(gt=0, multiple_of=4)]  # the embedding kernels read four numbers at a time


class MFSpec(Spec):
    """Matrix factorisation: one vector a user, one an item."""

    kind: Literal["mf"] = "mf"
    dim: Dim
    space: Literal["cosine", "dot"] = "cosine"
    temperature: PositiveFloat = 0.1
    """Scores are divided by it; of use in cosine space, where they lie between -1 and 1."""


class TwoTowerSpec(Spec):
    """An encoder whose user side reads the id and the pooled history, so that it serves users it never met."""

    kind: Literal["two_tower"] = "two_tower"
    dim: Dim
    hidden: tuple[PositiveInt, ...] = ()
    """Widths of the user side's hidden layers; none adds the id vector to the history's mean."""
    history: PositiveInt = 50
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of training rows whose user id is hidden, which is what teaches the model to serve from history."""
    space: Literal["cosine", "dot"] = "cosine"
    temperature: PositiveFloat = 0.1


class LightGCNSpec(Spec):
    """Matrix factorisation whose vectors are smoothed over the graph of who took what (He et al., SIGIR 2020)."""

    kind: Literal["lightgcn"] = "lightgcn"
    dim: Dim
    layers: PositiveInt = 2
    """Steps over the graph; a vector is the mean of its own and each step's."""
    space: Literal["cosine", "dot"] = "cosine"
    temperature: PositiveFloat = 0.1


class RankerSpec(Spec):
    """The ranking teacher: features of both sides, candidate attention over the history, crosses, an MLP."""

    kind: Literal["ranker"] = "ranker"
    dim: Dim = 32
    cross_layers: Annotated[int, Field(ge=0)] = 2
    hidden: tuple[PositiveInt, ...] = (128, 64)
    history: PositiveInt = 50
    heads: PositiveInt = 4
    """Of the attention over the history; they divide `dim`."""


class ExternalSpec(Spec):
    """Another team's teacher: a Parquet file of (user_id, item_id, score)."""

    kind: Literal["external"] = "external"
    path: str
    user: str = "user_id"
    item: str = "item_id"
    score: str = "score"


class TrainSpec(Spec):
    """How a model is fitted; the same for teacher, scratch and student."""

    epochs: PositiveInt
    batch: PositiveInt = 4096
    loss: Literal["softmax", "bpr"] = "softmax"
    negatives: PositiveInt = 256
    """softmax: items shared by the batch (the whole catalogue if it is not larger); bpr and ranker: each row's own."""
    lr: PositiveFloat = 0.1
    """Of the embedding tables, whose optimizer runs fused in the backward pass."""
    dense_lr: PositiveFloat = 1e-3
    """Of every other parameter (Adam)."""
    optimizer: Literal["rowwise_adagrad", "adagrad", "sgd"] = "rowwise_adagrad"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of the table rows a step touches."""
    list_users: PositiveInt = 1024
    """Users a step whose teacher lists are compared; read only where there is distillation."""
    evaluate_every: PositiveInt = 1
    """Epochs between validations."""
    patience: Annotated[int, Field(ge=0)] = 5
    """Validations without a gain before stopping; 0 never stops early."""
    seed: int = 1


Encoder = Annotated[MFSpec | TwoTowerSpec, Field(discriminator="kind")]
AnyTeacher = Annotated[MFSpec | TwoTowerSpec | LightGCNSpec | RankerSpec | ExternalSpec, Field(discriminator="kind")]


class TeacherSpec(Spec):
    """The teacher; `train` is left out for an external one."""

    model: AnyTeacher
    train: TrainSpec | None = None


class StudentSpec(Spec):
    """The student; a scratch twin, same in all but the distillation, is always trained beside it."""

    model: Encoder
    train: TrainSpec
    seeds: tuple[int, ...] = ()
    """Seeds to train, instead of `train.seed` alone; the first is served, the others give the spread."""

    @property
    def all_seeds(self) -> tuple[int, ...]:
        return self.seeds or (self.train.seed,)


ModelSpec = MFSpec | TwoTowerSpec | LightGCNSpec | RankerSpec


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model and what it was made from, so that a later stage can load it."""

    spec: ModelSpec
    artifact: Artifact
