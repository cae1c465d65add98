"""What the day before left, in today's rows: its student's vectors and tables, its teacher's scores, who is new."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file

from recdistill.errors import DataError
from recdistill.models.spec import Fitted, MFSpec
from recdistill.models.tables import Rows
from recdistill.moved import kept_or_new, write_moved
from recdistill.scoring import scaled
from recdistill.store import aside, write_text
from recdistill.types import Dataset, Float, Int, Space, Vectors

FACTS = "yesterday.json"
SIDES = ("users", "items")


@dataclass(frozen=True, slots=True, kw_only=True)
class Yesterday:
    """The models of the day before; rows are today's, zeros of who was not taught on both days."""

    users: Int  # [U] row of each of today's users on the day before, -1 of who was not taught on both days
    items: Int  # [I]
    student: Vectors  # as they were served: of length 1 in cosine space
    temperature: float  # cosines are divided by it to be scores
    scratch: Vectors
    teacher: Vectors | None = None  # inner products are its scores; none of a teacher that has no vectors
    tables: Vectors | None = None  # the rows that the student ended with, where it is a factorisation
    path: Path | None = None  # where more of it lies

    @property
    def both(self) -> tuple[Int, Int]:
        """Return today's rows of the users and of the items that were taught on both days."""
        return np.flatnonzero(self.users >= 0), np.flatnonzero(self.items >= 0)

    def scores(self) -> Vectors:
        """Return the student's vectors with their temperature, so that inner products are scores."""
        users, items = scaled(self.student, self.temperature)
        return Vectors(users=users, items=items)


def same(today: pl.Series, before: pl.Series, name: str) -> Int:
    """Return for each of the ids `today` [n] its place among those of the day `before` [m], -1 where it is none.

    `name` is what a message calls them. DataError if the ids are of two types, which never meet.
    """
    if today.dtype != before.dtype:
        what = f"{name}s are {today.dtype} today, and were {before.dtype} on the day before: nobody is in both"
        raise DataError(what, where="yesterday", fix="give both logs ids of one type")
    known = pl.DataFrame({"id": before, "row": np.arange(len(before))})
    found = pl.DataFrame({"id": today}).join(known, on="id", how="left", maintain_order="left")
    return found["row"].fill_null(-1).to_numpy().astype(np.int64)


def kept(today: Dataset, before: Dataset) -> tuple[Int, Int]:
    """Return of today's users [U] and items [I] the rows of the day before, -1 unless they were taught on both."""
    users = same(today.user_ids, before.user_ids, "user id")
    items = same(today.item_ids, before.item_ids, "item id")
    return (
        _taught(users, _active(today.train.users(), len(users)), _active(before.train.users(), before.num_users)),
        _taught(items, _active(today.train.items, len(items)), _active(before.train.items, before.num_items)),
    )


def _active(rows: Int, size: int) -> NDArray[np.bool_]:
    return np.bincount(np.asarray(rows), minlength=size) > 0


def _taught(rows: Int, now: NDArray[np.bool_], then: NDArray[np.bool_]) -> Int:
    there = (rows >= 0) & now
    there[there] = then[rows[there]]
    return np.where(there, rows, -1)


def write_yesterday(
    today: Dataset,
    before: Dataset,
    *,
    student: Fitted,
    scratch: Fitted,
    teacher: tuple[Float, Float] | None,
    out: Path,
    moves: Mapping[str, Fitted] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write what `open_yesterday` opens to `out`, of the models that were fitted to `before`; returns the facts.

    `teacher` is its vectors of users and items, whose inner products are scores; `moves` are models by name whose
    weights are left too, for today's to begin with. DataError if ids changed their type.
    """
    users, items = kept(today, before)
    tables: dict[str, Float] = {}

    def put(name: str, left: Float, right: Float) -> None:
        tables[f"{name}-users"], tables[f"{name}-items"] = _picked(left, users), _picked(right, items)

    for name, fitted in (("student", student), ("scratch", scratch)):
        put(name, *(np.load(fitted.artifact.path / f"{side}.npy") for side in SIDES))
    if isinstance(student.spec, MFSpec):
        weights = load_file(student.artifact.path / "weights.safetensors")
        put("tables", weights["user.weight"], weights["item.weight"])
    if teacher is not None:
        put("teacher", *teacher)
    for name, fitted in moves.items():
        write_moved(fitted.artifact.path, {"users": users, "items": items}, out, name)
    for name, values in {"users": users, "items": items, **tables}.items():
        with aside(out / f"{name}.npy") as file, file.open("wb") as handle:
            np.save(handle, values)
    spec: Any = student.spec
    facts = {"space": spec.space, "temperature": spec.temperature, "tables": "tables-users" in tables}
    write_text(out / FACTS, json.dumps(facts | {"teacher": teacher is not None}, indent=1, sort_keys=True))
    there = {side: int((rows >= 0).sum()) for side, rows in zip(SIDES, (users, items), strict=True)}
    gone = {side: int((_active(rows, size)).sum()) - there[side] for side, rows, size in _were(before)}
    new = {side: int(_active(rows, size).sum()) - there[side] for side, rows, size in _were(today)}
    return facts | {"both": there, "new": new, "gone": gone}


def _were(dataset: Dataset) -> list[tuple[str, Int, int]]:
    return [("users", dataset.train.users(), dataset.num_users), ("items", dataset.train.items, dataset.num_items)]


def _picked(vectors: Float, rows: Int) -> Float:
    """Return vectors [rows], zeros at -1."""
    found = np.zeros((len(rows), vectors.shape[1]), np.float32)
    found[rows >= 0] = vectors[rows[rows >= 0]]
    return found


def open_yesterday(path: Path) -> Yesterday:
    """Return what `write_yesterday` wrote to `path`, memory-mapped."""
    facts = json.loads((path / FACTS).read_text(encoding="utf-8"))

    def of(name: str, space: Space = "dot") -> Vectors:
        sides = {side: np.load(path / f"{name}-{side}.npy", mmap_mode="r") for side in SIDES}
        return Vectors(**sides, space=space)

    return Yesterday(
        users=np.load(path / "users.npy"),
        items=np.load(path / "items.npy"),
        student=of("student", facts["space"]),
        temperature=facts["temperature"],
        scratch=of("scratch", facts["space"]),
        teacher=of("teacher") if facts["teacher"] else None,
        tables=of("tables") if facts["tables"] else None,
        path=path,
    )


def carried(yesterday: Yesterday, *, std: float, seed: int) -> dict[str, Rows]:
    """Return what the tables of a factorisation begin with: yesterday's rows, and random ones of who is new.

    `std` and `seed` are those of the training, so that who is new begins as they would without a yesterday.
    """
    assert yesterday.tables is not None, "load_config and remembered have checked it"
    sides = {"user": (yesterday.tables.users, yesterday.users), "item": (yesterday.tables.items, yesterday.items)}

    return {
        f"model.{name}": partial(kept_or_new, name, table, rows >= 0, std=std, seed=seed)
        for name, (table, rows) in sides.items()
    }
