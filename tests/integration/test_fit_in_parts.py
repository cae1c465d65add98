"""A training in parts is the training in one piece, to the byte; one that begins with another's weights has them."""

from __future__ import annotations

import json
import warnings

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file

from recdistill.begin import end
from recdistill.distill.spec import LabelsSpec, ListTermSpec
from recdistill.distill.spec_draws import Top
from recdistill.distill.spec_lists import SoftmaxKL
from recdistill.fit import fit
from recdistill.labels import Layout, Lists, open_labels, write_shard
from recdistill.models.spec import MFSpec, TrainSpec, TwoTowerSpec
from recdistill.shards import finish
from recdistill.teaching import Teaching
from recdistill.types import Dataset, Interactions, quiet
from recdistill.world import World

USERS, ITEMS, EACH, DEPTH = 60, 40, 8, 10
EPOCH = 4  # steps: 60 users x 6 training items in batches of 90
DEEP = TwoTowerSpec(dim=4, history=4, hidden=(8,))
KEPT = {"weights.safetensors", "curve.json", "users.npy", "items.npy", "plan.json"}


class Stopped(Exception):
    """What ends a fit in the middle of a step's report."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(3)
    rows = [[(user + 2 * int(n)) % ITEMS for n in rng.permutation(EACH)] for user in range(USERS)]
    parts = {"train": [r[:-2] for r in rows], "valid": [r[-2:-1] for r in rows], "test": [r[-1:] for r in rows]}

    def csr(lists):
        items = np.array([i for one in lists for i in one], np.int64)
        indptr = np.cumsum([0, *map(len, lists)]).astype(np.int64)
        return Interactions(indptr=indptr, items=items, times=np.arange(len(items), dtype=np.int64))

    made = {name: csr(lists) for name, lists in parts.items()}
    return Dataset(user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), **made)


@pytest.fixture(scope="module")
def teaching(tmp_path_factory, dataset) -> Teaching:
    """A balanced term, which keeps a factor of its own, over lists of a teacher that draws lots."""
    out, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(1)
    layout = Layout(num_users=USERS, num_items=ITEMS, depth=DEPTH, stamp={"step": "s", "teacher": "t"})
    items = np.stack([rng.permutation(ITEMS)[:DEPTH] for _ in range(USERS)]).astype(np.int64)
    scores = -np.sort(-rng.normal(size=items.shape), axis=1).astype(np.float32)
    write_shard(out, layout, 0, Lists(items, scores, np.zeros(USERS, np.float32)))
    finish(out, layout, {"space": "logit", "exclude_seen": LabelsSpec().exclude_seen}, dataset.train)
    term = ListTermSpec(weight=1.0, balance=True, draw=(Top(k=5),), loss=SoftmaxKL())
    return Teaching(terms=[term], labels=open_labels(out))


def train(out, dataset, spec, *, stop=0, every=500, teaching=None, after=None, part=(0, 1), **settings):
    """Fit into `out`, raising from `log` at step `stop`; return the facts, or None if it was stopped."""
    chosen = {"epochs": 4, "batch": 90, "negatives": 8, "patience": 0, "decay": "cosine", "list_users": 20} | settings

    def log(what, step, total, values):
        if stop and step == stop:
            raise Stopped

    out.mkdir(exist_ok=True)
    how = {"name": "m", "world": World(), "log": log if stop else quiet, "checkpoint_every": every}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and torchrec say of themselves
        try:
            return fit(dataset, spec, TrainSpec(**chosen), out, teaching=teaching, after=after, part=part, **how)
        except Stopped:
            return None


def in_parts(home, dataset, spec, of, *, stop=0, **how):
    """Fit in `of` parts, each stopped once at step `stop` of the whole where it comes there; return the facts."""
    after, facts = None, {}
    for k in range(of):
        out = home / f"part-{k}"
        if stop and train(out, dataset, spec, stop=stop, every=1, after=after, part=(k, of), **how):
            after = out
            continue
        facts = train(out, dataset, spec, after=after, part=(k, of), **how)
        after = out
    return after, facts


def kept(out):
    return {name: (out / name).read_bytes() for name in KEPT}


def test_parts_are_whole_epochs_and_together_all_of_them():
    for epochs in range(1, 12):
        for of in range(1, epochs + 1):
            ends = [end((k, of), epochs, 7) for k in range(of)]
            sizes = np.diff([0, *ends])
            assert ends[-1] == epochs * 7
            assert (sizes % 7 == 0).all()
            assert 7 <= sizes.min() <= sizes.max() <= sizes.min() + 7


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (DEEP, {}),  # Adagrad of rows, and Adam of what is dense
        (MFSpec(dim=4), {"optimizer": "adam", "lr": 0.01}),
        (MFSpec(dim=4), {"optimizer": "sgd"}),
    ],
    ids=["two_tower", "adam", "sgd"],
)
def test_parts_end_in_the_bytes_of_one_piece(tmp_path, dataset, teaching, spec, settings):
    alone = train(tmp_path / "alone", dataset, spec, teaching=teaching, **settings)
    assert alone is not None
    last, facts = in_parts(tmp_path, dataset, spec, 3, teaching=teaching, **settings)
    assert kept(last) == kept(tmp_path / "alone")
    assert facts | {"seconds_per_epoch": 0} == alone | {"seconds_per_epoch": 0}
    assert {file.name for file in last.iterdir()} == KEPT  # only what another part goes on from keeps more
    assert [p.name for p in (tmp_path / "part-0").glob("checkpoint-*")] == [f"checkpoint-{EPOCH}"]
    first = json.loads((tmp_path / "part-0" / "curve.json").read_text())
    assert first == json.loads((last / "curve.json").read_text())[: len(first)]


@pytest.mark.parametrize("stop", [EPOCH - 1, EPOCH + 2, 4 * EPOCH - 1])
def test_a_part_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, dataset, teaching, stop):
    alone, _ = in_parts(tmp_path, dataset, DEEP, 2, teaching=teaching)
    (tmp_path / "stopped").mkdir()
    stopped, _ = in_parts(tmp_path / "stopped", dataset, DEEP, 2, teaching=teaching, stop=stop)
    assert kept(stopped) == kept(alone)


def test_what_was_best_in_an_earlier_part_is_what_the_last_one_leaves(tmp_path, dataset):
    """A rate so low that nothing changes: the first validation is the best, and two more without a gain end it all."""
    still = {"lr": 1e-12, "epochs": 8, "patience": 2, "decay": "none"}
    alone = train(tmp_path / "alone", dataset, MFSpec(dim=4), **still)
    assert alone is not None
    assert (alone["steps"], alone["best_step"]) == (3 * EPOCH, EPOCH)
    for of in (4, 8):  # the end of all is within a part, and at the end of one
        (tmp_path / str(of)).mkdir()
        last, facts = in_parts(tmp_path / str(of), dataset, MFSpec(dim=4), of, **still)
        assert kept(last) == kept(tmp_path / "alone")
        assert (facts["steps"], facts["best_step"], facts["seconds_per_epoch"]) == (3 * EPOCH, EPOCH, None)


def test_a_part_without_a_validation_leaves_the_weights_that_the_next_one_goes_on_from(tmp_path, dataset):
    rare = {"epochs": 6, "evaluate_every": 4}
    train(tmp_path / "alone", dataset, MFSpec(dim=4), **rare)
    last, _ = in_parts(tmp_path, dataset, MFSpec(dim=4), 3, **rare)
    assert kept(last) == kept(tmp_path / "alone")
    curves = [json.loads((tmp_path / f"part-{k}" / "curve.json").read_text()) for k in range(3)]
    assert [[point["step"] for point in curve] for curve in curves] == [[], [4 * EPOCH], [4 * EPOCH, 6 * EPOCH]]
    two = {"epochs": 2, "decay": "none"}  # the same steps as the first of three parts, at one rate
    train(tmp_path / "two", dataset, MFSpec(dim=4), **two)
    train(tmp_path / "part", dataset, MFSpec(dim=4), part=(0, 3), **rare | {"decay": "none"})
    assert (tmp_path / "part" / "users.npy").read_bytes() == (tmp_path / "two" / "users.npy").read_bytes()


def test_a_training_that_begins_with_anothers_weights_has_them(tmp_path, dataset):
    train(tmp_path / "first", dataset, DEEP)
    still = {"lr": 1e-12, "dense_lr": 1e-12, "seed": 9, "epochs": 1}
    train(tmp_path / "warm", dataset, DEEP, after=tmp_path / "first", **still)
    train(tmp_path / "cold", dataset, DEEP, **still)
    first, warm, cold = (load_file(tmp_path / name / "weights.safetensors") for name in ("first", "warm", "cold"))
    assert first.keys() == warm.keys()
    for name, values in first.items():
        np.testing.assert_allclose(warm[name], values, atol=1e-7)
        assert not np.allclose(cold[name], values, atol=1e-2)
    point = json.loads((tmp_path / "warm" / "curve.json").read_text())[0]
    assert point["step"] == EPOCH  # its steps are its own
