"""What labels.gates keeps: a teacher's gradients by gates on the histories of its users, beside their lists."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from recdistill.data.sequences import Sequences
from recdistill.distill.spec import LabelsSpec
from recdistill.errors import ArtifactError, ConfigError
from recdistill.gated import gates
from recdistill.labelling import label_data
from recdistill.labels import open_labels
from recdistill.models.build import build
from recdistill.models.encoders import Group
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted, MFSpec, RankerSpec, SequenceSpec, TwoTowerSpec
from recdistill.models.tables import PlainTable
from recdistill.shards import Share
from recdistill.taught import looks
from recdistill.types import Dataset, Interactions, quiet

USERS, ITEMS, LENGTH, DEPTH = 20, 25, 5, 6
RNG = np.random.default_rng(3)
TWO_TOWER = TwoTowerSpec(dim=8, history=LENGTH, temperature=0.4)
SPECS = {
    "two_tower": TWO_TOWER,
    "two_tower dot": TwoTowerSpec(dim=4, history=LENGTH, hidden=(7,), space="dot"),
    "sequence": SequenceSpec(dim=8, layers=1, history=LENGTH),
    "ranker": RankerSpec(dim=8, heads=2, cross_layers=1, cross_rank=4, hidden=(8,), history=LENGTH),
}
STAMP = {"step": "s1", "teacher": "t1"}


def log(rows):
    items = np.array([item for row in rows for item in row], np.int64)
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Interactions(indptr=indptr, items=items, times=np.arange(len(items), dtype=np.int64) * 60_000_000)


TRAIN = log([RNG.choice(ITEMS, RNG.integers(0, 9) if user else 0, replace=False) for user in range(USERS)])
DATA = Dataset(
    user_ids=pl.Series(range(USERS)),
    item_ids=pl.Series(range(ITEMS)),
    train=TRAIN,
    valid=log([[]] * USERS),
    test=log([[]] * USERS),
)
EVERYBODY = np.arange(USERS)
SEQUENCES = Sequences.of(TRAIN)
LATEST = SEQUENCES.latest(torch.arange(USERS), LENGTH)


def model_of(spec):
    made, generator = build(spec, DATA, PlainTable, seed=1), torch.Generator().manual_seed(2)
    for parameter in made.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    return made.eval()


@pytest.fixture
def teacher(tmp_path):
    def make(spec=TWO_TOWER, **more):
        path = tmp_path / f"model-{spec.kind}"
        path.mkdir()
        save_file(model_of(spec).state_dict(), path / "weights.safetensors")
        return Teacher(models=(Fitted(spec, SimpleNamespace(path=path)),), **more)  # pyrefly: ignore

    return make


def label(out, teacher, share=Share(), whole=True, **settings):  # noqa: B008
    out.mkdir(exist_ok=True)
    spec = LabelsSpec(**{"depth": DEPTH, "shard_users": 8, "gates": True} | settings)
    scratch = teacher.models[0]
    return label_data(DATA, teacher, scratch, spec, out, STAMP, quiet, share=share, whole=whole)


class Scaled(torch.nn.Module):
    """An item side that gives other vectors where one place of a history is read: times a gate."""

    def __init__(self, table, place, gate):
        super().__init__()
        self.table, self.place, self.gate = table, place, gate

    def forward(self, rows, lengths):
        bags = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        found = self.table(rows)
        found[self.place] *= self.gate
        return torch.zeros(len(lengths), found.shape[1], dtype=found.dtype).index_add(0, bags, found)


@torch.no_grad()
def differences(spec, lists, scale=1.0, step=1e-5):
    """Return what each item of each two-tower user's history does to its confidence, by the model that serves."""
    model, found = model_of(spec).double(), np.zeros((USERS, LENGTH))
    table = model.item
    for user, place in np.argwhere(LATEST.items.numpy() >= 0):
        listed = torch.from_numpy(lists[user : user + 1])
        ends, count = [], int((LATEST.items[user] >= 0).sum())
        for sign in (1, -1):
            # A row's own history is looked up after what is listed, its earliest item first.
            model.item = Scaled(table, listed.shape[1] + place - (LENGTH - count), 1 + sign * step)
            past = SEQUENCES.latest(torch.tensor([user]), LENGTH)
            ends.append(scale * model.score(torch.tensor([user]), past, [Group(listed)])[0])
        chances = [end.softmax(1)[0, 0].item() for end in ends]
        found[user, place] = (chances[0] - chances[1]) / (2 * step)
    return found


