"""Lists of histories that nobody had: written shard by shard beside those of users, and opened with them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from recdistill.distill.spec import LabelsSpec
from recdistill.distill.spec_transfer import Dropout, Splice
from recdistill.errors import ArtifactError, ConfigError, DataError
from recdistill.labelling import label_data
from recdistill.labels import open_labels
from recdistill.models.build import build
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted, MFSpec, RankerSpec, TwoTowerSpec
from recdistill.models.tables import PlainTable
from recdistill.shards import Share
from recdistill.transfer.histories import dropout
from recdistill.transfer.store import histories
from recdistill.transfer.teach import history_vectors
from recdistill.types import Dataset, Interactions, quiet

USERS, ITEMS, LENGTH, DEPTH = 20, 25, 5, 6
RNG = np.random.default_rng(3)
TWO_TOWER = TwoTowerSpec(dim=8, history=LENGTH, temperature=0.2)
SPECS = {
    "two_tower": TWO_TOWER,
    "ranker": RankerSpec(dim=8, heads=2, cross_layers=1, cross_rank=4, hidden=(8,), history=LENGTH),
}
STAMP = {"step": "s1", "teacher": "t1"}
DROP, MIX = Dropout(rate=0.4, copies=2, share=0.3), Splice(rows=1.5)


def log(rows):
    items = np.array([item for row in rows for item in row], np.int64)
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Interactions(indptr=indptr, items=items, times=np.arange(len(items), dtype=np.int64) * 60_000_000)


def dataset(train):
    nothing = log([[]] * train.num_users)
    ids = {"user_ids": pl.Series(range(train.num_users)), "item_ids": pl.Series(range(ITEMS))}
    return Dataset(**ids, train=train, valid=nothing, test=nothing)


TRAIN = log([RNG.choice(ITEMS, RNG.integers(0, 9) if user else 0, replace=False) for user in range(USERS)])
DATA = dataset(TRAIN)


@pytest.fixture
def teacher(tmp_path):
    """Return the function that gives a teacher of a kind, of random weights."""

    def make(spec=TWO_TOWER, **more):
        model = build(spec, DATA, PlainTable, seed=1)
        generator = torch.Generator().manual_seed(2)
        path = tmp_path / f"model-{spec.kind}"
        path.mkdir(exist_ok=True)
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
        save_file(model.state_dict(), path / "weights.safetensors")
        return Teacher(models=(Fitted(spec, SimpleNamespace(path=path)),), **more)  # pyrefly: ignore

    return make


def label(out, teacher, transfer=DROP, share=Share(), whole=True, data=DATA, **settings):  # noqa: B008
    out.mkdir(exist_ok=True)
    spec = LabelsSpec(**{"depth": DEPTH, "shard_users": 8, "transfer": transfer} | settings)
    scratch = teacher.models[0]
    return label_data(data, teacher, scratch, spec, out, STAMP, quiet, share=share, whole=whole)


def files(out: Path):
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("transfer", [DROP, MIX], ids=["dropout", "splice"])
def test_lists_and_histories_are_opened_as_they_were_made(tmp_path, teacher, kind, transfer):
    facts = label(tmp_path / "out", teacher(SPECS[kind]), transfer)
    labels = open_labels(tmp_path / "out", num_users=USERS, num_items=ITEMS, teacher="t1")
    lists, found = labels.transfer
    wanted = histories(TRAIN, transfer, LENGTH)
    for name in ("indptr", "items", "times"):
        np.testing.assert_array_equal(getattr(found.interactions, name), getattr(wanted.interactions, name))
    np.testing.assert_array_equal(found.parents, wanted.parents)
    np.testing.assert_array_equal(found.mu, wanted.mu)
    assert lists.num_users == len(found) == facts["transfer"]["rows"]
    assert labels.num_users == USERS
    items, scores = lists.take(np.arange(len(found)))
    assert (items >= 0).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    users = found.interactions.users()
    assert not any(set(items[row]) & set(found.interactions.items[users == row]) for row in range(len(found)))
    assert facts["transfer"] == {**transfer.model_dump(), "history": LENGTH, "rows": len(found)}
    assert labels.facts["transfer"] == lists.facts["transfer"] == facts["transfer"]


def test_without_any_the_labels_are_what_they_were(tmp_path, teacher):
    facts = label(tmp_path / "without", teacher(), None)
    assert "transfer" not in facts
    assert open_labels(tmp_path / "without").transfer is None
    label(tmp_path / "with", teacher())
    without, beside = files(tmp_path / "without"), files(tmp_path / "with")
    assert {name for name in without if name[0] != "."} == {"labels.json", *(f"labels-{n:05d}.arrow" for n in range(3))}
    assert all(beside[name] == content for name, content in without.items() if name != "labels.json")


def test_labels_are_resumed_and_shared_out_to_the_same_bytes(tmp_path, teacher):
    label(tmp_path / "alone", teacher())
    alone = files(tmp_path / "alone")
    shards = sorted(name for name in alone if name.startswith("transfer/labels-"))
    assert len(shards) > 2
    (tmp_path / "alone" / shards[1]).unlink()
    label(tmp_path / "alone", teacher())
    assert files(tmp_path / "alone") == alone

    out = tmp_path / "shared"
    second = label(out, teacher(), share=Share(2, 2), whole=False)
    count = 3 + len(shards)
    assert (second["shards"], second["written"]) == (count, [1, *range(4, count, 2)])
    assert second["missing"] == sorted(set(range(count)) - set(second["written"]))
    with pytest.raises(ArtifactError, match="shards are missing"):
        label(out, teacher(), share=None)
    assert label(out, teacher(), share=Share(1, 2), whole=False)["missing"] == []
    label(out, teacher(), share=None)
    assert files(out) == alone


@pytest.mark.parametrize("line", [(1.0, 0.0), (0.5, -1.5)], ids=["as it is", "calibrated"])
def test_vectors_of_histories_score_them_as_their_lists_do(tmp_path, teacher, line):
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    said = {"kind": "one", "members": [{"model": 0, "weights": "weights.safetensors", "temperature": 1, "share": [1]}]}
    said |= {"edges": [], "scale": line[0], "shift": line[1], "space": "logit"}
    (recipe / "recipe.json").write_text(json.dumps(said))
    label(tmp_path / "out", teacher(recipe=SimpleNamespace(path=recipe)), vectors=True)
    labels = open_labels(tmp_path / "out")
    lists, found = labels.transfer
    table = lists.vectors.users @ lists.vectors.items.T
    items, scores = lists.take(np.arange(len(found)))
    np.testing.assert_allclose(np.take_along_axis(table, items, 1), scores, rtol=1e-4, atol=1e-4)
    assert lists.vectors.items is labels.vectors.items
    model = build(TWO_TOWER, DATA, PlainTable, seed=1)
    model.load_state_dict(load_file(tmp_path / "model-two_tower" / "weights.safetensors"))
    plain = history_vectors(model.eval(), found, LENGTH)
    np.testing.assert_allclose(lists.vectors.users[:, : plain.shape[1]], plain * line[0], rtol=1e-6)


def test_lists_may_hold_what_the_history_does_where_those_of_users_may(tmp_path, teacher):
    label(tmp_path / "out", teacher(), exclude_seen=False, depth=ITEMS)
    lists, _ = open_labels(tmp_path / "out").transfer
    assert np.array_equal(np.sort(lists.items[0]), np.tile(np.arange(ITEMS), (len(lists.items[0]), 1)))


def test_what_was_written_first_is_when_they_were_scored(tmp_path, teacher):
    out = tmp_path / "out"
    label(out, teacher())
    os.utime(out / "transfer" / "labels-00001.arrow", (0, 0))
    assert label(out, teacher())["scored_at"] == "1970-01-01T00:00:00+00:00"


@pytest.mark.parametrize("name", ["mu.npy", "indptr.npy", "items.npy", "labels-00002.arrow", "users.npy"])
def test_histories_that_are_not_whole_are_refused(tmp_path, teacher, name):
    out = tmp_path / "out"
    label(out, teacher(), vectors=True)
    (out / "transfer" / name).unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_labels(out)


def test_histories_of_another_number_are_refused(tmp_path, teacher):
    out = tmp_path / "out"
    label(out, teacher())
    np.save(out / "transfer" / "mu.npy", np.ones(3))
    with pytest.raises(ArtifactError, match="histories of these labels"):
        open_labels(out)


def test_who_reads_no_history_is_not_asked(tmp_path, teacher):
    with pytest.raises(ConfigError, match=r"labels\.transfer.*one model and reads a history"):
        label(tmp_path / "out", teacher(MFSpec(dim=8)))
    with pytest.raises(DataError, match="nobody has a history"):
        label(tmp_path / "none", teacher(), data=dataset(log([[]] * USERS)))


def test_histories_are_a_function_of_the_log_and_the_settings():
    first, again, other = (
        histories(TRAIN, replace_seed, LENGTH) for replace_seed in (MIX, MIX, MIX.model_copy(update={"seed": 2}))
    )
    np.testing.assert_array_equal(first.interactions.items, again.interactions.items)
    assert not np.array_equal(first.parents, other.parents)
    wanted = dropout(TRAIN, 0.4, 2, np.random.Generator(np.random.Philox(1)))
    np.testing.assert_array_equal(histories(TRAIN, DROP, LENGTH).interactions.items, wanted.interactions.items)


@pytest.mark.parametrize("rows", [0.3, 1.0, 2.5])
def test_pairs_are_as_many_as_asked_for_and_of_the_latest_items(rows):
    active = np.flatnonzero(np.diff(TRAIN.indptr))
    made = histories(TRAIN, Splice(rows=rows), 3)
    assert len(made) == round(rows * len(active))
    firsts = np.bincount(made.parents[:, 0], minlength=USERS)[active]
    assert set(firsts.tolist()) <= {int(rows), int(rows) + 1}
    for row, (one, two) in enumerate(made.parents):
        last = {item for user in (one, two) for item in TRAIN.items[slice(*TRAIN.indptr[user : user + 2])][-3:]}
        assert set(made.interactions.items[slice(*made.interactions.indptr[row : row + 2])]) <= last


def test_a_log_without_times_is_labelled_too(tmp_path, teacher):
    label(tmp_path / "out", teacher(), MIX, data=replace(DATA, train=replace(TRAIN, times=None)))
    assert open_labels(tmp_path / "out").transfer[1].interactions.times is None
