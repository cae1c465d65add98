"""Users and items of planted types: a teacher finds subclasses of its own, and a student learns them, on any ranks."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recdistill.beside import write_head
from recdistill.data.sequences import Sequences
from recdistill.distill.objective import Objective
from recdistill.distill.spec import ListTermSpec
from recdistill.distill.spec_draws import Top, Unseen
from recdistill.distill.spec_lists import SubclassKL
from recdistill.distill.spec_subclass import Subclasses
from recdistill.distill.subclass import Classes, sub_logits
from recdistill.errors import ArtifactError
from recdistill.fit import fit, load
from recdistill.models.build import build
from recdistill.models.heads import HEAD, read_head
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted, LightGCNSpec, MFSpec, TrainSpec
from recdistill.models.tables import PlainTable
from recdistill.scoring import recommend, scaled, vectors
from recdistill.subclasses import classes_of, evenness
from recdistill.teaching import Teaching
from recdistill.topk import exact_topk
from recdistill.types import Artifact, Batch, Dataset, Interactions, Labels, Manifest, Past, Vectors, quiet
from recdistill.world import World

ROOT = Path(__file__).parents[2]
TYPES, USERS, ITEMS, TAKEN = 4, 96, 40, 6
MODEL, STUDENT = MFSpec(dim=8), MFSpec(dim=4)
TRAIN = {"epochs": 16, "batch": 96, "negatives": 40, "patience": 0, "evaluate_every": 8, "dense_lr": 0.02}
TEACHER = TrainSpec(**TRAIN, subclasses=Subclasses(count=TYPES))
TAUGHT = TrainSpec(**TRAIN | {"epochs": 24, "evaluate_every": 12, "list_users": 96})
TERM = ListTermSpec(weight=10.0, draw=(Top(k=20), Unseen(n=20)), loss=SubclassKL())


def csr(lists) -> Interactions:
    return Interactions(indptr=np.cumsum([0, *map(len, lists)]).astype(np.int64), items=np.concatenate(lists))


def planted() -> Dataset:
    """Users who take items of their own type alone."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(np.flatnonzero(np.arange(ITEMS) % TYPES == u % TYPES)) for u in range(USERS)]
    cuts = {"train": slice(0, TAKEN), "valid": slice(TAKEN, TAKEN + 1), "test": slice(TAKEN + 1, None)}
    parts = {name: csr([order[cut] for order in orders]) for name, cut in cuts.items()}
    return Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), **parts)


def noise() -> Dataset:
    """The same, but users' training items say nothing: only a teacher knows the types."""
    rng = np.random.default_rng(1)
    return replace(planted(), train=csr([rng.permutation(ITEMS)[:TAKEN] for _ in range(USERS)]))


class Stopped(Exception):
    """What ends a fit in the middle of a step's report."""


def trained(out, dataset, spec, settings, *, stop=0, every=500, teaching=None, world=World()):  # noqa: B008
    """Fit into `out`, raising from `log` at step `stop`; return the facts, or None if it was stopped."""

    def log(what, step, total, values):
        if stop and step == stop:
            raise Stopped

    out.mkdir(exist_ok=True, parents=True)
    how = {"name": "m", "world": world, "log": log if stop else quiet, "checkpoint_every": every, "teaching": teaching}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        try:
            return fit(dataset, spec, settings, out, **how)
        except Stopped:
            return None


def labels_of(path: Path) -> Labels:
    """Return what the teacher at `path` says, with its vectors and its head."""
    users, items = np.load(path / "users.npy") / np.float32(MODEL.temperature), np.load(path / "items.npy")
    best, rows = exact_topk(users, items, 20), {"per_shard": USERS, "facts": {}}
    lists = {"items": (best.items.numpy().astype(np.int32),), "scores": (best.scores.numpy(),)}
    beside = {"vectors": Vectors(users=users, items=items), "subclasses": read_head(path)}
    return Labels(residual=(best.residual.numpy(),), **lists, **beside, **rows)


def curve(path: Path):
    return json.loads((path / "curve.json").read_text())


def digests(path: Path):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    facts = trained(out, planted(), MODEL, TEACHER)
    assert facts is not None
    return out, facts


