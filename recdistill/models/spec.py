"""What a user writes about a model and its training; free of torch, so that checking a file is quick."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from recdistill.distill.spec_subclass import Subclasses
from recdistill.models.spec_stages import GuideSpec, LadderSpec, SelectSpec, StageSpec
from recdistill.models.spec_warm import WarmSpec
from recdistill.spec import Spec
from recdistill.types import Artifact

Dim = Annotated[int, Field(gt=0, multiple_of=4)]  # the embedding kernels read four numbers at a time


class RowsSpec(Spec):
    """Fewer rows than ids, of a table that would be too large while it is trained.

    The ids that were seen most often keep a row each; the others share a tenth of the rows.
    """

    users: PositiveInt | None = None
    """Rows of the users' table; left out, one a user."""
    items: PositiveInt | None = None
    """Rows of the items' table; left out, one an item."""


def _unsaid(value: object) -> bool:
    return value is None


def _rising(widths: tuple[int, ...], dim: int) -> None:
    if any(wide <= narrow for narrow, wide in pairwise((0, *widths, dim))):
        raise ValueError(f"nested is {', '.join(map(str, widths))}: widths rise, and stay below dim, which is {dim}")


Rounding = Literal["fp32", "int8", "int4"]


class MFSpec(Spec):
    """Matrix factorisation: one vector a user, one an item."""

    kind: Literal["mf"] = "mf"
    dim: Dim
    space: Literal["cosine", "dot"] = "cosine"
    temperature: PositiveFloat = 0.1
    """Scores are divided by it; of use in cosine space, where they lie between -1 and 1."""
    nested: tuple[PositiveInt, ...] = Field(default=(), exclude_if=lambda widths: not widths)
    """Rising widths below `dim`: the first numbers of the vectors, so many, are trained to be students of their own."""
    rounding: Rounding = Field(default="fp32", exclude_if=lambda kind: kind == "fp32")
    """As what an item's numbers are served, which training then knows: int8 and int4 as in an index of SQ8 and SQ4,
    with rows of users as in index.tables int8."""
    rows: RowsSpec | None = Field(default=None, exclude_if=_unsaid)
    """How many rows the tables may have in training; left out, one an id."""

    @model_validator(mode="after")
    def _widths_rise(self) -> MFSpec:
        _rising(self.nested, self.dim)
        return self


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
    nested: tuple[PositiveInt, ...] = Field(default=(), exclude_if=lambda widths: not widths)
    """Rising widths below `dim`: the first numbers of the vectors, so many, are trained to be students of their own."""
    rounding: Rounding = Field(default="fp32", exclude_if=lambda kind: kind == "fp32")
    """As what an item's numbers are served, which training then knows: int8 and int4 as in an index of SQ8 and SQ4,
    with rows of users as in index.tables int8."""
    rows: RowsSpec | None = Field(default=None, exclude_if=_unsaid)
    """How many rows the tables may have in training; left out, one an id."""

    @model_validator(mode="after")
    def _widths_rise(self) -> TwoTowerSpec:
        _rising(self.nested, self.dim)
        return self


class LightGCNSpec(Spec):
    """Matrix factorisation whose vectors are smoothed over the graph of who took what (He et al., SIGIR 2020)."""

    kind: Literal["lightgcn"] = "lightgcn"
    dim: Dim
    layers: PositiveInt = 2
    """Steps over the graph; a vector is the mean of its own and each step's."""
    space: Literal["cosine", "dot"] = "cosine"
    temperature: PositiveFloat = 0.1
    popularity: Annotated[float, Field(ge=0)] = 0.0
    """How much of an item's log popularity its score has from the start; the vectors learn what that does not say."""


