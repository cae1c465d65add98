"""Habits of planted models: a copy has all of its teacher's, and says so only where somebody reads a history."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from recdistill.data.sequences import Sequences
from recdistill.diagnose.inherit import attack_transfer, invariance, moved
from recdistill.diagnosis.edits import flipping, heaviest, oldest, without
from recdistill.diagnosis.habits import PLACES, habits
from recdistill.diagnosis.lists import Measure
from recdistill.diagnosis.voices import asked
from recdistill.distill.spec import LabelsSpec
from recdistill.models.build import build
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted, MFSpec, RankerSpec, SequenceSpec, TwoTowerSpec
from recdistill.models.tables import PlainTable
from recdistill.types import Dataset, Interactions

USERS, ITEMS = 70, 60
HOW = Measure("ndcg", 10, 200, 0)
SPECS = {
    "two_tower": TwoTowerSpec(dim=8, history=9, temperature=0.3),
    "sequence": SequenceSpec(dim=8, history=9, heads=2, layers=1, temperature=0.3),
    "ranker": RankerSpec(dim=8, heads=2, cross_layers=1, cross_rank=3, hidden=(8,), history=9),
}


def interactions(taken: np.ndarray) -> Interactions:
    items = np.nonzero(taken)[1]
    return Interactions(
        indptr=np.concatenate([[0], taken.sum(1).cumsum()]), items=items, times=np.arange(len(items)) * 10**9
    )


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Return a log in which everybody took 2 to 14 items, and three more that are held out."""
    rng = np.random.default_rng(1)
    order = np.argsort(rng.random((USERS, ITEMS)), axis=1)
    place = np.argsort(order, axis=1)
    sizes = rng.integers(2, 15, size=(USERS, 1))
    train, valid = place < sizes, (place >= sizes) & (place < sizes + 1)
    test = (place >= sizes + 1) & (place < sizes + 4)
    ids = {"user_ids": pl.Series(range(USERS)), "item_ids": pl.Series(range(ITEMS))}
    return Dataset(**ids, train=interactions(train), valid=interactions(valid), test=interactions(test))


@pytest.fixture
def fitted(data, tmp_path):
    """Return the function that gives a model of a kind whose weights are random, the same for equal seeds."""

    def make(spec, seed: int) -> Fitted:
        path = tmp_path / f"{spec.kind}-{seed}"
        path.mkdir(exist_ok=True)
        model, generator = build(spec, data, PlainTable, seed=1), torch.Generator().manual_seed(seed)
        for name, weight in model.named_parameters():
            scale = 0.1 if name.startswith("user") else 0.6  # what is read says more than who reads
            weight.data = torch.randn(weight.shape, generator=generator) * scale
        save_file(model.state_dict(), path / "weights.safetensors")
        return Fitted(spec, SimpleNamespace(path=path))  # pyrefly: ignore

    return make


def judged(teacher, student, scratch):
    made = {"teacher": teacher, "student": [student], "scratch": [scratch], "labels": None}
    return SimpleNamespace(**made, candidates=LabelsSpec(depth=10))


@pytest.mark.parametrize("kind", SPECS)
def test_a_copy_has_every_habit_of_its_teacher_and_a_stranger_has_not(data, fitted, kind: str) -> None:
    copy, stranger = fitted(SPECS[kind], 1), fitted(SPECS[kind], 2)
    who = asked(data, 20, ranker=False)
    found, notes = habits(data, judged(Teacher(models=(copy,)), copy, stranger), who, HOW)
    assert notes == []
    assert [one.what for one in found] == ["attribution", "attack transfer", "invariance"]
    for one in found:
        assert one.student == 1.0
        assert one.independent < 1
        assert one.low > 0
        assert one.note
    longer = int((np.minimum(np.diff(data.train.indptr) + 1, 9) > PLACES).sum())
    assert found[0].users == found[2].users == longer
    assert 0 < found[1].users < USERS


