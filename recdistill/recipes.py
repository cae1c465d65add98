"""How the models of a teacher come to speak as one: judged on what is held out, written down once as recipe.json.

    {"kind": "checkpoints", "space": "logit", "scale": 1.0, "shift": 0.0, "edges": [],
     "members": [{"model": 0, "weights": "weights-120.safetensors", "temperature": 0.9, "share": [0.5]}, ...],
     "judged": [what each model's list NLL was, and whether it was chosen], "calibration": {...}, ...}

`share` has one entry a segment of users: those are cut by their training interactions at `edges`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recdistill.calibrate import Line, fit_line, fit_temperature
from recdistill.ensemble import Member, Recipe, speaker, voice_data
from recdistill.errors import StageError
from recdistill.heldout import Held, Sheet, chances, held_out, sheet, weights
from recdistill.members import WEIGHTS, ready
from recdistill.mixture import Real, edges_of, forward, mixed, nll, routes, segments_of, shares
from recdistill.models.recipe import Teacher
from recdistill.reliability import listwise, pointwise
from recdistill.spec import Spec
from recdistill.store import write_text
from recdistill.types import Dataset, Log

SMALLEST = 1e-3  # a share below which a member is not worth its scoring


class Choice(Spec):
    """What is to be chosen, of the models that a step has been given."""

    kind: Literal["one", "checkpoints", "seeds", "assistants", "self", "pool"] = "one"
    most: int = 1
    segments: int = 1
    calibration: Literal["none", "temperature", "platt"] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What was found of one candidate: its temperature and the chances that it gave what is held out."""

    model: int
    weights: str
    temperature: float
    chances: Real
    facts: dict[str, Any]


def choose(dataset: Dataset, teacher: Teacher, how: Choice, out: Path, log: Log) -> dict[str, Any]:
    """Judge the models of `teacher`, choose and calibrate, and write recipe.json to `out`; returns the head facts.

    Raises StageError if nothing is held out, or the teacher is no better than chance.
    """
    held = held_out(dataset, teacher.folds, ranker=teacher.ranks)
    weight = weights(held)
    facts: dict[str, Any] = {"kind": how.kind, "folds": teacher.folds, "held_out": _size(held, teacher)}
    if teacher.external is not None:
        recipe = Recipe(kind=how.kind, space=teacher.external.space)
    else:
        candidates = _candidates(teacher, how)
        judged = []
        for i, (model, file) in enumerate(candidates):
            judged.append(_judge(dataset, teacher, model, file, held))
            log("judge teachers", i + 1, len(candidates), {"nll": judged[-1].facts["nll"]})
        recipe, found = _mix(dataset, judged, held, weight, how)
        facts |= found
    if how.calibration != "none":
        sheets = _sheets(dataset, teacher, recipe, held)
        recipe, facts["calibration"] = calibrated(recipe, sheets, how.calibration)
    write_text(out / "recipe.json", json.dumps(asdict(recipe) | facts, indent=1, sort_keys=True))
    return _head(facts, recipe)