class SequenceSpec(Spec):
    """A causal encoder: attention over the past items by their place and time (SASRec, HSTU), and the user's vector.

    A row of its training is a window of a user's sequence, which teaches what comes after each of its items:
    `train.batch` counts windows, and an epoch goes through every interaction but a user's first.
    """

    kind: Literal["sequence"] = "sequence"
    dim: Dim
    layers: PositiveInt = 2
    heads: PositiveInt = 2
    """Of the attention; they divide `dim`."""
    history: PositiveInt = 50
    """Items it reads, and places of a window."""
    item_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of past items that each step of training hides."""
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of training windows whose user id is hidden, which is what teaches the model to serve from history."""
    space: Literal["cosine", "dot"] = "cosine"
    temperature: PositiveFloat = 0.2


class TaskSpec(Spec):
    """A further head of the ranker: the chance that an interaction is of one event, or of at least some weight."""

    event: str | None = None
    min_weight: float | None = None
    loss: PositiveFloat = 0.1
    """Weight of the head's cross-entropy beside the ranking loss."""
    score: Annotated[float, Field(ge=0)] = 0.0
    """Exponent of the chance in the score: 1 ranks by P(interaction) P(task given interaction); 0 only trains."""

    @model_validator(mode="after")
    def _one_of_them(self) -> TaskSpec:
        if (self.event is None) == (self.min_weight is None):
            raise ValueError("give either event or min_weight: what the head is to predict of an interaction")
        return self


class RankerSpec(Spec):
    """The ranking teacher: features of both sides, candidate attention over the history, crosses, an MLP."""

    kind: Literal["ranker"] = "ranker"
    dim: Dim = 32
    cross_layers: Annotated[int, Field(ge=0)] = 2
    cross_rank: PositiveInt = 32
    """Of the crosses' matrices, each a product of two thin ones."""
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (128, 64)
    history: PositiveInt = 50
    heads: PositiveInt = 4
    """Of the attention over the history; they divide `dim`."""
    time: bool = True
    """Read the time of the history where the log has it: hour, weekday, date, pace, and the age of each past item."""
    tasks: dict[str, TaskSpec] = Field(default_factory=dict)
    """Further heads, by name; they need log.event or log.weight."""


class ExternalSpec(Spec):
    """Another team's teacher: a Parquet file of (user_id, item_id, score)."""

    kind: Literal["external"] = "external"
    path: str
    user: str = "user_id"
    item: str = "item_id"
    score: str = "score"
    space: Literal["logit", "probability", "rank"] = "logit"
    """What a score means: its differences in a list, the chance that the user takes the item, or only the order, by
    ranks of which smaller is better."""


