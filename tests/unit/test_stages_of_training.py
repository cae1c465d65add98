"""Parts of a training in which not everything learns: what stands still stays the same to the bit."""

from __future__ import annotations

import json
import warnings
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recdistill.config import load_config
from recdistill.distill.schedule import WHOLE, Part, part_at
from recdistill.distill.spec import AlignTermSpec
from recdistill.errors import ConfigError
from recdistill.fit import fit
from recdistill.models.gradients import windowed
from recdistill.models.spec import MFSpec, StageSpec, TrainSpec, TwoTowerSpec
from recdistill.teachers import encoder_lister
from recdistill.teaching import Teaching, parts
from recdistill.types import Dataset, Interactions, Labels, Vectors, quiet
from recdistill.world import World

USERS, ITEMS, DIM = 50, 30, 8
STAGES = (
    StageSpec(epochs=1, moves=("items",), task=False),
    StageSpec(epochs=1, moves=("users",), task=False),
    StageSpec(epochs=1, moves=(), task=True),
)


def test_parts_follow_each_other_and_then_everything_learns() -> None:
    first, second = Part(until=0.25, items=False), Part(until=0.5, users=False, task=False)
    found = [part_at((first, second), share) for share in (0.0, 0.2, 0.25, 0.49, 0.5, 1.0)]
    assert found == [first, first, second, second, WHOLE, WHOLE]
    assert part_at((), 0.0) == WHOLE


def test_stages_in_epochs_are_parts_in_shares() -> None:
    assert parts(Teaching(terms=(), stages=STAGES), 8, DIM) == [
        Part(until=0.125, users=False, items=True, task=False),
        Part(until=0.25, users=True, items=False, task=False),
        Part(until=0.375, users=False, items=False, task=True),
    ]
    assert parts(None, 10, DIM) == []


def test_vectors_grow_part_by_part_and_what_was_there_stands_still() -> None:
    grown = (StageSpec(epochs=2, width=4), StageSpec(epochs=2, width=6), StageSpec())
    found = parts(Teaching(terms=(), stages=grown), 8, DIM)
    assert [(part.until, part.columns) for part in found] == [(0.25, (0, 4)), (0.5, (4, 6)), (1.0, (6, DIM))]
    assert parts(Teaching(terms=(), stages=(StageSpec(epochs=2, width=DIM),)), 8, DIM)[0].columns is None


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(3)
    own = np.stack([rng.permutation(ITEMS)[:6] for _ in range(USERS)])
    cuts = {"train": slice(4), "valid": slice(4, 5), "test": slice(5, 6)}
    made = {}
    for name, cut in cuts.items():
        part = own[:, cut]
        indptr = np.arange(USERS + 1, dtype=np.int64) * part.shape[1]
        made[name] = Interactions(indptr=indptr, items=part.reshape(-1), times=np.arange(part.size))
    return Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), **made)


