"""Two towers and the histories that part them: what both say of nobody, over the list of the history as it was."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from recdistill.data.sequences import Sequences
from recdistill.distill.spec import LabelsSpec
from recdistill.distill.spec_transfer import Flips
from recdistill.errors import ConfigError
from recdistill.labelling import label_data
from recdistill.labels import open_labels
from recdistill.models.build import build
from recdistill.models.lengths import unit
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted, TwoTowerSpec
from recdistill.models.tables import PlainTable
from recdistill.shards import Share
from recdistill.transfer import against, store
from recdistill.transfer.against import Tower, disputed
from recdistill.transfer.histories import longest
from recdistill.types import Dataset, Interactions, quiet

USERS, ITEMS, LENGTH, DEPTH, COUNT = 40, 30, 9, 8, 3
RNG = np.random.default_rng(3)
SHALLOW = TwoTowerSpec(dim=12, history=LENGTH, temperature=0.2), TwoTowerSpec(dim=4, history=LENGTH, temperature=0.5)
DEEP = (
    TwoTowerSpec(dim=12, history=LENGTH, hidden=(16,), space="dot", temperature=1.0),
    TwoTowerSpec(dim=4, history=LENGTH, hidden=(8,)),
)


def log(rows, *, timed=True):
    items = np.array([item for row in rows for item in row], np.int64)
    times = np.arange(len(items), dtype=np.int64) if timed else None
    return Interactions(indptr=np.cumsum([0, *map(len, rows)]).astype(np.int64), items=items, times=times)


# Nobody took the last item; some users took nothing, some more than is read.
ROWS = [RNG.choice(ITEMS - 1, RNG.integers(0, 15), replace=False) for _ in range(USERS)]
TRAIN = log(ROWS)
EVERYONE = np.flatnonzero(np.diff(TRAIN.indptr))
NOTHING = log([[]] * USERS)
IDS = {"user_ids": pl.Series(range(USERS)), "item_ids": pl.Series(range(ITEMS))}
DATA = Dataset(**IDS, train=TRAIN, valid=NOTHING, test=NOTHING)
HOW = {"history": LENGTH, "depth": DEPTH, "count": COUNT}


def towers(specs=SHALLOW):
    found = [build(spec, DATA, PlainTable, seed=1).eval() for spec in specs]
    generator = torch.Generator().manual_seed(2)
    for model in found:
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return found


@torch.no_grad()
def said(model, rows, scale=1.0):
    """Return the model's own scores of everything for nobody with each history of `rows`."""
    past = Sequences.of(rows).latest(torch.arange(rows.num_users), LENGTH)
    left, right = model.vectors(torch.full((len(past),), -1), past, torch.arange(ITEMS))
    return (scale * (unit(left, model.space) @ unit(right, model.space).T) / model.temperature).double().numpy()


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("specs", [SHALLOW, DEEP], ids=["shallow", "deep"])
def test_how_far_apart_they_are_is_what_the_models_themselves_say(specs, timed):
    teacher, student = towers(specs)
    train = log(ROWS, timed=timed)
    found = disputed(train, Tower(teacher, 0.5), Tower(student), users=EVERYONE, **HOW)
    cut = longest(train, LENGTH - COUNT)
    base = log([cut.items[slice(*cut.indptr[u : u + 2])] for u in EVERYONE])
    before, after = ((said(teacher, rows, 0.5), said(student, rows)) for rows in (base, found.synthetic.interactions))
    for row, (was, now) in enumerate(found.apart):
        free = np.setdiff1d(np.arange(ITEMS - 1), base.items[slice(*base.indptr[row : row + 2])])
        best = free[np.argsort(-before[0][row, free], kind="stable")[:DEPTH]]
        for pair, number in ((before, was), (after, now)):
            apart = (pair[0] - pair[1])[row, best]
            np.testing.assert_allclose(number, np.mean((apart - apart.mean()) ** 2), rtol=1e-4)


@pytest.mark.parametrize(("specs", "share"), [(SHALLOW, 0.95), (DEEP, 0.85)], ids=["shallow", "deep"])
def test_histories_part_the_models_more_than_their_parents(specs, share):
    teacher, student = towers(specs)
    found = disputed(TRAIN, Tower(teacher), Tower(student), users=EVERYONE, **HOW)
    before, after = found.apart.T
    assert (after > before).mean() >= share  # deep towers of random weights are far from straight
    assert after.mean() > 1.2 * before.mean()