class TrainSpec(Spec):
    """How a model is fitted; the same for teacher, scratch and student."""

    epochs: PositiveInt
    batch: PositiveInt = 4096
    """Interactions a step; windows of `history` interactions where the model is a sequence encoder."""
    loss: Literal["softmax", "bpr"] = "softmax"
    negatives: PositiveInt = 256
    """softmax: items shared by the batch (the whole catalogue if it is not larger); bpr and ranker: each row's own."""
    lr: PositiveFloat = 0.1
    """Of the embedding tables, whose optimizer runs fused in the backward pass."""
    dense_lr: PositiveFloat = 1e-3
    """Of every other parameter (Adam)."""
    decay: Literal["none", "cosine"] = "none"
    """Of the learning rates over `epochs`: none keeps them, cosine takes them to 0 along half a wave."""
    optimizer: Literal["rowwise_adagrad", "adagrad", "sgd", "adam"] = "rowwise_adagrad"
    """Of the tables. adam moves every row in every step, looked up or not, as research code does, and decays through
    its gradient: for small tables, which then lie whole on every process (exec.tables data_parallel)."""
    compute: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the dense layers' products; tables, losses and the optimizers' sums are float32 in both."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of the tables: every step takes `lr` times it from every row, looked up or not; its cost is that of the table.
    With adam it is added to the gradient instead (L2)."""
    list_users: PositiveInt = 1024
    """Users a step whose teacher lists are compared; read only where there is distillation."""
    evaluate_every: PositiveInt = 1
    """Epochs between validations."""
    patience: Annotated[int, Field(ge=0)] = 5
    """Validations without a gain before stopping; 0 never stops early."""
    seed: int = 1
    # One that is not used leaves the name of a training as it was before there were any.
    subclasses: Annotated[Subclasses | None, Field(exclude_if=lambda classes: classes is None)] = None
    """Of a teacher: sub-logits that it trains beside its own loss, for terms of loss subclass_kl."""


Encoder = Annotated[MFSpec | TwoTowerSpec, Field(discriminator="kind")]
AnyTeacher = Annotated[
    MFSpec | TwoTowerSpec | LightGCNSpec | SequenceSpec | RankerSpec | ExternalSpec, Field(discriminator="kind")
]


Partner = Annotated[MFSpec | TwoTowerSpec | LightGCNSpec | RankerSpec, Field(discriminator="kind")]


class StudentSpec(Spec):
    """The student; a scratch twin, same in all but the distillation, is always trained beside it."""

    model: Encoder
    train: TrainSpec
    seeds: tuple[int, ...] = ()
    """Seeds to train, instead of `train.seed` alone; the first is served, the others give the spread."""
    task: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the student's own loss beside what it is taught; the scratch twin has nothing else."""
    start: Literal["random", "teacher", "yesterday"] = "random"
    """What the tables begin with; teacher: the dimensions in which the teacher's scores vary most, for an mf in dot
    space; yesterday: where the student of the day before ended. The scratch twin begins at random."""
    warm: WarmSpec | None = Field(default=None, exclude_if=_unsaid)
    """What changes in `train` when the tables begin with yesterday's; the scratch twin is trained as ever."""
    items: Literal["learned", "folded"] = "learned"
    """folded: what serves are the teacher's own items, cut to the student's width by the map from its users to the
    teacher's; for an mf in dot space."""
    axes: Literal["own", "yesterday"] = Field(default="own", exclude_if=lambda axes: axes == "own")
    """yesterday: what serves is turned, by a rotation that changes no score, to where its vectors are nearest to
    yesterday's, so that vectors that were cached then can be compared with today's."""
    stages: tuple[StageSpec, ...] = ()
    """The first parts of the training, one after another; after them everything learns. Terms have their own phase."""
    select: SelectSpec | None = None
    """Left out, every term counts all the time."""
    ladder: LadderSpec | None = None
    """Left out, the lists of all users are compared, all the time."""
    guide: GuideSpec = GuideSpec()
    partner: Partner | None = None
    """A model that learns the same task in the same steps, and that terms of `teacher: partner` listen to."""

    @property
    def all_seeds(self) -> tuple[int, ...]:
        return self.seeds or (self.train.seed,)

    def taught(self, train: TrainSpec) -> TrainSpec:
        """Return how it is trained, where its scratch twin is trained as `train` says."""
        warm = self.warm if self.start == "yesterday" else None
        return train if warm is None else train.model_copy(update=warm.changes)

    @property
    def remembers(self) -> bool:
        """Say whether it is trained or served by what the day before left."""
        return "yesterday" in (self.start, self.axes)

    @property
    def widths(self) -> tuple[int, ...]:
        """Return at which widths, below its own, the student is one already."""
        grown = tuple(stage.width for stage in self.stages if stage.width and stage.width < self.model.dim)
        return grown or self.model.nested


ModelSpec = MFSpec | TwoTowerSpec | LightGCNSpec | SequenceSpec | RankerSpec


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model and what it was made from, so that a later stage can load it."""

    spec: ModelSpec
    artifact: Artifact


def settings_of(student: StudentSpec) -> dict[str, Any]:
    """Return with what else than its model and its `train` a distilled student is trained, by name.

    A setting that came later is named only where it is used, so that what was made before keeps its name.
    """
    known = {"task": student.task, "guide": student.guide, "partner": student.partner}
    plain = {"start": "random", "items": "learned", "axes": "own", "stages": (), "select": None, "ladder": None}
    return known | {name: getattr(student, name) for name, value in plain.items() if getattr(student, name) != value}
