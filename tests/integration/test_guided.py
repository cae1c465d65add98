"""Terms that follow the student, or a partner, or compare vectors: several processes are one run, and so are stops."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recdistill.fit import fit
from recdistill.methods import load_method
from recdistill.models.spec import StudentSpec
from recdistill.teachers import encoder_lister
from recdistill.teaching import Teaching
from recdistill.types import Dataset, Interactions, Labels, Vectors, quiet
from recdistill.world import World

# As in test_world.py: two ranks add the same numbers in another order.
RELATIVE = 2e-4
ABSOLUTE_VALID = 0.005
# The student's lists are made of numbers that differ in the seventh digit, so near ties may stand in another order:
# what is compared of them are first places, not draws that follow each rank. The adapter has no noise: that of the
# others is a hash of the vector's last digits. Gram and topology compare the entities of a rank with each other, and
# two ranks hold other pairs than one: they are not the same term there, and are left out.
TERMS: list[dict[str, Any]] = [
    {
        "kind": "list",
        "weight": 0.5,
        "balance": True,
        "draw": [{"kind": "student_top", "k": 20}],
        "loss": {"kind": "softmax_kl", "temperature": 2.0},
    },
    {
        "kind": "list",
        "side": "items",
        "weight": 0.5,
        "balance": True,
        "draw": [{"kind": "ranked", "k": 10}, {"kind": "unseen", "n": 10}],
        "loss": {"kind": "plackett_luce"},
    },
    {
        "kind": "align",
        "weight": 0.3,
        "filter": {"neighbours": 3, "keep": 1.0},
        "preserve": {"k": 4},
        "loss": {"kind": "distance", "adapter": {"kind": "linear"}},
    },
    {
        "kind": "list",
        "teacher": "partner",
        "weight": 0.5,
        "balance": True,
        "phase": {"start": 1, "ramp": 1},
        "draw": [{"kind": "in_batch", "n": 16}],
        "loss": {"kind": "soft_bce"},
    },
]
TEACHER = {"model": {"kind": "mf", "dim": 16}, "train": {"epochs": 3, "batch": 512, "negatives": 64}}
STUDENT: dict[str, Any] = {
    "model": {"kind": "two_tower", "dim": 8, "history": 8},
    "train": {"epochs": 3, "batch": 512, "negatives": 64, "list_users": 64},
    "guide": {"depth": 40},
    "partner": {"kind": "two_tower", "dim": 12, "history": 4},
}


@pytest.fixture(scope="module")
def guided(tiny) -> tuple[str, dict[str, Any]]:
    """One process's run of all of these terms at once: its configuration, and what it said."""
    labels = {"depth": 30, "vectors": True, "item_depth": 40}
    sections = {"teacher": TEACHER, "labels": labels, "student": STUDENT, "distill": TERMS}
    config = tiny.config("guided", registry=None, features=None, **sections)
    return config, run(tiny, config, "guided/one")


def run(tiny, config: str, store: str, *words: str, processes: int = 1) -> dict[str, Any]:
    told = ("run", config, "--json", "--until", "student", "--set", f"exec.store={store}", *words)
    process = tiny(*told, processes=processes)
    assert process.returncode == 0, process.stdout + process.stderr
    return {row["stage"]: row for row in json.loads(process.stdout)["stages"]}


def curve(tiny, stages: dict[str, Any], store: str) -> list[dict[str, float]]:
    return json.loads((tiny.at("fit", stages["student"], store) / "curve.json").read_text())


@pytest.mark.parametrize("layout", ["table_wise", "row_wise"])
def test_two_processes_draw_the_curve_of_one(tiny, guided, layout) -> None:
    config, alone = guided
    store = f"guided/{layout}"
    labels = tiny.at("labels", alone["labels"], "guided/one")  # near ties of a teacher's are another teacher's lists
    shutil.copytree(labels, tiny.home / store / "labels" / labels.name)
    together = run(tiny, config, store, "--set", f"exec.tables={layout}", processes=2)
    ours, theirs = curve(tiny, alone, "guided/one"), curve(tiny, together, store)
    assert [p["step"] for p in theirs] == [p["step"] for p in ours]
    names = {"task", "partner", "0.softmax_kl", "1.plackett_luce", "2.distance", "3.soft_bce"}
    for one, two in zip(ours, theirs, strict=True):
        assert one.keys() == two.keys() == names | {"step", "valid"}
        assert {k: two[k] for k in names} == pytest.approx({k: one[k] for k in names}, rel=RELATIVE)
        assert two["valid"] == pytest.approx(one["valid"], abs=ABSOLUTE_VALID)
    assert ours[0]["3.soft_bce"] == 0.0 < ours[1]["3.soft_bce"]


def test_two_processes_begin_where_one_does(tiny, guided) -> None:
    model, train = {"kind": "mf", "dim": 8, "space": "dot"}, STUDENT["train"] | {"epochs": 1}
    sections = {
        "teacher": TEACHER,
        "labels": {"depth": 30, "vectors": True},
        "student": {"model": model, "train": train, "start": "teacher", "task": 0.1},
        "distill": [TERMS[0] | {"draw": [{"kind": "top", "k": 20}], "balance": False}],
    }
    config = tiny.config("begun", registry=None, features=None, **sections)
    one = run(tiny, config, "guided/one")
    labels = tiny.at("labels", one["labels"], "guided/one")
    shutil.copytree(labels, tiny.home / "guided/begun" / "labels" / labels.name)
    two = run(tiny, config, "guided/begun", "--set", "exec.tables=row_wise", processes=2)
    ours, theirs = curve(tiny, one, "guided/one"), curve(tiny, two, "guided/begun")
    assert [p["task"] for p in theirs] == pytest.approx([p["task"] for p in ours], rel=RELATIVE)
    assert [p["valid"] for p in theirs] == pytest.approx([p["valid"] for p in ours], abs=ABSOLUTE_VALID)
    random = run(tiny, config, "guided/one", "--set", "student.start=random", "--set", "labels.vectors=false")
    assert ours[0]["valid"] > 1.2 * curve(tiny, random, "guided/one")[0]["valid"]


