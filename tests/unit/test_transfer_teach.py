"""What a teacher says of histories that nobody had: as of a user who had them, and of nothing that they hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.sequences import Sequences
from recdistill.models.build import build
from recdistill.models.encoders import Group
from recdistill.models.spec import RankerSpec, SequenceSpec, TwoTowerSpec
from recdistill.models.tables import PlainTable
from recdistill.scoring import scaled, vectors
from recdistill.transfer import teach
from recdistill.transfer.histories import dropout, splice
from recdistill.transfer.teach import history_lister, history_vectors, ranker_history_lister
from recdistill.types import Dataset, Interactions

USERS, ITEMS, LENGTH, DEPTH = 12, 30, 5, 8
RNG = np.random.default_rng(3)
ROWS = [RNG.choice(ITEMS, RNG.integers(1, 9), replace=False).tolist() for _ in range(USERS)]
SPECS = {
    "two_tower": TwoTowerSpec(dim=8, history=LENGTH),
    "deep": TwoTowerSpec(dim=8, history=LENGTH, hidden=[8], space="cosine", temperature=0.2),
    "sequence": SequenceSpec(dim=8, history=LENGTH, layers=1, heads=2),
}


def log(rows):
    items = np.array([item for row in rows for item in row], np.int64)
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Interactions(indptr=indptr, items=items, times=np.arange(len(items), dtype=np.int64) * 60_000_000)


def dataset(train):
    nothing = log([[]] * train.num_users)
    ids = {"user_ids": pl.Series(range(train.num_users)), "item_ids": pl.Series(range(ITEMS))}
    return Dataset(**ids, train=train, valid=nothing, test=nothing)


TRAIN = log(ROWS)
DATA = dataset(TRAIN)


def made(spec, *, nobody=False):
    """Return a model with random weights; with `nobody` its users have none of their own."""
    model = build(spec, DATA, PlainTable, seed=1)
    rng = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) * 0.5
    if nobody:
        model.user.weight.data.zero_()
    return model.eval()


def items_of(model):
    return scaled(vectors(model, DATA, Sequences.of(TRAIN), LENGTH), model.temperature)[1]


def philox(seed=0):
    return np.random.Generator(np.random.Philox(seed))


@pytest.mark.parametrize("kind", SPECS)
def test_a_copy_of_a_history_has_the_vector_of_its_user_without_the_id(kind):
    model = made(SPECS[kind], nobody=True)
    found = history_vectors(model, dropout(TRAIN, 0.0, 1, philox()), LENGTH)
    wanted, _ = scaled(vectors(model, DATA, Sequences.of(TRAIN), LENGTH), model.temperature)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", SPECS)
def test_the_id_of_a_user_says_nothing(kind):
    synthetic = splice(TRAIN, np.array([[0, 1], [2, 3]]), np.array([0.5, 0.5]), philox())
    with_ids, without = (history_vectors(made(SPECS[kind], nobody=nobody), synthetic, LENGTH) for nobody in (0, 1))
    np.testing.assert_array_equal(with_ids, without)


def test_blocks_of_rows_change_nothing(monkeypatch):
    model, synthetic = made(SPECS["sequence"]), dropout(TRAIN, 0.3, 3, philox())
    whole = history_vectors(model, synthetic, LENGTH)
    monkeypatch.setattr(teach, "USERS_PER_BLOCK", 5)
    np.testing.assert_allclose(history_vectors(model, synthetic, LENGTH), whole, atol=1e-6)


@pytest.mark.parametrize("kind", SPECS)
def test_lists_are_the_best_of_what_the_history_does_not_hold(kind):
    model, synthetic = made(SPECS[kind]), dropout(TRAIN, 0.4, 2, philox())
    items = items_of(model)
    lister = history_lister(model, items, synthetic, LENGTH, DEPTH, rest=3)
    found = lister(np.arange(len(synthetic)))
    logits = history_vectors(model, synthetic, LENGTH).astype(np.float64) @ items.T.astype(np.float64)
    bounds = synthetic.interactions.indptr
    for row, scores in enumerate(logits):
        held = set(synthetic.interactions.items[bounds[row] : bounds[row + 1]].tolist())
        order = sorted(set(range(ITEMS)) - held, key=lambda item, s=scores: (-s[item], item))
        assert found.items[row].tolist() == order[:DEPTH]
        np.testing.assert_allclose(found.scores[row], scores[order[:DEPTH]], atol=1e-5)
        np.testing.assert_allclose(found.residual[row], np.logaddexp.reduce(scores[order[DEPTH:]]), atol=1e-5)
        assert not set(found.rest_items[row].tolist()) & (held | set(order[:DEPTH]))
    some = lister(np.array([4, 1]))
    np.testing.assert_array_equal(some.items, found.items[[4, 1]])
    np.testing.assert_array_equal(some.rest_items, found.rest_items[[4, 1]])


def test_a_history_of_two_tastes_is_taught_each_by_its_share():
    """Two users of two tastes, and a teacher that knows the tastes."""
    data = dataset(log([[0, 1, 2, 3], [15, 16, 17, 18]]))
    model = build(TwoTowerSpec(dim=4, history=8, space="dot", temperature=1.0), data, PlainTable, seed=1)
    model.item.weight.data = torch.eye(4)[:2].repeat_interleave(15, 0) + 1e-3 * torch.rand(
        30, 4, generator=torch.Generator().manual_seed(0)
    )
    model.user.weight.data.fill_(7.0)  # what is not asked must not show
    items = model.item.weight.numpy()
    tastes = []
    for mu in (1.0, 0.0):
        synthetic = splice(data.train, np.array([[0, 1]]), np.array([mu]), philox())
        tastes.append(history_lister(model, items, synthetic, 8, 6)(np.array([0])).items[0] // 15)
    assert [set(taste.tolist()) for taste in tastes] == [{0}, {1}]
    mixed = splice(data.train, np.tile([0, 1], (40, 1)), np.full(40, 0.5), philox())
    found = history_lister(model, items, mixed, 8, 20)(np.arange(40)).items // 15
    scores = history_vectors(model, mixed, 8) @ items.T
    share = np.add.reduceat(mixed.interactions.items // 15, mixed.interactions.indptr[:-1])
    # The teacher's mean score of the second taste is the share of the history that is of it, and decides what is first.
    wanted = share / np.diff(mixed.interactions.indptr)
    np.testing.assert_allclose(scores[:, 15:].mean(1), wanted, atol=0.01)
    uneven = wanted != 0.5
    np.testing.assert_array_equal(found[uneven, 0], wanted[uneven] > 0.5)


def test_a_ranker_is_asked_of_nobody_with_the_history():
    spec = RankerSpec(dim=8, heads=2, cross_layers=1, cross_rank=4, hidden=[8], history=LENGTH)
    model, synthetic = made(spec), dropout(TRAIN, 0.4, 2, philox())
    rows = np.array([3, 0, 20])
    found = ranker_history_lister(model, synthetic, LENGTH, DEPTH, num_items=ITEMS)(rows)
    past = Sequences.of(synthetic.interactions).latest(torch.from_numpy(rows), LENGTH)
    with torch.inference_mode():
        (logits,) = model.score(torch.full((3,), -1), past, [Group(torch.arange(ITEMS))])
    for n, row in enumerate(rows):
        held = synthetic.interactions.items[slice(*synthetic.interactions.indptr[row : row + 2])]
        scores = logits[n].masked_fill(torch.from_numpy(np.isin(np.arange(ITEMS), held)), -torch.inf)
        best = scores.topk(DEPTH)
        np.testing.assert_allclose(found.scores[n], best.values, atol=1e-4)
        assert found.items[n].tolist() == best.indices.tolist()


def test_a_model_that_reads_no_history_is_not_asked():
    with pytest.raises(AssertionError, match="says the same of every one"):
        history_vectors(made(SPECS["two_tower"]), dropout(TRAIN, 0.0, 1, philox()), 0)


def test_a_log_without_times_is_read_without_them():
    bare = replace(TRAIN, times=None)
    model = made(SPECS["deep"], nobody=True)
    found = history_vectors(model, dropout(bare, 0.0, 1, philox()), 9)
    wanted, _ = scaled(vectors(model, dataset(bare), Sequences.of(bare), 9), model.temperature)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