def test_a_teacher_uses_all_of_its_subclasses_and_the_loss_that_spreads_is_why(teacher, tmp_path) -> None:
    out, facts = teacher
    assert {name: share > 0.8 for name, share in facts["subclass_usage"].items()} == {"taken": True, "not_taken": True}
    alone = TEACHER.model_copy(update={"subclasses": Subclasses(count=TYPES, spread=0.0)})
    without = trained(tmp_path, planted(), MODEL, alone)
    assert without is not None
    assert facts["subclass_usage"]["taken"] > without["subclass_usage"]["taken"] + 0.1
    assert curve(out)[-1]["subclasses.spread"] < -0.5 < curve(tmp_path)[-1]["subclasses.spread"] == 0.0
    assert facts["valid_ndcg_at_10"] > 0.55


def test_a_pairs_class_is_whether_the_user_is_of_the_items_type(teacher) -> None:
    said = labels_of(teacher[0])
    assert said.vectors is not None
    assert said.subclasses is not None
    head = [torch.from_numpy(part) for part in said.subclasses]
    subs = sub_logits(torch.from_numpy(said.vectors.users), torch.from_numpy(said.vectors.items), *head)
    taken = subs[..., :TYPES].logsumexp(-1) > subs[..., TYPES:].logsumexp(-1)
    own = torch.arange(USERS).unsqueeze(1) % TYPES == torch.arange(ITEMS) % TYPES
    assert (taken == own).float().mean() > 0.95


def test_without_its_head_a_teacher_scores_the_same_bits(teacher, tmp_path) -> None:
    out, _ = teacher
    assert "weight" not in load_file(out / "weights.safetensors")
    assert sorted(load_file(out / HEAD)) == ["bias", "weight"]
    (tmp_path / "weights.safetensors").write_bytes((out / "weights.safetensors").read_bytes())
    found = vectors(load(MODEL, planted(), tmp_path), planted(), Sequences.of(planted().train), 0)
    assert np.array_equal(found.users, np.load(out / "users.npy"))
    assert np.array_equal(found.items, np.load(out / "items.npy"))


def test_a_student_learns_the_types_from_subclasses_and_its_scores_need_no_head(teacher, tmp_path) -> None:
    dataset = noise()
    teaching = Teaching(labels=labels_of(teacher[0]), terms=[TERM])
    assert trained(tmp_path, dataset, STUDENT, TAUGHT, teaching=teaching)
    points = curve(tmp_path)
    assert points[-1]["0.subclass_kl"] < points[0]["0.subclass_kl"]
    assert sorted(load_file(tmp_path / "weights.safetensors")) == ["item.weight", "user.weight"]
    model, past = load(STUDENT, dataset, tmp_path), Sequences.of(dataset.train)
    lists = recommend(model, dataset, np.arange(USERS), 4, sequences=past, history=0, seen=dataset.train)
    assert (lists % TYPES == (np.arange(USERS) % TYPES)[:, None]).mean() > 0.9
    found = vectors(model, dataset, past, 0)
    assert np.array_equal(found.users, np.load(tmp_path / "users.npy"))


def test_a_stopped_fit_goes_on_to_the_same_bytes(teacher, tmp_path) -> None:
    short = {"epochs": 4, "evaluate_every": 1}
    cases = {
        "teacher": (planted(), MODEL, TEACHER.model_copy(update=short), None),
        "student": (
            noise(),
            STUDENT,
            TAUGHT.model_copy(update=short),
            Teaching(labels=labels_of(teacher[0]), terms=[TERM]),
        ),
    }
    for name, (*given, teaching) in cases.items():
        alone = trained(tmp_path / "alone" / name, *given, teaching=teaching)
        for stop in (5, 15):
            assert trained(tmp_path / "stopped" / name, *given, stop=stop, every=2, teaching=teaching) is None
        again = trained(tmp_path / "stopped" / name, *given, teaching=teaching)
        assert alone is not None
        assert again is not None
        assert digests(tmp_path / "stopped" / name) == digests(tmp_path / "alone" / name)
        assert again.get("subclass_usage") == alone.get("subclass_usage")
        assert (tmp_path / "alone" / name / HEAD).is_file() == (name == "teacher")


RANKS = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import test_subclass_fit as this
from recdistill.world import world
with world(device="cpu", threads=1) as joined:
    this.both(Path(sys.argv[3]), Path(sys.argv[4]), joined)
