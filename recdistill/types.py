"""The frozen values that pass between stages.

Legend: `U` users, `I` items, `B` batch, `N` negatives, `K` candidates, `L` history, `D` dimension.
`user_id` and `item_id` are the caller's own values; `user` and `item` are dense rows, int64, never through float.
Times are int64 microseconds since 1970 (UTC).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.errors import ArtifactError

if TYPE_CHECKING:  # the data stages run without torch, whose import alone takes a second
    from torch import Tensor

Int = NDArray[np.int64]
Float = NDArray[np.float32]
Space = Literal["dot", "cosine"]
Log = Callable[[str, int, int, Mapping[str, float]], None]
"""Progress leaves a stage through `log(what, done, total, values)`."""


def quiet(what: str, done: int, total: int, values: Mapping[str, float]) -> None:
    """Swallow progress: the default where nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interactions:
    """Who took what, as CSR: user `u` took `items[indptr[u]:indptr[u+1]]`, by time, then item.

    Weights and events are those of the one row that ingest kept of each (user, item).
    """

    indptr: Int  # [U+1]
    items: Int  # [n]
    times: Int | None = None  # [n]
    weights: Float | None = None  # [n] where the log names a column of weights
    events: NDArray[np.int16] | None = None  # [n] codes into Dataset.events, -1 where the row names none
    owners: Int | None = None  # [n] the user of each, where a file has them: then `users` costs no memory

    @property
    def num_users(self) -> int:
        return len(self.indptr) - 1

    def __len__(self) -> int:
        return len(self.items)

    def users(self) -> Int:
        """Return the user of every interaction, [n]; it may be a view of a file, not to be written to."""
        if self.owners is not None:
            return self.owners
        return np.repeat(np.arange(self.num_users, dtype=np.int64), np.diff(self.indptr))


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic:
    """Histories that nobody had, as rows of a log of their own, and whom they come from."""

    interactions: Interactions  # row s is history s, by time, then item
    parents: Int  # [S,2] users whose items are in it; the second is -1 where there is but one
    mu: NDArray[np.float64]  # [S] the share of the first parent, 1 where there is but one

    def __len__(self) -> int:
        return len(self.parents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The encoded feature columns of one side; code 0 means missing or unknown."""

    sizes: Mapping[str, int] = field(default_factory=dict)  # codes of each column below that has them, 0 included
    categorical: Mapping[str, Int] = field(default_factory=dict)  # name -> codes [rows]
    multi: Mapping[str, tuple[Int, Int]] = field(default_factory=dict)  # name -> (offsets [rows+1], codes); hashed too
    numeric: Mapping[str, Float] = field(default_factory=dict)  # name -> standardised values [rows], missing 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A split log over dense rows, with the caller's ids and encoded features."""

    user_ids: pl.Series  # [U]
    item_ids: pl.Series  # [I]
    train: Interactions
    valid: Interactions
    test: Interactions
    user_features: Features = Features()
    item_features: Features = Features()
    events: tuple[str, ...] = ()  # what the codes of Interactions.events mean, in order of their text

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """How an encoder leaves training: one vector a row; a score is their inner product in either space."""

    users: Float  # [U,D]
    items: Float  # [I,D]
    space: Space = "dot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """A teacher's ranked lists, memory-mapped shard by shard; user `u` is row `u % per_shard` of its shard.

    Items stand in teacher order, scores fall; a list that is shorter ends in item -1, score -inf.
    """

    items: tuple[NDArray[np.int32], ...]  # each [<= per_shard,K]
    scores: tuple[NDArray[Any], ...]  # each [<= per_shard,K], f32 or f16
    residual: tuple[Float, ...]  # each [<= per_shard], logsumexp of the teacher's scores outside the list
    per_shard: int
    facts: Mapping[str, Any]  # teacher, score space, coverage: see labels.py
    # What not every teacher gives: logq and fold, each [<= per_shard,K]; rest_items, rest_scores, rest_logq, each
    # [<= per_shard,R]. See `Lists` in labels.py.
    extra: Mapping[str, tuple[NDArray[Any], ...]] = field(default_factory=dict)
    vectors: Vectors | None = None  # of an encoder teacher, on request: their inner product is the score
    trust: Float | None = None  # [U], on request: how far each user is trusted to the teacher
    gates: Float | None = None  # [U,L], on request: how much each item of a history moves the teacher's confidence
    by_item: Labels | None = None  # on request: the users that the teacher ranks first for each item, as "items"
    subclasses: tuple[Float, Float] | None = None  # weights [2S,D] and biases [2S] of sub-logits of the vectors
    transfer: tuple[Labels, Synthetic] | None = None  # on request: lists of histories that nobody had, and these

    @property
    def depth(self) -> int:
        return int(self.items[0].shape[1])

    @property
    def num_users(self) -> int:
        return sum(len(shard) for shard in self.items)

    def take(self, users: Int) -> tuple[Int, Float]:
        """Return the lists of `users` [n]: items [n,K] int64 and scores [n,K]."""
        shard, row = np.divmod(users, self.per_shard)
        if len(self.items) == 1:
            return self.items[0][row].astype(np.int64), self.scores[0][row].astype(np.float32)
        items = np.empty((len(users), self.depth), dtype=np.int64)
        scores = np.empty((len(users), self.depth), dtype=np.float32)
        for s in np.unique(shard):
            at = shard == s
            items[at], scores[at] = self.items[s][row[at]], self.scores[s][row[at]]
        return items, scores

    def trajectory(self, users: Int) -> Int:
        """Return the lists along the trainings of the teacher's models, [n, models, moments, places]."""
        return self.column("trajectory", users).reshape(len(users), *self.facts["along"])

    def column(self, name: str, users: Int) -> NDArray[Any]:
        """Return the column `name` of `users` [n]: `residual` [n], or one of `extra` [n,K or R]; as f32 or int64.

        Raises ArtifactError if these labels do not have it.
        """
        shards = {"residual": self.residual, **self.extra}.get(name)
        if shards is None:
            fix = "write them again with a teacher, and labels settings, that give it"
            raise ArtifactError(f"these labels have no column {name}", where="labels", fix=fix)
        kind = np.float32 if shards[0].dtype.kind == "f" else np.int64
        found = np.empty((len(users), *shards[0].shape[1:]), dtype=kind)
        shard, row = np.divmod(users, self.per_shard)
        for s in np.unique(shard):
            found[shard == s] = shards[s][row[shard == s]]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The items one distillation term compares, for each of a step's `R` list users."""

    items: Tensor  # [R,K], -1 where there is none
    teacher: Tensor  # [R,K], -inf where the teacher's score is not known
    ranked: int  # the first `ranked` columns stand in teacher order; the rest are draws below the list
    logq: Tensor | None = None  # [R,K] log of how often each is expected among its row's draws
    gate: Tensor | None = None  # [R] share of the second of a draw's two lists
    taken: Tensor | None = None  # [R,K] which of them the row's user took
    parts: Tensor | None = None  # [R,K] the part of the list each is in, from 0
    subs: Tensor | None = None  # [R,K,2S] the teacher's sub-logits, see distill/subclass.py
    trust: Tensor | None = None  # [R] how far the teacher is to be trusted, in [0, 1]
    right: Tensor | None = None  # [R] whether the teacher was right of what was taken, before it was set right
    seen: tuple[Tensor, Tensor] | None = None  # rows and items that are none of the rest, where its last column is that


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a model may read of each user before it scores: the items, and when they were taken if the log says.

    The moment of a row is that of its latest item, in training as when lists are made, so nothing is read that a
    model would not know when it is asked.
    """

    items: Tensor  # [B,L], -1 where shorter, the latest last
    times: Tensor | None = None  # [B,L] microseconds, 0 where shorter; None where the log has none
    gates: Tensor | None = None  # [B,L] what the vectors of the items are multiplied by before they are added up

    def __len__(self) -> int:
        return len(self.items)

    def to(self, device: str) -> Past:
        """Return it on `device`."""
        times, gates = (None if part is None else part.to(device) for part in (self.times, self.gates))
        return Past(items=self.items.to(device), times=times, gates=gates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """The neighbours of a step's users and items in a graph, -1 where fewer, and the weight of each edge."""

    users: Tensor  # [R,k]
    user_weights: Tensor  # [R,k]
    items: Tensor  # [Q,k]
    item_weights: Tensor  # [Q,k]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a step's distillation terms compare, each by its name."""

    candidates: Mapping[str, Candidates] = field(default_factory=dict)
    features: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # teacher's vectors [R,Dt], [Q,Dt]
    kept: Mapping[str, Tensor] = field(default_factory=dict)  # teacher's vectors of the items in `candidates` [R*K,Dt]
    around: Mapping[str, Around] = field(default_factory=dict)
    items: Tensor | None = None  # [Q] items whose lists of users, or vectors, are compared
    gates: tuple[Tensor, Tensor] | None = None  # whole lists [R,K], and the teacher's gradients of gates [R,L]
    crowd: Tensor | None = None  # [n] users that lists of items name, list by list, then neighbours, term by term
    crowd_past: Past | None = None
    at: float = 0.0  # share of the training that is done
    curves: Mapping[str, float] = field(default_factory=dict)  # by term: how much it counts by now


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One rank's slice of the global batch that step `step` defines."""

    users: Tensor  # [B]
    step: int = 0
    positives: Tensor  # [B], or [B,L] with one after each place of the past, -1 where there is none
    negatives: Tensor  # [N] shared by the batch, or [B,N] of each row
    past: Past  # of each row
    count: float  # targets of the global batch, divided by the ranks: what a sum of losses is divided by
    tasks: Mapping[str, Tensor] = field(default_factory=dict)  # by head, [B]: what was declared of the positive
    list_users: Tensor  # [R] users whose teacher lists, or vectors, are compared, -1 of what is nobody's; or none
    list_past: Past  # of each of them
    lesson: Lesson = Lesson()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """What a manifest says of one file: its digest and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an artifact is, what it came from, and what it holds; written last, so its presence means whole."""

    format: int
    stage: str
    version: int
    fingerprint: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    files: Mapping[str, FileEntry]
    facts: Mapping[str, Any]  # what the stage wants others to read without opening its files
    env: Mapping[str, str]
    created_at: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One finished stage: an immutable directory."""

    path: Path
    manifest: Manifest
    hit: bool  # found, not built, by this run

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint
