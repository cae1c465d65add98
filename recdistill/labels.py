"""The label store: a teacher's ranked lists as Arrow IPC shards of fixed-size lists, memory-mapped, in user order.

    pl.read_ipc("labels/*.arrow")   one row a user: user, items [K], scores [K], residual; and, where the teacher has
                                    them, logq [K], rest_items [R], rest_scores [R], rest_logq [R], fold [K]
    labels/labels.json              which teacher, which score space, how deep, how much of the data is covered

Row `u` of the whole store is user `u`. Items are dense rows in teacher order, -1 (score -inf) where a list is
shorter. A shard is small enough to be made and written at once, holds one record batch, so that it is read without a
copy, and says in its metadata which labels and which teacher it belongs to: shards are made on several machines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recdistill.errors import ArtifactError, DataError, StageError
from recdistill.label_facts import REBUILD, read_facts
from recdistill.models.heads import read_head
from recdistill.store import aside
from recdistill.types import Float, Int, Interactions, Labels, Synthetic, Vectors
from recdistill.whole import sign

SHARD_BYTES = 100_000_000  # of a shard on disk; making it takes about three times as much memory
TRUST = "trust.npy"  # how far the teacher is to be trusted with each user, where the labels were asked for it
GATES = "gates.npy"  # how much each item of a history moves the teacher's confidence, likewise
BY_ITEM = "by_item"  # the store of lists of users, in that of lists of items
TRANSFER = "transfer"  # the store of lists of histories that nobody had, beside these histories
RELABEL = "delete this file and label its users again, or use the configuration and the data that it was made with"


class Lists(NamedTuple):
    """What a teacher says of `n` users: lists of K items, best first; -1, scored -inf, where there are fewer.

    `residual` is the logsumexp of the teacher's scores of everything outside the list: exact where it scored the whole
    catalogue, else estimated from what it scored. The rest is a uniform sample of what it scored outside the list.
    """

    items: Int  # [n,K]
    scores: Float  # [n,K]
    residual: Float  # [n]
    logq: Float | None = None  # [n,K] log-probability that the item was scored at all, 0 where that is certain
    rest_items: Int | None = None  # [n,R]
    rest_scores: Float | None = None  # [n,R]
    rest_logq: Float | None = None  # [n,R] log-probability that the item is in the sample
    fold: NDArray[np.int8] | None = None  # [n,K] which out-of-fold teacher scored it, -1 where several or none
    trajectory: Int | None = None  # [n,M*C*P] the first P items of M models at C moments of their training


Lister = Callable[[Int], Lists]
"""Users [n] -> what a teacher says of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a store is cut: the same for every process that writes a part of it."""

    num_users: int
    num_items: int
    depth: int
    rest: int = 0  # R
    precision: Literal["f32", "f16"] = "f32"
    shard_users: int = 65_536  # at most
    along: Sequence[int] = (0, 0, 0)  # models, moments of each, and places of their lists
    stamp: Mapping[str, str] = field(default_factory=dict)  # of every shard: which step, which teacher

    @property
    def per_shard(self) -> int:
        """Return how many users a shard has: fewer where their rows are so long that it would be too large."""
        score = 2 if self.precision == "f16" else 4
        row = self.depth * (4 + score + 4 + 1) + self.rest * (4 + score + 4) + 12  # with every optional column
        row += 4 * prod(self.along)
        return max(1, min(self.shard_users, SHARD_BYTES // row))

    @property
    def shards(self) -> int:
        return -(-self.num_users // self.per_shard)

    def users(self, shard: int) -> Int:
        """Return the users of `shard`."""
        start = shard * self.per_shard
        return np.arange(start, min(start + self.per_shard, self.num_users), dtype=np.int64)

    def columns(self) -> dict[str, pa.DataType]:
        """Return the types of all columns that a shard may have."""
        real = pa.float16() if self.precision == "f16" else pa.float32()
        per_item = {"items": pa.int32(), "scores": real, "logq": pa.float32(), "fold": pa.int8()}
        per_rest = {"rest_items": pa.int32(), "rest_scores": real, "rest_logq": pa.float32()} if self.rest else {}
        return (
            {"user": pa.int64(), "residual": pa.float32()}
            | {name: pa.list_(kind, self.depth) for name, kind in per_item.items()}
            | {name: pa.list_(kind, self.rest) for name, kind in per_rest.items()}
            | ({"trajectory": pa.list_(pa.int32(), size)} if (size := prod(self.along)) else {})
        )


NEEDED = ("user", "items", "scores", "residual")


def shard_path(out: Path, shard: int) -> Path:
    """Return where shard `shard` of the store `out` is."""
    return out / f"labels-{shard:05d}.arrow"


def write_shard(out: Path, layout: Layout, shard: int, lists: Lists) -> None:
    """Write what a teacher says of the users of `shard`, whole or not at all.

    Raises StageError if `lists` are not of the layout's shape or hold a NaN, DataError if a score is too large for f16.
    """
    users, kinds = layout.users(shard), layout.columns()
    found = {"user": users} | {name: column for name, column in lists._asdict().items() if column is not None}
    absent = [name for name in kinds if name.startswith("rest_") and name not in found]
    odd = [name for name in found if name not in kinds]
    if absent or odd:
        what = f"the teacher gives {', '.join(odd) or 'no ' + ', no '.join(absent)}, where labels.rest is {layout.rest}"
        raise StageError(what, where=str(shard_path(out, shard)))
    arrays = {name: _column(name, values, kinds[name], len(users)) for name, values in found.items()}
    batch = pa.RecordBatch.from_pydict(arrays, metadata=dict(layout.stamp))
    with aside(shard_path(out, shard)) as file:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        sign(shard_path(out, shard), file)


def _column(name: str, values: NDArray[Any], kind: pa.DataType, users: int) -> pa.Array:
    """Return `values` as a column of type `kind` for so many users."""
    listed = pa.types.is_fixed_size_list(kind)
    shape, inner = ((users, kind.list_size), kind.value_type) if listed else ((users,), kind)
    if values.shape != shape or (values.dtype.kind == "f" and not (values < np.inf).all()):
        what = f"{name} of shape {values.shape}"
        if values.shape == shape:
            what = f"a NaN or inf among the {name}, first in row {np.argwhere(~(values < np.inf))[0, 0]}"
        raise StageError(f"the teacher gives {what}, where numbers of shape {shape} belong", where="labels")
    with np.errstate(over="ignore"):
        narrow = values.astype(inner.to_pandas_dtype(), copy=False)
    if narrow.dtype == np.float16 and (np.isinf(narrow) != np.isinf(values)).any():
        largest = np.abs(values[np.isfinite(values)]).max()
        what = f"the teacher's {name} reach {largest:.3g}, beyond what f16 can hold"
        raise DataError(what, where="labels.precision", fix="set labels.precision: f32")
    flat = pa.array(narrow.reshape(-1), inner)
    return pa.FixedSizeListArray.from_arrays(flat, kind.list_size) if listed else flat


def open_labels(
    path: Path, *, num_users: int | None = None, num_items: int | None = None, teacher: str | None = None
) -> Labels:
    """Map the label store at `path`.

    Raises ArtifactError if it is not whole, is of other users or items, or of another teacher than `teacher`, the
    fingerprint of what was labelled.
    """
    facts = read_facts(path)
    for name, wanted in (("num_users", num_users), ("num_items", num_items)):
        if wanted is not None and facts[name] != wanted:
            what = f"labels over {facts[name]} {name.removeprefix('num_')}, data of {wanted}"
            raise ArtifactError(what, where=str(path), fix="label again with the data at hand")
    if teacher is not None and facts["stamp"].get("teacher") != teacher:
        what = f"labels of teacher {facts['stamp'].get('teacher')}, where teacher {teacher} is asked for"
        raise ArtifactError(what, where=str(path), fix="label again with the teacher at hand")
    layout = layout_of(facts)
    parts = [open_shard(path, layout, shard) for shard in range(layout.shards)]
    for shard, part in enumerate(parts):
        if part.keys() != parts[0].keys():
            what = f"has the columns {', '.join(part)} where the first shard has {', '.join(parts[0])}"
            raise ArtifactError(what, where=str(shard_path(path, shard)), fix=REBUILD)
    every = {name: tuple(part[name] for part in parts) for name in (parts[0] if parts else ("items", "scores"))}
    given = _open_vectors(path)
    return Labels(
        items=every.pop("items"),
        scores=every.pop("scores"),
        residual=every.pop("residual", ()),
        extra=every,
        per_shard=layout.per_shard,
        facts=facts,
        vectors=given,
        subclasses=None if given is None else read_head(path),
        by_item=open_labels(path / BY_ITEM) if (path / BY_ITEM).is_dir() else None,
        trust=np.load(path / TRUST, mmap_mode="c") if (path / TRUST).is_file() else None,
        gates=np.load(path / GATES, mmap_mode="c") if (path / GATES).is_file() else None,
        transfer=_open_transfer(path / TRANSFER, given) if (path / TRANSFER).is_dir() else None,
    )


HISTORIES = ("indptr", "items", "times", "parents", "mu")


def write_histories(out: Path, synthetic: Synthetic) -> None:
    """Write the histories whose lists are in the store `out`, a file for each column that they have."""
    log = synthetic.interactions
    for name, column in zip(
        HISTORIES, (log.indptr, log.items, log.times, synthetic.parents, synthetic.mu), strict=True
    ):
        if column is not None:
            with aside(out / f"{name}.npy") as file, file.open("wb") as handle:
                np.save(handle, column)


def read_histories(path: Path) -> Synthetic:
    """Map what `write_histories` wrote to `path`; raises OSError or ValueError if it cannot be read."""
    known = {name: np.load(path / f"{name}.npy", mmap_mode="c") for name in HISTORIES if name != "times"}
    times = path / "times.npy"
    known["times"] = np.load(times, mmap_mode="c") if times.is_file() else None
    log = Interactions(**{name: known.pop(name) for name in ("indptr", "items", "times")})
    return Synthetic(interactions=log, **known)


def _open_transfer(path: Path, given: Vectors | None) -> tuple[Labels, Synthetic]:
    """Map the lists at `path` and the histories that they are of; `given` are the teacher's vectors of users."""
    lists = open_labels(path)
    try:
        synthetic = read_histories(path)
        users = None if given is None else np.load(path / "users.npy", mmap_mode="c")
        assert len(synthetic) == len(synthetic.mu) == synthetic.interactions.num_users == lists.num_users
        assert users is None or len(users) == lists.num_users
        assert synthetic.interactions.indptr[-1] == len(synthetic.interactions)
    except (OSError, ValueError, AssertionError) as cause:
        what = f"the histories of these labels cannot be read ({cause!r})"
        raise ArtifactError(what, where=str(path), fix=REBUILD) from cause
    if given is not None and users is not None:
        lists = replace(lists, vectors=replace(given, users=users))
    return lists, synthetic


def _open_vectors(path: Path) -> Vectors | None:
    sides = [path / f"{side}.npy" for side in ("users", "items")]
    if not all(file.is_file() for file in sides):
        return None
    users, items = (np.load(file, mmap_mode="c") for file in sides)  # as if writable, which torch asks for
    return Vectors(users=users, items=items)


def layout_of(facts: Mapping[str, Any]) -> Layout:
    """Return the layout that labels.json tells of."""
    names = ("num_users", "num_items", "depth", "rest", "precision", "stamp")
    return Layout(**{name: facts[name] for name in names}, along=facts["along"], shard_users=facts["per_shard"])


def open_shard(out: Path, layout: Layout, shard: int, fix: str = REBUILD) -> dict[str, NDArray[Any]]:
    """Map one shard: its columns but `user`, by name, without a copy.

    Raises ArtifactError, which says `fix`, if it is missing, damaged, or a part of other labels.
    """
    path, kinds, users = shard_path(out, shard), layout.columns(), layout.users(shard)
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        assert set(NEEDED) <= set(table.column_names), f"it has the columns {', '.join(table.column_names)}"
        found = {name: table.column(name).chunk(0) for name in table.column_names}
    except Exception as cause:  # what Arrow raises at hostile bytes has no end
        raise ArtifactError(f"cannot be read as a shard of labels ({cause})", where=str(path), fix=fix) from cause
    for name, wanted in layout.stamp.items():
        if said.get(name) != wanted:
            what = f"is of {name} {said.get(name, 'unknown')}, where {name} {wanted} is expected"
            raise ArtifactError(f"a shard of other labels: it {what}", where=str(path), fix=fix)
    for name, column in found.items():
        if column.type != kinds.get(name) or len(table) != len(column):
            what = f"its {name} are of type {column.type}, in {table.column(name).num_chunks} parts, where "
            raise ArtifactError(f"{what}{kinds.get(name, 'nothing')} belongs", where=str(path), fix=fix)
        if column.null_count or (pa.types.is_fixed_size_list(column.type) and column.values.null_count):
            raise ArtifactError(f"its {name} have nulls", where=str(path), fix=fix)
    own = found.pop("user")
    first, last = (int(own[0].as_py()), int(own[-1].as_py())) if len(own) else (0, -1)
    if (first, last, len(own)) != (users[0], users[-1], len(users)):
        what = f"holds {len(own)} users, {first} to {last}, where users {users[0]} to {users[-1]} belong"
        raise ArtifactError(what, where=str(path), fix=fix)
    return {name: _array(column) for name, column in found.items()}


def _array(column: pa.Array) -> NDArray[Any]:
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy()
    return column.flatten().to_numpy().reshape(-1, column.type.list_size)