def trained(dataset: Dataset, out, model=None, stages=STAGES, **settings):
    rng = np.random.default_rng(0)
    given = Vectors(
        users=rng.standard_normal((USERS, 12)).astype(np.float32),
        items=rng.standard_normal((ITEMS, 12)).astype(np.float32),
    )
    said = encoder_lister(given.users, given.items, 10, dataset.train)(np.arange(USERS))
    lists = {"items": (said.items.astype(np.int32),), "scores": (said.scores,), "residual": (said.residual,)}
    labels = Labels(**lists, per_shard=USERS, facts={}, vectors=given)
    term = {"kind": "align", "weight": 1.0, "loss": {"kind": "distance", "adapter": {"kind": "linear"}}}
    teaching = Teaching(terms=[AlignTermSpec.model_validate(term)], labels=labels, stages=stages)
    train = TrainSpec(epochs=4, batch=100, negatives=4, list_users=10, patience=0, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        spec = model or MFSpec(dim=DIM, space="dot", temperature=1.0)
        fit(dataset, spec, train, out, name="m", world=World(), log=quiet, teaching=teaching, keep=True)
    return [load_file(out / f"weights-{2 * epoch}.safetensors") for epoch in (1, 2, 3, 4)]


@pytest.mark.parametrize("model", [None, TwoTowerSpec(dim=DIM, history=4, id_dropout=0.0)], ids=["mf", "two_tower"])
def test_what_stands_still_stays_the_same_to_the_bit(dataset, tmp_path, model) -> None:
    after = trained(dataset, tmp_path, model)
    (tmp_path / "none").mkdir()
    begun = trained(dataset, tmp_path / "none", model, stages=(StageSpec(epochs=4, moves=()),))

    def moved(one, other, side):
        return not torch.equal(one[f"{side}.weight"], other[f"{side}.weight"])

    for epoch in begun[1:]:
        assert not moved(begun[0], epoch, "user")
        assert not moved(begun[0], epoch, "item")
    expected = [(False, True), (True, False), (False, False), (True, True)]
    steps = [begun[0], *after]
    found = [(moved(a, b, "user"), moved(a, b, "item")) for a, b in pairwise(steps)]
    assert found == expected


def test_where_the_task_does_not_count_its_loss_is_zero(dataset, tmp_path) -> None:
    trained(dataset, tmp_path)
    assert [point["task"] > 0 for point in json.loads((tmp_path / "curve.json").read_text())] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("model", [None, TwoTowerSpec(dim=DIM, space="dot", history=4)], ids=["mf", "two_tower"])
def test_what_a_narrow_student_has_learned_is_not_touched_by_what_is_put_beside_it(dataset, tmp_path, model) -> None:
    after = trained(dataset, tmp_path, model, stages=(StageSpec(epochs=2, width=4), StageSpec()))
    for side in ("user", "item"):
        first, second, third, last = (weights[f"{side}.weight"] for weights in after)
        assert torch.equal(second[:, :4], third[:, :4])
        assert torch.equal(second[:, :4], last[:, :4])
        assert torch.equal(first[:, 4:], second[:, 4:])
        assert not torch.equal(first[:, :4], second[:, :4])
        assert not torch.equal(second[:, 4:], last[:, 4:])


def test_numbers_that_are_not_there_yet_are_zeros_and_only_the_window_learns() -> None:
    x = torch.randn(5, DIM, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = windowed(x, (2, 5))
    found.square().sum().backward()
    assert torch.equal(found[:, :5], x[:, :5])
    assert not found[:, 5:].any()
    assert torch.equal(x.grad[:, 2:5], 2 * x[:, 2:5])
    assert not x.grad[:, :2].any()
    assert not x.grad[:, 5:].any()
    assert windowed(x, None) is x


GOOD = """\
name: tiny
log: {path: log.parquet, user: u, item: i}
split: {kind: user_random}
teacher:
  model: {kind: mf, dim: 16}
  train: {epochs: 3}
labels: {depth: 50}
student:
  model: {kind: mf, dim: 8}
  train: {epochs: 5}
  stages: [{epochs: 2, moves: [items], task: false}, {epochs: 2, moves: [users]}]
distill:
  - {kind: list, weight: 1, draw: [{kind: top, k: 5}], loss: {kind: softmax_kl}}
report: {k: [10]}
"""


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ([], ""),
        (["student.stages=[{epochs: 3, moves: [items]}, {epochs: 3, moves: [users]}]"], "take 6 epochs"),
        (["student.stages=[{epochs: 3}]"], "has no effect: everything learns"),
        (["student.stages=[{epochs: 3, moves: [items, items]}]"], "names a side twice"),
        (["student.model={kind: mf, dim: 8, space: dot}", "student.stages=[{epochs: 2, width: 4}, {}]"], ""),
        (["student.stages=[{epochs: 2, width: 4}, {}]"], "a width needs space: dot"),
        (["student.stages=[{epochs: 2, width: 4}, {epochs: 2, width: 4}]"], "widths rise"),
        (["student.stages=[{epochs: 2, width: 12}]"], "is 12 after 0 of 8"),
        (["student.stages=[{moves: [items]}, {epochs: 2, moves: [users]}]"], "the last part alone"),
        (["student.stages=[{epochs: 5, moves: [items]}, {moves: [users]}]"], "take 5 epochs"),
        (["student.train.optimizer=adam"], "adam moves what has no gradient"),
        (["student.train.weight_decay=0.1"], "must not decay"),
        (["student.model={kind: two_tower, dim: 8, hidden: [8]}"], "layers do not stand still"),
    ],
)
def test_what_cannot_stand_still_is_refused(tmp_path, sets, reason) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    if not reason:
        load_config(path, sets)
        return
    with pytest.raises(ConfigError) as caught:
        load_config(path, sets)
    assert any(reason in problem.reason for problem in caught.value.problems), caught.value