def test_what_is_made_is_read_whole_and_holds_what_somebody_took():
    teacher, student = towers()
    users = EVERYONE[::3]
    made = disputed(TRAIN, Tower(teacher), Tower(student), users=users, **HOW).synthetic
    sizes = np.diff(made.interactions.indptr)
    assert sizes.min() > 0
    assert sizes.max() <= LENGTH
    assert ITEMS - 1 not in made.interactions.items
    assert made.parents[:, 0].tolist() == users.tolist()


def test_blocks_of_any_size_give_the_same(monkeypatch):
    teacher, student = towers()
    wanted = disputed(TRAIN, Tower(teacher), Tower(student), users=EVERYONE, **HOW)
    monkeypatch.setattr(against, "SCORES_PER_BLOCK", 7 * 4 * ITEMS)
    found = disputed(TRAIN, Tower(teacher), Tower(student), users=EVERYONE, **HOW)
    np.testing.assert_array_equal(found.synthetic.interactions.items, wanted.synthetic.interactions.items)
    np.testing.assert_array_equal(found.synthetic.interactions.indptr, wanted.synthetic.interactions.indptr)
    np.testing.assert_allclose(found.apart, wanted.apart, rtol=1e-5)


def test_a_student_that_says_what_its_teacher_says_has_nothing_to_dispute():
    teacher, _ = towers()
    found = disputed(TRAIN, Tower(teacher, 3.0), Tower(teacher, 3.0), users=EVERYONE, **HOW)
    assert found.apart.max() == 0
    cut = longest(TRAIN, LENGTH - COUNT)
    assert sorted(found.synthetic.interactions.items) == sorted(cut.items)


@pytest.fixture
def fitted(tmp_path):
    """Return teacher and student as if they had been trained."""
    found = []
    for name, spec, model in zip(("teacher", "student"), SHALLOW, towers(), strict=True):
        (tmp_path / name).mkdir()
        save_file(model.state_dict(), tmp_path / name / "weights.safetensors")
        found.append(Fitted(spec, SimpleNamespace(path=tmp_path / name)))  # pyrefly: ignore
    return found


def label(out, fitted, share=Share(), **settings):  # noqa: B008
    teacher, student = fitted
    out.mkdir(exist_ok=True)
    spec = LabelsSpec(depth=DEPTH, shard_users=8, transfer=Flips(**{"count": COUNT} | settings))
    stamp = {"step": "s", "teacher": "t"}
    how = {"share": share, "whole": True, "student": student}
    return label_data(DATA, Teacher(models=(teacher,)), teacher, spec, out, stamp, quiet, **how)


def test_labels_say_of_flips_how_far_they_part_the_two(tmp_path, fitted):
    facts = label(tmp_path / "out", fitted, rows=0.5, rounds=3)
    lists, made = open_labels(tmp_path / "out").transfer
    assert len(made) == lists.num_users == round(len(EVERYONE) / 2)
    assert set(made.parents[:, 0]) < set(EVERYONE)
    told = facts["transfer"]
    assert told["apart"]["rose"] >= 0.9
    assert told["apart"]["histories"] > told["apart"]["parents"] > 0
    assert "rounds" not in told  # labels are the same in however many rounds they are learned
    kept = np.load(tmp_path / "out" / "transfer" / "apart.npy")
    assert kept.mean(0).tolist() == pytest.approx([told["apart"]["parents"], told["apart"]["histories"]])


def test_labels_of_flips_that_were_stopped_go_on_with_the_histories_that_were_made(tmp_path, fitted, monkeypatch):
    facts = label(tmp_path / "out", fitted)
    files = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    (tmp_path / "out" / "transfer" / "labels-00001.arrow").unlink()
    monkeypatch.setattr(store, "disputed", lambda *_, **__: pytest.fail("they are made once"))
    again = label(tmp_path / "out", fitted)
    assert json.dumps(facts["transfer"]) == json.dumps(again["transfer"])
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == files


def test_flips_are_not_shared_out(tmp_path, fitted):
    with pytest.raises(ConfigError, match="do not round alike"):
        label(tmp_path / "out", fitted, share=Share(1, 2))
