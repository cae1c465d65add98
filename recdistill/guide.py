"""What the student itself ranks first, brought up to date every few epochs: draws that follow it read it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill import ladder
from recdistill.distill import trajectory
from recdistill.store import aside
from recdistill.topk import exact_topk, top_items
from recdistill.types import Float, Int, Interactions, Labels
from recdistill.world import World

USERS = 4096  # whose lists along the trainings are in memory at once
Found = dict[str, NDArray[Any]]
Ask = Callable[[], Mapping[str, tuple[Float, Float]]]
"""The vectors of every user and item as they are now, of the `student` and, where there is one, its `partner`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """How users move through the lists of several teachers' trainings."""

    k: int
    alpha: float
    decay: float
    every: int  # refreshes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rungs:
    """How the users whose lists are compared become fewer, a cut at each refresh."""

    keep: float  # share that is left at the end
    steps: int  # cuts
    temperature: float  # of the student's scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """The student's lists as of the last refresh, in files beside the checkpoints: a resumed run reads the same."""

    out: Path
    world: World
    ask: Ask
    train: Interactions
    depth: int
    every: int  # steps
    item_depth: int = 0  # of the lists of users for each item; 0: none are needed
    labels: Labels | None = None
    walk: Walk | None = None
    rungs: Rungs | None = None
    follows: bool = True  # whether somebody reads the lists, and not the record alone
    now: Found = field(default_factory=dict)
    at: list[int] = field(default_factory=list)  # the step of the last refresh

    def prepare(self, step: int) -> None:
        """Refresh at every `every`-th step; after a restart, read what the last refresh wrote. Collective."""
        last = step - step % self.every
        if self.at and self.at[0] == last:
            return
        if step == last:
            self._refresh(step)
        with np.load(self._file(last)) as found:
            self.now.clear()
            self.now.update({name: found[name] for name in found.files})
        self.at[:] = [last]

    def prune(self, checkpoint: int) -> None:
        """Delete what no run that goes on from the step `checkpoint` can need.

        A refresh at that very step has not been, and goes on from the one before it.
        """
        last = checkpoint - 1 - (checkpoint - 1) % self.every
        for file in self.out.glob("guide-*.npz"):
            if int(file.stem.removeprefix("guide-")) < last:
                file.unlink(missing_ok=True)

    def student(self, users: Int) -> Tensor | None:
        """Return the student's own lists of `users`, [R,M]."""
        return self._rows("student", users)

    def partner(self, users: Int) -> Tensor | None:
        """Return the partner's lists of `users`, [R,M]; None where there is no partner."""
        return self._rows("partner", users)

    def by_item(self, items: Int) -> Tensor | None:
        """Return the users that the student ranks first for each of `items`, [Q,M]."""
        return self._rows("by_item", items)

    def fused(self, users: Int) -> Tensor | None:
        """Return the one list that the teachers' lists make at each user's place in their trainings, [R,k]."""
        return self._rows("fused", users)

    def kept(self) -> Tensor | None:
        """Return the users whose lists are still compared, in rising order; None for all of them."""
        return torch.from_numpy(self.now["kept"].astype(np.int64)) if "kept" in self.now else None

    def _rows(self, name: str, rows: Int) -> Tensor | None:
        return torch.from_numpy(self.now[name][rows].astype(np.int64)) if name in self.now else None

    def _file(self, step: int) -> Path:
        return self.out / f"guide-{step}.npz"

    def _refresh(self, step: int) -> None:
        vectors = self.ask()

        def work() -> None:
            found: Found = {}
            for name, (users, items) in vectors.items() if self.follows else ():
                found[name] = _lists(users, items, self.depth, self.train)
            if self.item_depth:
                users, items = vectors["student"]
                found["by_item"] = _lists(items, users, self.item_depth, turned(self.train, len(items)))
            if self.walk is not None and self.labels is not None:
                found["places"], found["fused"] = self._moved(found["student"], step)
            if self.rungs is not None:
                found |= self._condensed(vectors["student"], step)
            with aside(self._file(step)) as file, file.open("wb") as handle:
                np.savez(handle, **found)  # pyrefly: ignore

        self.world.share(work)

    def _moved(self, student: NDArray[np.int32], step: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return each user's place in each teacher's training [U,M], at first the earliest, and what it makes [U,k].

        Lists are made again where places have moved on, which is not at every refresh.
        """
        assert self.walk is not None
        assert self.labels is not None
        times = step // self.every
        before: Found = {}
        if times:
            with np.load(self._file(step - self.every)) as found:
                before = {name: found[name] for name in ("places", "fused")}
            if times % self.walk.every:
                return before["places"], before["fused"]
        settings = {"k": self.walk.k, "alpha": self.walk.alpha, "decay": self.walk.decay}
        places, lists = list[NDArray[np.int32]](), list[NDArray[np.int32]]()
        for start in range(0, len(student), USERS):
            part = np.arange(start, min(start + USERS, len(student)))
            along = torch.from_numpy(self.labels.trajectory(part))
            at = torch.zeros(along.shape[:2], dtype=torch.int64)
            if times:
                at = torch.from_numpy(before["places"][part].astype(np.int64))
                own = torch.from_numpy(student[part, : self.walk.k].astype(np.int64))
                at = trajectory.advance(along, at, own, moves=times // self.walk.every - 1, **settings)
            places.append(at.numpy().astype(np.int32))
            lists.append(trajectory.fused(along, at, self.walk.k).numpy().astype(np.int32))
        return np.concatenate(places), np.concatenate(lists)

    def _condensed(self, vectors: tuple[Float, Float], step: int) -> dict[str, NDArray[Any]]:
        """Return who is left after this refresh's cut, and the record of how unsure the student was of each."""
        assert self.rungs is not None
        users, items = vectors
        count, times = len(users), step // self.every
        if not times:  # nothing has been learned yet, and nobody is left out
            return {
                "kept": np.arange(count, dtype=np.int32),
                "record": np.zeros(count),
                "looks": np.zeros(count, dtype=np.int64),
            }
        with np.load(self._file(step - self.every)) as found:
            kept, record, looks = (found[name].copy() for name in ("kept", "record", "looks"))
        best = exact_topk(users, items, min(self.depth, len(items)), seen=self.train, rows=kept.astype(np.int64))
        record[kept] += ladder.doubts(best.scores.numpy() / self.rungs.temperature)
        looks[kept] += 1
        sizes = ladder.rungs(count, keep=self.rungs.keep, steps=self.rungs.steps, most=times)
        return {"kept": ladder.left(record, looks, kept, sizes[-1]), "record": record, "looks": looks}


def turned(train: Interactions, num_items: int) -> Interactions:
    """Return who took each item, in the place of what each user took."""
    users = train.users()
    order = np.lexsort((users, train.items))
    counts = np.bincount(train.items, minlength=num_items)
    return Interactions(indptr=np.concatenate([[0], np.cumsum(counts)]), items=users[order])


def _lists(users: Float, items: Float, depth: int, seen: Interactions) -> NDArray[np.int32]:
    return top_items(users, items, min(depth, len(items)), seen=seen).astype(np.int32)
