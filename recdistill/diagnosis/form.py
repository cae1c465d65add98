"""The form of diagnosis.json: what was measured of a finished distillation, as one frozen value of plain numbers.

A number that could not be measured is null. A writer may add parts and keys, such as a grid over noise in the log; one
that changes the meaning of a key raises `DIAGNOSIS_VERSION`, and older readers then refuse the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from recdistill.errors import ArtifactError

DIAGNOSIS_VERSION = 1
Number = float | None
AGAIN = "make the diagnosis again with `recdistill diagnose`"


class Part(BaseModel):
    """The base of every part of a diagnosis."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


Some = TypeVar("Some", bound=Part)


def make(kind: type[Some], **values: Any) -> Some:
    """Return a part of `kind` with `values`; what is not finite is null."""
    return kind.model_validate(plain(values))


class Agreement(Part):
    """How far a model does what the teacher does, on the histories of one part: means over users."""

    part: str  # train, held-out, augmented
    model: str
    top: Number  # share of users whose first item is the teacher's
    overlap: Number  # share of the first k that both have
    rbo: Number
    kl: Number = None  # in nats, of the teacher's chances from the model's; null where there are no scores


class Control(Part):
    """A student of a teacher that lacks something, and the share of the gain that it has all the same."""

    control: str
    lacks: str
    factor: float = 1.0  # of its terms' weights
    gain: Number  # of the distilled student over scratch
    gain_low: Number = None
    gain_high: Number = None
    value: Number  # of the control over scratch
    low: Number = None
    high: Number = None
    share: Number = None
    share_low: Number = None
    share_high: Number = None


class Bucket(Part):
    """One group of users on one group of items, both counted from 0, the least active and the least popular."""

    activity: int
    popularity: int
    users: int
    student: Number
    teacher: Number
    scratch: Number
    difference: Number  # student - scratch
    low: Number = None
    high: Number = None


class Shown(Part):
    """What a model's lists show, whoever they are for."""

    model: str
    popularity: Number
    coverage: Number
    tail_recall: Number


class Bin(Part):
    """Pairs that were given about the same chance, and how often they came true."""

    chance: float
    observed: float
    pairs: int


class Reliability(Part):
    """How far a model's chances can be relied on."""

    model: str
    ece: Number
    nll: Number
    temperature: Number  # by which its scores should be divided to be right on the whole
    bins: list[Bin] = []


class Traded(Part):
    """One student between precision and recall; `teacher_temperature` is that of what it was taught."""

    model: str
    teacher_temperature: Number = None
    relevance: Number
    teacher_chance: Number = None
    likelihood: Number = None
    coverage: Number = None
    tail_recall: Number = None


class Exaggeration(Part):
    """The line of a model's log-odds of the teacher's first item on the teacher's."""

    part: str
    model: str
    slope: Number
    intercept: Number
    unsure: Number  # slope among the tenth of users of whom the teacher is the least sure
    users: int


class Direction(Part):
    """One of the teacher's directions, counted from 1, and what a model makes of it."""

    model: str
    direction: int
    teacher: Number  # share of the teacher's energy
    residual: Number  # share of the energy of what is apart
    gain: Number  # the model's scores on the teacher's along it
    popularity: Number  # correlation of its loadings with log(1 + count)


class Variance(Part):
    """How much gradient noise the teacher can take away from a student."""

    model: str
    rho2: Number
    best: Number
    ratios: dict[str, Number] = {}  # weight -> noise over that without a teacher
    users: int


class Rise(Part):
    """What noise of relative size `rho` in every vector costs, in nats."""

    model: str
    rho: float
    rise: Number
    error: Number = None
    loss: Number = None  # without noise


class Inherited(Part):
    """How much more the student agrees with the teacher than its scratch twin does."""

    what: str
    note: str = ""  # what counts as agreement, where the name does not say it
    index: Number
    low: Number = None
    high: Number = None
    student: Number
    independent: Number
    users: int


class Robust(Part):
    """What distillation gains where the training part is spoilt, of all models; quality is on the clean test part."""

    spoil: str  # clean, noise or imbalance
    fraction: float  # of each user's interactions that are noise, or of the tail's that are gone
    teacher: Number
    scratch: Number
    student: Number
    gain: Number  # student - scratch
    low: Number = None
    high: Number = None
    least: Number = None  # of one seed
    most: Number = None
    change: Number = None  # of the gain, from that of the clean log
    change_low: Number = None
    change_high: Number = None
    tail_teacher: Number = None
    tail_scratch: Number = None
    tail_student: Number = None


class Diagnosis(Part):
    """The whole diagnosis."""

    schema_version: int = DIAGNOSIS_VERSION
    metric: str
    k: int
    users: int  # whose lists are compared
    scored: int  # of them, whose scores of the whole catalogue are
    seeds: int
    groups: tuple[int, int] = (3, 3)
    agreement: list[Agreement] = []
    controls: list[Control] = []
    tuned: list[float] = [1.0]  # times the terms' weights, of which each control had the best on validation
    uncontrolled: list[str] = []  # controls that are missing, each with why
    buckets: list[Bucket] = []
    worst: Bucket | None = None
    shown: list[Shown] = []
    reliability: list[Reliability] = []
    frontier: list[Traded] = []
    slopes: list[Exaggeration] = []
    directions: list[Direction] = []
    variance: list[Variance] = []
    flatness: list[Rise] = []
    inherited: list[Inherited] = []
    robustness: list[Robust] = []
    notes: list[str] = []  # what could not be measured, and why


def read(found: Mapping[str, Any], *, where: str = "diagnosis") -> Diagnosis:
    """Return what `found` holds as a Diagnosis; raises ArtifactError if it is none, or of a newer version."""
    version = found.get("schema_version")
    if isinstance(version, int) and version > DIAGNOSIS_VERSION:
        what = f"written in diagnosis schema {version}; this version reads up to {DIAGNOSIS_VERSION}"
        raise ArtifactError(what, where=where, fix="upgrade recdistill, or make the diagnosis again")
    try:
        return Diagnosis.model_validate(plain(found))
    except ValidationError as cause:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in cause.errors()[:5])
        raise ArtifactError(f"not a diagnosis: {wrong}", where=where, fix=AGAIN) from cause


def plain(value: Any) -> Any:
    """Return `value` as JSON values: what is not finite is null."""
    if isinstance(value, BaseModel):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # a NumPy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
