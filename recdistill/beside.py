"""What a label store keeps beside the lists where it is asked to: vectors, lists of users, lists along a training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from recdistill.data.sequences import Sequences
from recdistill.errors import ConfigError
from recdistill.guide import turned
from recdistill.labels import BY_ITEM, Layout, Lister, Lists
from recdistill.members import WEIGHTS, Ready, ready
from recdistill.models.heads import HEAD
from recdistill.models.recipe import Teacher
from recdistill.shards import Share, finish, write_shards
from recdistill.store import aside
from recdistill.teachers import encoder_lister
from recdistill.types import Dataset, Float, Int, Interactions, quiet

TRAJECTORY = 100  # places of each list along a training, at most


def write_vectors(out: Path, made: Ready, teacher: Teacher) -> None:
    """Write the teacher's vectors, whose inner product is its score, as users.npy [U,D] and items.npy [I,D].

    Beside them the head of sub-logits of a single teacher that trained one.
    """
    for name, vectors in zip(("users", "items"), _vectors(made, "vectors"), strict=True):
        with aside(out / f"{name}.npy") as file, file.open("wb") as handle:
            np.save(handle, np.ascontiguousarray(vectors, dtype=np.float32))
    write_head(out, teacher)


def write_head(out: Path, teacher: Teacher) -> None:
    """Copy the head of sub-logits of a single teacher that trained one: it is a function of the vectors as they are."""
    if len(teacher.models) == 1 and not teacher.folds and teacher.recipe is None:
        head = teacher.models[0].artifact.path / HEAD
        if head.is_file():
            with aside(out / HEAD) as file:
                file.write_bytes(head.read_bytes())


def write_by_item(out: Path, made: Ready, layout: Layout, depth: int, seen: Interactions | None) -> None:
    """Write for each item the `depth` users that the teacher ranks first, as a label store of its own."""
    users, items = _vectors(made, "item_depth")
    other = replace(
        layout, num_users=layout.num_items, num_items=layout.num_users, depth=depth, rest=0, along=(0, 0, 0)
    )
    owners = None if seen is None else turned(seen, layout.num_items)
    path = out / BY_ITEM
    path.mkdir(exist_ok=True)
    write_shards(path, other, lambda: encoder_lister(items, users, depth, owners), quiet, Share())
    nobody = Interactions(indptr=np.zeros(layout.num_items + 1, np.int64), items=np.zeros(0, np.int64))
    finish(path, other, {"side": "items"}, nobody if owners is None else owners)


def with_trajectory(lister: Lister, along: Sequence[Lister]) -> Lister:
    """Return `lister` with the items of each of `along` beside its own, [n, teachers * moments * places]."""

    def both(users: Int) -> Lists:
        found = np.concatenate([one(users).items for one in along], axis=1)
        return lister(users)._replace(trajectory=found)

    return both


def moments(
    dataset: Dataset, teacher: Teacher, count: int, depth: int, sequences: Sequences, seen: Interactions | None
) -> list[Lister]:
    """Return the lists of each model at `count` moments of its training, evenly apart, the best weights last."""
    found = []
    for model in teacher.models:
        steps = sorted(
            int(match[1])
            for file in model.artifact.path.glob("weights-*.safetensors")
            if (match := re.fullmatch(r"weights-([0-9]+)\.safetensors", file.name))
        )
        best = model.artifact.manifest.facts["best_step"]
        early = [step for step in steps if step < best]
        wanted = (
            np.linspace(0, len(early) - 1, count - 1).round().astype(int) if early and count > 1 else np.zeros(0, int)
        )
        names = [f"weights-{early[i]}.safetensors" for i in wanted]
        names = [WEIGHTS] * (count - len(names) - 1) + names + [WEIGHTS]
        for name in names:
            sides = _vectors(ready(model.spec, model.artifact.path, dataset, sequences, name), "trajectory")
            found.append(encoder_lister(*sides, depth, seen))
    return found


def _vectors(made: Ready, setting: str) -> tuple[Float, Float]:
    if made.vectors is None:
        what = "needs a teacher whose scores are products of vectors: one encoder, or several without a mixture"
        raise ConfigError(what, where=f"labels.{setting}", fix="leave it out, or take an encoder as the teacher")
    return made.vectors