USERS, ITEMS, EACH, DEPTH, MOMENTS = 60, 40, 8, 20, 3
EPOCH = 4  # steps: 60 users x 6 training items in batches of 90
METHODS = Path(__file__).parents[2] / "configs" / "methods"


class Stopped(Exception):
    """What ends a fit in the middle of a step's report."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Users who take every other item after their own, in any order."""
    rng = np.random.default_rng(3)
    rows = [[(user + 2 * int(n)) % ITEMS for n in rng.permutation(EACH)] for user in range(USERS)]
    parts = {"train": [r[:-2] for r in rows], "valid": [r[-2:-1] for r in rows], "test": [r[-1:] for r in rows]}

    def csr(lists):
        indptr = np.cumsum([0, *map(len, lists)]).astype(np.int64)
        items = np.array([i for one in lists for i in one], np.int64)
        return Interactions(indptr=indptr, items=items, times=np.arange(len(items), dtype=np.int64))

    made = {name: csr(lists) for name, lists in parts.items()}
    return Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), **made)


@pytest.fixture(scope="module")
def labels(dataset) -> Labels:
    """What two teachers of random vectors say, at moments that are unlike each other."""
    rng = np.random.default_rng(5)
    sides = [[rng.normal(size=(n, 6)).astype(np.float32) for n in (USERS, ITEMS)] for _ in range(2 * MOMENTS)]
    said = [encoder_lister(users, items, DEPTH, dataset.train)(np.arange(USERS)) for users, items in sides]
    one = Labels(
        items=(said[0].items.astype(np.int32),),
        scores=(said[0].scores,),
        residual=(said[0].residual,),
        per_shard=USERS,
        facts={"along": (2, MOMENTS, DEPTH)},
        vectors=Vectors(users=sides[0][0], items=sides[0][1]),
    )
    along = np.concatenate([lists.items for lists in said], axis=1).astype(np.int32)
    return replace(one, extra={"trajectory": (along,)})


def teaching(name: str, labels: Labels) -> tuple[StudentSpec, Teaching]:
    """Return what a preset makes of a small student; draws as deep as the lists, phases within four epochs."""
    changes = load_method(METHODS / f"{name}.yaml").set
    train = {"epochs": 4, "batch": 90, "negatives": 8, "patience": 0, "list_users": 30}
    raw = changes.student | {"model": {"kind": "mf", "dim": 4}, "train": train, "guide": {"depth": DEPTH, "refresh": 2}}
    spec = StudentSpec.model_validate(raw)
    terms = []
    for term in changes.distill:
        size = {"k": DEPTH // 2, "n": DEPTH // 2}
        draws = [d.model_copy(update={k: v for k, v in size.items() if hasattr(d, k)}) for d in term.draw]
        phase = {key: value / 6 for key, value in term.phase.model_dump().items() if value is not None}
        update = {"draw": tuple(draws), "phase": term.phase.model_copy(update=phase)}
        terms.append(term.model_copy(update=update))
    own = {"guide": spec.guide, "partner": spec.partner, "task": spec.task, "start": spec.start}
    return spec, Teaching(terms=terms, labels=labels, **own)


def train(out: Path, dataset: Dataset, name: str, labels: Labels, *, stop: int = 0, every: int = 2):
    """Fit into `out`, raising from `log` at step `stop`; return what it wrote, or None if it was stopped."""

    def log(what, step, total, values):
        if stop and step == stop:
            raise Stopped

    out.mkdir(exist_ok=True)
    spec, taught = teaching(name, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        watch = {"log": log if stop else quiet, "checkpoint_every": every, "teaching": taught}
        try:
            facts = fit(dataset, spec.model, spec.train, out, name="m", world=World(), **watch)
        except Stopped:
            return None
    files = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in out.iterdir()}
    del facts["seconds_per_epoch"]
    return facts, files


@pytest.mark.parametrize("name", ["rce-kd", "hetcomp", "bd"])
def test_a_stopped_fit_that_follows_its_student_goes_on_to_the_same_bytes(tmp_path, dataset, labels, name) -> None:
    alone = train(tmp_path / "alone", dataset, name, labels)
    assert alone is not None
    assert {"weights.safetensors", "curve.json"} <= set(alone[1])
    assert not any(file.startswith(("checkpoint", "guide", "weights-")) for file in alone[1])
    # Refreshes are at steps 0 and 8: once it stops after a refresh that no checkpoint follows, once between the two.
    for stop in (3, 5, 9, 13):
        assert train(tmp_path / "stopped", dataset, name, labels, stop=stop) is None
    assert train(tmp_path / "stopped", dataset, name, labels) == alone


@pytest.mark.parametrize("name", ["rce-kd", "hetcomp", "bd"])
def test_how_often_is_saved_changes_nothing_that_follows_the_student(tmp_path, dataset, labels, name) -> None:
    often = train(tmp_path / "often", dataset, name, labels, every=1)
    assert often == train(tmp_path / "never", dataset, name, labels, every=500)