def test_models_of_other_widths_and_kinds_are_asked_about_what_both_read(data, fitted) -> None:
    teacher = Teacher(models=(fitted(SPECS["sequence"], 1),))
    shorter = TwoTowerSpec(dim=4, history=6)
    found, notes = habits(
        data, judged(teacher, fitted(shorter, 2), fitted(shorter, 3)), asked(data, 20, ranker=False), HOW
    )
    assert notes == []
    assert all(0 <= one.student <= 1 and one.low <= one.index <= one.high for one in found)


@pytest.mark.parametrize(
    ("teacher", "student", "why"),
    [
        (MFSpec(dim=4), SPECS["two_tower"], "the teacher reads no history"),
        (SPECS["two_tower"], MFSpec(dim=4), "the student reads no history"),
        (None, SPECS["two_tower"], "the teacher is a file"),
    ],
)
def test_who_reads_no_history_has_no_habits(data, fitted, teacher, student, why: str) -> None:
    made = Teacher(models=() if teacher is None else (fitted(teacher, 1),))
    found, (note,) = habits(
        data, judged(made, fitted(student, 2), fitted(student, 3)), asked(data, 20, ranker=False), HOW
    )
    assert found == []
    assert why in note


def test_several_models_look_in_several_places(data, fitted) -> None:
    copy = fitted(SPECS["two_tower"], 1)
    _, (note,) = habits(
        data, judged(Teacher(models=(copy, copy), folds=2), copy, copy), asked(data, 20, ranker=False), HOW
    )
    assert "several models" in note


def test_the_fewest_items_of_the_largest_gates_are_left_out_until_the_first_item_changes() -> None:
    gates = np.array([[9, 1, 2, 3], [0, 3, 1, 2], [1, 1, 1, 1], [0, 0, 5, 4.0]])
    known = np.array([[True] * 4, [False, True, True, True], [True] * 4, [False, False, True, True]])
    asks = []

    def ask(gone):
        asks.append(gone)
        enough = np.array([2, 1, 9, 2])  # items without which each one's first item changes
        return np.where(gone.sum(1) >= enough, 7, 5)[:, None]

    gone, after = flipping(ask, np.full((4, 1), 5), gates, known, 3)
    assert gone.astype(int).tolist() == [[1, 0, 0, 1], [0, 1, 0, 0], [0] * 4, [0] * 4]  # the last keeps one of its two
    assert after[:, 0].tolist() == [7, 7, 5, 5]
    assert len(asks) == 3
    assert asks[2][1].tolist() == gone[1].tolist()  # who has changed is asked no further


def test_only_what_speaks_for_the_first_item_is_an_attack() -> None:
    assert heaviest(np.array([[-1.0, 2, 0]]), np.ones((1, 3), bool), 3).tolist() == [[False, True, False]]


def test_old_items_are_those_of_longer_histories() -> None:
    known = np.array([[False, True, True, True], [False, False, True, True]])
    assert oldest(known, 2).tolist() == [[False, True, True, False], [False] * 4]


def test_an_edited_history_lacks_its_places_and_no_other_does() -> None:
    log = Interactions(indptr=np.array([0, 3, 5, 9]), items=np.arange(9), times=np.arange(9))
    gone = np.array([[False, True, False, True], [True, False, False, False]])
    made = without(Sequences.of(log), np.array([2, 1][:1]), gone[:1])
    assert made.latest(torch.arange(3), 4).items.tolist() == [[-1, 0, 1, 2], [-1, -1, 3, 4], [-1, -1, 5, 7]]
    assert made.times.tolist() == [0, 1, 2, 3, 4, 5, 7]  # pyrefly: ignore


def test_agreement_on_edits_is_of_what_they_do() -> None:
    before, after = np.array([[1, 2], [3, 4], [-1, -1]]), np.array([[1, 3], [4, 3], [2, 1]])
    assert moved(before, after)[:2].tolist() == [0, 1]
    assert np.isnan(moved(before, after)[2])
    said = attack_transfer(before, after, np.array([True, False, True]))
    assert said[0] == 0
    assert np.isnan(said[1:]).all()
    kept = before, before
    np.testing.assert_allclose(invariance((before, after), kept, 2)[:2], [0.5, 1])
    np.testing.assert_allclose(invariance((before, after), (before, after), 2)[:2], 1)
