"""A teacher, whatever it is made of, as one scorer: its recipe read, its models loaded, their chances mixed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recdistill.data.sequences import Sequences
from recdistill.errors import ArtifactError
from recdistill.folds import Fold, lacking
from recdistill.members import WEIGHTS, Ready, Voice, averaged, lined, lined_vectors, ready, stored, together
from recdistill.mixture import segments_of
from recdistill.models.recipe import Teacher
from recdistill.scoring import Scorer
from recdistill.topk import Precision
from recdistill.types import Dataset, Interactions


@dataclass(frozen=True, slots=True)
class Member:
    """One model of a teacher: which, by what weights, at what temperature, and its share of each segment's mixture."""

    model: int
    weights: str = WEIGHTS
    temperature: float = 1.0
    share: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a teacher's models make one scorer; without members, its scores are somebody else's."""

    kind: str = "one"
    members: tuple[Member, ...] = ()
    edges: tuple[float, ...] = ()  # of the segments of users, by training interactions
    scale: float = 1.0  # of the score, after all else
    shift: float = 0.0
    space: str = "logit"


def read_recipe(teacher: Teacher) -> Recipe:
    """Return how `teacher` speaks: what recipe.json says, or its one model, or its file, as they are."""
    if teacher.recipe is None:
        space = teacher.external.space if teacher.external is not None else "logit"
        return Recipe(members=(Member(0),) if teacher.models else (), space=space)
    file = teacher.recipe.path / "recipe.json"
    try:
        raw: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        members = tuple(Member(**member | {"share": tuple(member["share"])}) for member in raw["members"])
        plain = {name: raw[name] for name in ("kind", "scale", "shift", "space")}
        return Recipe(members=members, edges=tuple(raw["edges"]), **plain)
    except (OSError, ValueError, KeyError, TypeError) as cause:
        fix = "delete the directory and run the same command again"
        raise ArtifactError(f"cannot be read as a recipe ({cause!r})", where=str(file), fix=fix) from cause


def speaker(
    dataset: Dataset,
    teacher: Teacher,
    recipe: Recipe,
    *,
    sequences: Sequences | None,
    seen: Interactions | None,
    fold: int | None = None,
    whole: bool = True,
    compute: Precision = "fp32",
) -> Ready:
    """Return the trained models of `teacher` as one scorer.

    `sequences` is what they may read and `seen` what they may not recommend. If both are None each model has its own
    training interactions for both: then what it scores it did not learn from. `fold` asks those of one fold alone.
    `whole` says that a mixture is over the whole catalogue, else over the items that are asked for. `compute` is the
    arithmetic of a ranker's products.
    """
    if len(recipe.members) == 1 and not teacher.folds and recipe.members[0].share.count(1.0) == len(recipe.edges) + 1:
        return _alone(dataset, teacher, recipe, sequences, compute)
    segment = segments_of(np.diff(dataset.train.indptr), recipe.edges)
    share = np.array([member.share for member in recipe.members]).T
    scorers, size = list[Scorer](), 0
    for k in range(max(1, teacher.folds)) if fold is None else [fold]:
        data, own = voice_data(dataset, teacher, k)
        reads, taken = (own, data.train) if sequences is None else (sequences, seen)
        voices = []
        for member in recipe.members:
            fitted = teacher.models[member.model * max(1, teacher.folds) + k]
            one = ready(fitted.spec, fitted.artifact.path, data, reads, member.weights, compute)
            voices.append(Voice(score=one.score, temperature=member.temperature, seen=taken))
            size += one.size
        scorers.append(together(voices, share, segment, whole=whole))
    return Ready(score=lined(averaged(scorers), recipe.scale, recipe.shift), size=size, vectors=None)


def _alone(
    dataset: Dataset, teacher: Teacher, recipe: Recipe, sequences: Sequences | None, compute: Precision
) -> Ready:
    """Return the one model, whose scores are its logits: nothing has to be mixed, so nothing has to be normalised."""
    fitted, member = teacher.models[recipe.members[0].model], recipe.members[0]
    reads = Sequences.of(dataset.train) if sequences is None else sequences
    if recipe.kind == "delta":  # what was made of this model's vectors, and others, stands beside the recipe
        assert teacher.recipe is not None
        one = stored(teacher.recipe.path)
    else:
        one = ready(fitted.spec, fitted.artifact.path, dataset, reads, member.weights, compute)
    line = recipe.scale, recipe.shift
    sides = None if one.vectors is None else lined_vectors(*one.vectors, *line)
    return Ready(score=lined(one.score, *line), size=one.size, vectors=sides)


def voice_data(dataset: Dataset, teacher: Teacher, fold: int) -> tuple[Dataset, Sequences]:
    """Return what the models of `fold` were fitted to, and the histories in it."""
    data = lacking(dataset, Fold(fold, teacher.folds)) if teacher.folds else dataset
    return data, Sequences.of(data.train)