@pytest.mark.parametrize("name", ["two_tower", "two_tower dot"])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_a_towers_gates_are_finite_differences_of_the_model_that_serves(name, scale):
    taken = np.unique(TRAIN.items)
    lists = np.stack([RNG.choice(taken, DEPTH, replace=False) for _ in range(USERS)])
    found = gates(model_of(SPECS[name]), DATA, EVERYBODY, lists, SEQUENCES, LENGTH, scale=scale)
    wanted = differences(SPECS[name], lists, scale)
    assert np.abs(wanted).max() > 0.02
    np.testing.assert_allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize("name", SPECS)
def test_any_teacher_with_a_history_has_a_gradient_for_each_item_of_it(name, teacher, tmp_path):
    label(tmp_path / "out", teacher(SPECS[name]))
    made = open_labels(tmp_path / "out")
    assert made.gates is not None
    assert made.gates.dtype == np.float32
    assert made.gates.shape == (USERS, LENGTH)
    np.testing.assert_array_equal(made.gates != 0, LATEST.items.numpy() >= 0)
    model = model_of(SPECS[name])
    lists = made.take(EVERYBODY)[0]
    for wanted in (EVERYBODY[5:7], EVERYBODY[11:12]):  # nobody's depends on who else is asked for
        found = gates(model, DATA, wanted, lists[wanted], SEQUENCES, LENGTH)
        np.testing.assert_allclose(found, made.gates[wanted], atol=1e-6)


@pytest.mark.parametrize("name", ["sequence", "ranker"])
def test_gates_of_one_change_nothing_that_attends(name):
    model, listed = model_of(SPECS[name]), torch.arange(12).expand(USERS, 12)
    users, open_ = torch.arange(USERS), replace(LATEST, gates=torch.ones(USERS, LENGTH))
    if name == "ranker":
        given = model(users, open_, listed), model(users, LATEST, listed)
    else:
        given = model.vectors(users, open_, listed[0])[0], model.vectors(users, LATEST, listed[0])[0]
    torch.testing.assert_close(*given)


def test_a_calibrated_teacher_is_as_sure_as_its_calibration_says(teacher, tmp_path):
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    member = '{"model": 0, "weights": "weights.safetensors", "temperature": 1.0, "share": [1.0]}'
    told = f'{{"kind": "one", "members": [{member}], "edges": [], "scale": 0.3, "shift": 2.0, "space": "logit"}}'
    (recipe / "recipe.json").write_text(told)
    label(tmp_path / "out", teacher(recipe=SimpleNamespace(path=recipe)))
    made = open_labels(tmp_path / "out")
    lists = made.take(EVERYBODY)[0]
    wanted = gates(model_of(TWO_TOWER), DATA, EVERYBODY, lists, SEQUENCES, LENGTH, scale=0.3)
    np.testing.assert_allclose(made.gates, wanted, atol=1e-6)


def test_machines_that_label_a_share_each_leave_the_same_gates(teacher, tmp_path):
    asked = teacher()
    label(tmp_path / "one", asked)
    for number in (1, 2):
        label(tmp_path / "many", asked, share=Share(number, 2), whole=False)
    assert open_labels(tmp_path / "one").gates is not None
    assert not (tmp_path / "many" / "gates.npy").exists()
    label(tmp_path / "many", asked, share=None)
    np.testing.assert_array_equal(open_labels(tmp_path / "many").gates, open_labels(tmp_path / "one").gates)


def test_a_store_that_lacks_a_shard_says_so_and_nothing_of_gates(teacher, tmp_path):
    asked = teacher()
    label(tmp_path / "out", asked, share=Share(1, 2), whole=False)
    with pytest.raises(ArtifactError, match="1 of 3 shards are missing"):
        label(tmp_path / "out", asked, share=None)


def test_a_teacher_without_a_history_or_of_many_trainings_is_refused(teacher, tmp_path):
    with pytest.raises(ConfigError, match=r"labels\.gates.*reads a history"):
        label(tmp_path / "out", teacher(MFSpec(dim=8)))
    with pytest.raises(ConfigError, match=r"labels\.gates"):
        label(tmp_path / "folds", replace(made := teacher(), models=made.models * 2, folds=2))


def test_labels_that_keep_none_are_what_they_were(teacher, tmp_path):
    assert "gates" not in LabelsSpec().model_dump()
    label(tmp_path / "out", teacher(), gates=False)
    made = open_labels(tmp_path / "out")
    assert made.gates is None
    with pytest.raises(AssertionError, match=r"labels\.gates"):
        looks(made, torch.arange(3))


def test_a_step_is_shown_whole_lists_and_gates_of_its_users(teacher, tmp_path):
    label(tmp_path / "out", teacher())
    made = open_labels(tmp_path / "out")
    items, found = looks(made, torch.tensor([9, 2, 17]))
    np.testing.assert_array_equal(items.numpy(), made.take(np.array([9, 2, 17]))[0])
    np.testing.assert_array_equal(found.numpy(), made.gates[[9, 2, 17]])