def _candidates(teacher: Teacher, how: Choice) -> list[tuple[int, str]]:
    """Return the (model, weights file) pairs to judge: every snapshot of the one model, or each model's best."""
    each = max(1, teacher.folds)
    if how.kind != "checkpoints":
        return [(m, WEIGHTS) for m in range(len(teacher.models) // each)]
    kept = [{file.name for file in one.artifact.path.glob("weights-*.safetensors")} for one in teacher.models]
    # With folds a snapshot is that of every fold's training at the same step, where each of them came so far.
    names = sorted(set.intersection(*kept), key=lambda name: int(Path(name).stem.split("-")[1]))
    return [(0, name) for name in names]


def _judge(dataset: Dataset, teacher: Teacher, model: int, file: str, held: Sequence[Held]) -> Judged:
    sheets = []
    for fold, one in enumerate(held):
        fitted = teacher.models[model * max(1, teacher.folds) + fold]
        data, sequences = voice_data(dataset, teacher, fold)
        score = ready(fitted.spec, fitted.artifact.path, data, sequences, file).score
        sheets.append(sheet(score, one, dataset.num_items))
    temperature, weight = fit_temperature(sheets), weights(held)
    found = chances(sheets, temperature)
    before = nll(chances(sheets, 1.0), weight)
    facts = {"model": model, "weights": file, "temperature": temperature, "nll": nll(found, weight), "nll_raw": before}
    return Judged(model=model, weights=file, temperature=temperature, chances=found, facts=facts)


def _mix(
    dataset: Dataset, judged: Sequence[Judged], held: Sequence[Held], weight: Real, how: Choice
) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe that minimises the list NLL as its kind allows, and what is to be told of it."""
    said = np.stack([one.chances for one in judged])
    count = np.diff(dataset.train.indptr)
    edges = edges_of(count, how.segments) if how.kind == "pool" else []
    share = np.zeros((len(edges) + 1, len(judged)))
    users = np.concatenate([one.users[one.rows] for one in held])
    segment = segments_of(count, edges)[users]
    if how.kind == "checkpoints":
        chosen = forward(said, weight, how.most)
        share[:, chosen] = 1 / len(chosen)
    elif how.kind == "self":
        share[:, int(np.argmin([one.facts["nll"] for one in judged]))] = 1
    elif how.kind == "assistants":
        share[:] = _kept(shares(said, weight))
    elif how.kind == "pool":
        share[np.arange(len(share)), routes(said, weight, segment, len(share))] = 1
    else:
        share[:] = 1 / len(judged)
    told = np.empty(len(weight))
    for s in range(len(share)):
        told[segment == s] = mixed(said[:, segment == s], share[s])
    members = tuple(
        Member(model=one.model, weights=one.weights, temperature=one.temperature, share=tuple(share[:, m].tolist()))
        for m, one in enumerate(judged)
        if share[:, m].any()
    )
    facts = {
        "nll": nll(told, weight),
        "nll_best_alone": min(one.facts["nll"] for one in judged),
        "judged": [one.facts | {"share": share[:, m].tolist()} for m, one in enumerate(judged)],
    }
    return Recipe(kind=how.kind, members=members, edges=tuple(edges)), facts


def _kept(share: Real) -> Real:
    """Return `share` without what is too small to matter."""
    share = np.where(share < SMALLEST, 0, share)
    return share / share.sum()


def _sheets(dataset: Dataset, teacher: Teacher, recipe: Recipe, held: Sequence[Held]) -> list[Sheet]:
    """Return what the teacher says of what is held out: of a fold, those that did not learn from it."""
    if teacher.external is not None:
        from recdistill.external import external_scorer

        scorers = [external_scorer(teacher.external, dataset)]
    else:
        speak = partial(speaker, dataset, teacher, recipe, sequences=None, seen=None)
        scorers = [speak(fold=fold).score for fold in range(len(held))]
    return [sheet(scorer, part, dataset.num_items) for scorer, part in zip(scorers, held, strict=True)]


def calibrated(
    recipe: Recipe, sheets: Sequence[Sheet], kind: Literal["temperature", "platt"]
) -> tuple[Recipe, dict[str, Any]]:
    """Return `recipe` with the line that calibrates its scores, and what it was worth."""
    if not any(np.isfinite(chances(sheets, 1.0))):
        what = "the teacher has no score for anything that is held out"
        raise StageError(what, where="labels.calibration", fix="score those pairs too, or set labels.calibration: none")
    if kind == "temperature":
        temperature = fit_temperature(sheets)
        line, space = Line(1 / temperature), "logit"
        before, after = listwise(sheets, 1.0), listwise(sheets, temperature)
    else:
        line, space = fit_line(sheets), "probability"
        before, after = pointwise(sheets, Line()), pointwise(sheets, line)
    changed = Recipe(recipe.kind, recipe.members, recipe.edges, line.scale, line.shift, space)
    return changed, {"kind": kind, "scale": line.scale, "shift": line.shift, "before": before, "after": after}


def _size(held: Sequence[Held], teacher: Teacher) -> dict[str, Any]:
    return {
        "part": "out of fold" if teacher.folds else "validation",
        "users": len(np.unique(np.concatenate([one.users for one in held]))),
        "interactions": sum(len(one.rows) for one in held),
    }


def _head(facts: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return what others want to know without opening the file."""
    found = {name: facts[name] for name in ("kind", "folds", "nll", "nll_best_alone") if name in facts}
    calibrated = facts.get("calibration")
    if calibrated:
        found |= {f"{name}_{when}": calibrated[when][name] for when in ("before", "after") for name in ("nll", "ece")}
    return found | {"space": recipe.space, "members": len(recipe.members), "judged": len(facts.get("judged", ()))}