"""


def both(teacher: Path, out: Path, world: World) -> None:
    """Fit a teacher, and a student of the one at `teacher`."""
    short = {"epochs": 3, "evaluate_every": 1}
    trained(out / "teacher", planted(), MODEL, TEACHER.model_copy(update=short), world=world)
    teaching = Teaching(labels=labels_of(teacher), terms=[TERM])
    trained(out / "student", noise(), STUDENT, TAUGHT.model_copy(update=short), teaching=teaching, world=world)


def test_two_processes_draw_the_curves_of_one(teacher, tmp_path) -> None:
    both(teacher[0], tmp_path / "one", World())
    (tmp_path / "ranks.py").write_text(RANKS)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "ranks.py")]
    words = [str(ROOT), str(Path(__file__).parent), str(teacher[0]), str(tmp_path / "two")]
    made = subprocess.run([sys.executable, *torchrun, *words], capture_output=True, text=True, timeout=280, check=False)
    assert made.returncode == 0, made.stderr
    for name in ("teacher", "student"):
        ours, theirs = curve(tmp_path / "one" / name), curve(tmp_path / "two" / name)
        assert len(ours) == len(theirs) == 3
        for one, two in zip(ours, theirs, strict=True):
            assert two.keys() == one.keys()
            losses = one.keys() - {"valid"}
            assert {k: two[k] for k in losses} == pytest.approx({k: one[k] for k in losses}, rel=2e-4)
    heads = [read_head(tmp_path / ranks / "teacher") for ranks in ("one", "two")]
    for one, two in zip(*heads, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("popularity", [0.0, 0.5])
def test_what_a_graphs_head_reads_in_training_is_what_labels_keep(popularity) -> None:
    dataset, spec = planted(), LightGCNSpec(dim=8, layers=1, popularity=popularity)
    model = build(spec, dataset, PlainTable, seed=0)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    seen: list[torch.Tensor] = []

    class Told(Classes):
        def forward(self, left, positives, negatives, batch):
            seen.append(torch.cat([self.head(left, positives.unsqueeze(1)), self.head(left, negatives)], dim=1))
            return super().forward(left, positives, negatives, batch)

    classes = classes_of(spec, TEACHER)
    assert classes is not None
    told = Told(classes.head, weight=1.0, spread=1.0, temperature=1.0)
    batch = Batch(
        users=torch.tensor([5, 0, 9]),
        positives=torch.tensor([1, 7, 3]),
        negatives=torch.tensor([30, 2, 7]),
        past=Past(items=torch.zeros(3, 0).long()),
        count=3.0,
        list_users=torch.zeros(0).long(),
        list_past=Past(items=torch.zeros(0, 0).long()),
    )
    with_head = Objective(model, loss="softmax", num_items=ITEMS, classes=told)(batch)
    plain = Objective(model, loss="softmax", num_items=ITEMS)(batch)
    assert torch.equal(with_head["task"], plain["task"])  # the head is beside what serves
    users, items = (
        torch.from_numpy(side)
        for side in scaled(vectors(model, dataset, Sequences.of(dataset.train), 0), spec.temperature)
    )
    asked = torch.cat([batch.positives.unsqueeze(1), torch.tensor([[30, 2, 7]]).expand(3, -1)], dim=1)
    expected = sub_logits(users[batch.users], items[asked], told.head.weight, told.head.bias)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)


def artifact(path: Path) -> Artifact:
    said = {"stage": "fit", "fingerprint": "f", "created_at": ""}
    empty = {name: {} for name in ("config", "inputs", "files", "facts", "env")}
    return Artifact(path=path, manifest=Manifest(format=1, version=1, seconds=0.0, **said, **empty), hit=True)


def test_labels_keep_the_head_of_a_single_teacher_as_it_is(teacher, tmp_path) -> None:
    one = Fitted(MODEL, artifact(teacher[0]))
    for number, asked in enumerate([Teacher(models=(one, one)), Teacher(models=(one,), recipe=one.artifact)]):
        (tmp_path / str(number)).mkdir()
        write_head(tmp_path / str(number), asked)
        assert read_head(tmp_path / str(number)) is None  # several mix their scores, or a recipe moves them
    write_head(tmp_path, Teacher(models=(one,)))
    assert (tmp_path / HEAD).read_bytes() == (teacher[0] / HEAD).read_bytes()
    (tmp_path / HEAD).write_bytes(b"no head")
    with pytest.raises(ArtifactError, match="cannot be read as a head"):
        read_head(tmp_path)


def test_usage_is_one_where_all_are_used_alike_and_nil_where_one_is() -> None:
    assert evenness(torch.tensor([0, 1, 2, 3]), 4) == pytest.approx(1.0)
    assert evenness(torch.tensor([2, 2, 2]), 4) == 0.0
    assert evenness(torch.tensor([0, 0, 3, 3]), 4) == pytest.approx(0.5)
