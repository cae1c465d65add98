"""Every preset teaches: a student whose own log says too little finds its group once a teacher that knows it speaks."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recdistill.data.sequences import Sequences
from recdistill.fit import fit, load
from recdistill.guide import turned
from recdistill.methods import Method, load_method
from recdistill.models.spec import StudentSpec
from recdistill.scoring import recommend
from recdistill.teachers import encoder_lister
from recdistill.teaching import Teaching
from recdistill.types import Dataset, Interactions, Labels, Vectors, quiet
from recdistill.world import World

# The kernels behind the tables warn, when they are first imported, of optimizers that this build of theirs lacks.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:fbgemm_gpu\.")
PRESETS = {path.stem: path for path in sorted((Path(__file__).parents[2] / "configs" / "methods").glob("*.yaml"))}
# Taught by a partner that has read the same log: they are there to be stable, not to know what nobody told them.
PARTNERS = ("bd", "pfd")
BPR = ("rrd", "kd", "rce-kd", "dcd", "de", "bce-kd", "hetcomp", "unkd")

GROUPS, USERS, ITEMS = 4, 200, 80
OWN, NOISE = 1, 3  # of a user's interactions: of the group, and of anything
DEPTH, MOMENTS, FOUND = 40, 4, 10
WIDE = 12  # of the teacher's vectors
EPOCHS = 12
PUBLISHED_EPOCHS = 48.0  # those of the presets' phases: they are shortened as the training is
STUDENT: dict[str, Any] = {
    "model": {"kind": "mf", "dim": 8, "temperature": 0.15},
    "train": {
        "epochs": EPOCHS,
        "batch": 100,
        "negatives": 40,
        "list_users": 50,
        "dense_lr": 0.01,
        "evaluate_every": EPOCHS,
    },
}
LOSSES: dict[str, dict[str, Any]] = {
    "softmax": {},
    "bpr": {"model": {"space": "dot", "temperature": 1.0}, "train": {"loss": "bpr", "negatives": 4}},
}


def test_the_presets_are_found() -> None:
    assert set(BPR) | set(PARTNERS) < set(PRESETS)


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in PARTNERS])
def test_a_student_finds_its_group_with_every_preset(name, dataset, scratch, tmp_path) -> None:
    assert taught(name, "softmax", dataset, tmp_path) > scratch["softmax"] + 0.2


@pytest.mark.parametrize("name", BPR)
def test_a_student_of_pairs_finds_it_too(name, dataset, scratch, tmp_path) -> None:
    assert taught(name, "bpr", dataset, tmp_path) > scratch["bpr"] + 0.2


@pytest.mark.parametrize("name", PARTNERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_partner_that_knows_no_more_does_no_harm(name, loss, dataset, scratch, tmp_path) -> None:
    assert taught(name, loss, dataset, tmp_path) > scratch[loss] - 0.05


def test_the_log_alone_says_too_little(scratch) -> None:
    assert max(scratch.values()) < 0.6


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """One interaction of the user's own group among others of any: little for a user, enough for a group."""
    rng = np.random.default_rng(0)
    own = [u % GROUPS + GROUPS * rng.permutation(ITEMS // GROUPS)[:OWN] for u in range(USERS)]
    chosen = [np.unique(np.concatenate([one, rng.permutation(ITEMS)[:NOISE]])) for one in own]
    sizes = [len(items) for items in chosen]
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    train = Interactions(indptr=indptr, items=np.concatenate(chosen), times=np.arange(indptr[-1]))
    none = Interactions(indptr=np.zeros(USERS + 1, np.int64), items=np.zeros(0, np.int64), times=np.zeros(0, np.int64))
    ids = {"user_ids": pl.Series(range(USERS)), "item_ids": pl.Series(range(ITEMS))}
    return Dataset(**ids, train=train, valid=none, test=none)


@pytest.fixture(scope="module")
def scratch(dataset, tmp_path_factory) -> dict[str, float]:
    """Return what students reach that nobody teaches, by their loss."""
    return {loss: found(student({}, loss), dataset, tmp_path_factory.mktemp(loss), None) for loss in LOSSES}


def taught(name: str, loss: str, dataset: Dataset, out: Path) -> float:
    method = load_method(PRESETS[name])
    spec = student(method.set.student, loss)
    terms = [shortened(term) for term in method.set.distill]
    own = {"guide": spec.guide, "partner": spec.partner, "task": spec.task, "start": spec.start}
    teaching = Teaching(terms=terms, labels=labels(dataset, method), **own)
    reached = found(spec, dataset, out, teaching)
    [point] = json.loads((out / "curve.json").read_text())
    said = {key for key in point if key[0].isdigit() and not key.endswith(".adapter")}
    assert said == {f"{i}.{term.loss.kind}" for i, term in enumerate(terms)}
    assert np.isfinite([value for key, value in point.items() if key != "valid"]).all()
    return reached


def student(changes: dict[str, Any], loss: str) -> StudentSpec:
    """Return the student that a preset asks for, refreshed every epoch; what it says of the loss comes last."""
    raw = merged(merged(STUDENT, LOSSES[loss]), changes)
    if "guide" in raw:
        raw["guide"] = {"depth": min(raw["guide"].get("depth", DEPTH), DEPTH), "refresh": 1}
    return StudentSpec.model_validate(raw)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = {key: merged(base[key], new) for key, new in changes.items() if isinstance(base.get(key), dict)}
    return base | changes | both


def shortened(term: Any) -> Any:
    """Return the term with phases as short as this training, and draws no deeper than these lists."""
    share = EPOCHS / PUBLISHED_EPOCHS
    phase = {name: value * share for name, value in term.phase.model_dump().items() if value is not None}
    changes: dict[str, Any] = {"phase": term.phase.model_copy(update=phase)}
    if hasattr(term.loss, "start"):
        changes["loss"] = term.loss.model_copy(update={"start": term.loss.start * share})
    if term.kind == "list":
        changes["draw"] = tuple(
            draw.model_copy(
                update={name: min(getattr(draw, name), DEPTH) for name in ("k", "n") if hasattr(draw, name)}
            )
            for draw in term.draw
        )
    return term.model_copy(update=changes)


def found(spec: StudentSpec, dataset: Dataset, out: Path, teaching: Teaching | None) -> float:
    """Fit; return the share of users' best unseen items that are of their own group: one in four by chance."""
    fit(dataset, spec.model, spec.train, out, name="m", world=World(), log=quiet, teaching=teaching)
    model, users = load(spec.model, dataset, out), np.arange(USERS)
    lists = recommend(
        model, dataset, users, FOUND, sequences=Sequences.of(dataset.train), history=0, seen=dataset.train
    )
    return float((lists % GROUPS == (users % GROUPS)[:, None]).mean())


def labels(dataset: Dataset, method: Method) -> Labels:
    """Return what a teacher says that knows the groups, with all that the preset asks the labels for."""
    asked = method.set.labels
    users, items = planted(1.0)
    lists = encoder_lister(users, items, DEPTH, dataset.train)(np.arange(USERS))
    made = Labels(
        items=(lists.items.astype(np.int32),),
        scores=(lists.scores,),
        residual=(lists.residual,),
        per_shard=USERS,
        facts={"along": (1, MOMENTS, DEPTH)},
    )
    if asked.get("vectors"):
        made = replace(made, vectors=Vectors(users=users, items=items))
    if asked.get("item_depth"):
        other = encoder_lister(items, users, DEPTH, turned(dataset.train, ITEMS))(np.arange(ITEMS))
        by_item = {"items": (other.items.astype(np.int32),), "scores": (other.scores,), "residual": (other.residual,)}
        made = replace(made, by_item=Labels(**by_item, per_shard=ITEMS, facts={}))
    if asked.get("trajectory"):
        lister = partial(encoder_lister, depth=DEPTH, seen=dataset.train)
        along = [lister(*planted(share))(np.arange(USERS)).items for share in np.linspace(0.4, 1.0, MOMENTS)]
        made = replace(made, extra={"trajectory": (np.concatenate(along, axis=1).astype(np.int32),)})
    return made


def planted(share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the teacher's vectors, of which `share` knows the groups: logits of 4 in a group, -4 out of it.

    They are wider than the student's: what says the group is turned into more dimensions than it needs.
    """
    rng = np.random.default_rng(1)
    turned_by = np.linalg.qr(rng.normal(size=(WIDE, GROUPS)))[0].T
    sides = [np.eye(GROUPS)[np.arange(size) % GROUPS] for size in (USERS, ITEMS)]
    noisy = [(share * side + (1.05 - share) * rng.normal(size=side.shape)) @ turned_by for side in sides]
    users = np.concatenate([8.0 * noisy[0], np.ones((USERS, 1))], axis=1)
    return users.astype(np.float32), np.concatenate([noisy[1], np.full((ITEMS, 1), -4.0)], axis=1).astype(np.float32)
