"""Histories that nobody had among a step's rows: what else a step holds stays as it was, and ranks share both parts."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

import numpy as np
import polars as pl
import pytest
import torch

from recdistill import fit
from recdistill.data.batches import Sampler, make_batches
from recdistill.data.sequences import Sequences
from recdistill.distill.compose import make_terms
from recdistill.distill.objective import Objective
from recdistill.distill.spec import ListTermSpec
from recdistill.distill.spec_draws import Own, Ranked, Top, Unseen, Whole
from recdistill.distill.spec_lists import LogitMSE, PlackettLuce, SoftmaxKL
from recdistill.distill.spec_targets import Pt
from recdistill.errors import ConfigError
from recdistill.lessons import make_lessons
from recdistill.models.encoders import TwoTower
from recdistill.models.spec import TrainSpec
from recdistill.models.tables import PlainTable
from recdistill.parts import cut, of_rank
from recdistill.topk import exact_topk
from recdistill.transfer.histories import dropout
from recdistill.types import Candidates, Dataset, Interactions, Labels, Vectors
from recdistill.world import World

USERS, ITEMS, TAUGHT, ROWS = 12, 30, 6, 4
RNG = np.random.default_rng(0)
TAKEN = RNG.random((USERS, ITEMS)) < 0.3
TRAIN = Interactions(indptr=np.concatenate([[0], TAKEN.sum(1).cumsum()]), items=np.nonzero(TAKEN)[1])
NOBODY = Interactions(indptr=np.zeros(USERS + 1, np.int64), items=np.zeros(0, np.int64))
DATASET = Dataset(
    user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=TRAIN, valid=NOBODY, test=NOBODY
)
MADE = dropout(TRAIN, 0.5, 2, np.random.default_rng(1))
HELD = np.zeros((len(MADE), ITEMS), np.bool_)
HELD[MADE.interactions.users(), MADE.interactions.items] = True


def vectors(users):
    made = (RNG.standard_normal((rows, TAUGHT)).astype(np.float32) for rows in (users, ITEMS))
    return Vectors(**dict(zip(("users", "items"), made, strict=True)))


def store(sides, seen, **more):
    best = exact_topk(sides.users, sides.items, 8, seen=seen)
    rows, scores = best.items.numpy().astype(np.int32), best.scores.numpy()
    given = {"vectors": sides, "facts": {"transfer": {"share": 0.5}}} | more
    return Labels(items=(rows,), scores=(scores,), residual=(best.residual.numpy(),), per_shard=999, **given)


PLAIN = store(vectors(USERS), TRAIN)
LISTS = store(replace(PLAIN.vectors, users=vectors(len(MADE)).users), MADE.interactions)
LABELS = replace(PLAIN, transfer=(LISTS, MADE))
TERM = ListTermSpec(weight=1.0, draw=(Ranked(k=4), Unseen(n=5)), loss=PlackettLuce())


def lessons(*terms, labels=LABELS):
    made = make_terms(terms or (TERM,), num_items=ITEMS, epochs=1)
    return make_lessons(DATASET, labels, made, None, Sequences.of(TRAIN), 4, 50)


def sampler(made=None, *, rows=ROWS, **settings):
    given = {"train": TRAIN, "num_items": ITEMS, "sequences": Sequences.of(TRAIN), "history": 4, "seed": 3}
    given |= {"batch": 8, "negatives": 5, "own_negatives": True, "list_users": 8}
    given |= {"transfer": Sequences.of(MADE.interactions), "transfer_rows": rows} if rows else {}
    return Sampler(lessons=made or lessons(), **given | settings)


def drawn(made, users=(3, 0, 7), histories=(5, 20, 5, 0), world=World()):  # noqa: B008
    nothing = torch.zeros(0, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    return made.draw(1, torch.tensor(users), nothing, world, generator, torch.tensor(histories)).candidates


def test_the_rest_of_a_step_is_what_it_was_without_them():
    with_them, without = make_batches(sampler(), World()), make_batches(sampler(rows=0), World())
    for step in (0, 1, 2, 19):
        ours, theirs = with_them(step), without(step)
        for name in ("users", "positives", "negatives", "past.items", "count"):
            one, other = attrgetter(name)(ours), attrgetter(name)(theirs)
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    # Labels that hold some, of which a sampler takes none, are those of users alone, to the bit.
    before = make_batches(sampler(lessons(labels=PLAIN), rows=0), World())
    for step in (0, 7):
        ours, theirs = (batch(step).lesson.candidates["0.plackett_luce"] for batch in (without, before))
        assert torch.equal(ours.items, theirs.items)
        assert torch.equal(ours.teacher, theirs.teacher)


def test_users_come_first_and_histories_as_nobodys():
    batch = make_batches(sampler(), World())
    for step in range(6):
        one = batch(step)
        assert (one.list_users[:4] >= 0).all()
        assert one.list_users[4:].tolist() == [-1] * ROWS
        assert one.list_past.items.shape == (8, 4)
        items = one.lesson.candidates["0.plackett_luce"].items
        for row in range(8):
            past = one.list_past.items[row]
            past = past[past >= 0]
            if row < 4:
                assert TAKEN[one.list_users[row], past].all()
                continue
            # The list that a row is taught is that of a history which ends in what is read.
            of = [s for s in range(len(MADE)) if set(items[row, :4].tolist()) <= set(LISTS.items[0][s].tolist())]
            assert any(HELD[s, past].all() for s in of)


def test_every_history_comes_once_a_round():
    batch, found = make_batches(sampler(), World()), []
    for step in range(len(MADE) // ROWS):
        found += [tuple(row) for row in batch(step).list_past.items[4:].tolist()]
    every = Sequences.of(MADE.interactions).latest(torch.arange(len(MADE)), 4).items.tolist()
    assert sorted(found) == sorted(map(tuple, every))


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    "term",
    [
        TERM,
        ListTermSpec(weight=1.0, draw=(Whole(),), loss=LogitMSE()),
        ListTermSpec(weight=1.0, draw=(Top(k=3), Own(n=3)), target=(Pt(),), loss=SoftmaxKL()),
    ],
    ids=["ranked", "whole", "own"],
)
def test_ranks_hold_the_parts_of_the_one_step(size, term):
    made = lessons(term)
    whole, name = make_batches(sampler(made), World()), made.terms[0].name
    ranks = [make_batches(sampler(made), World(rank=rank, size=size)) for rank in range(size)]
    each = ROWS // size
    for step in (0, 5):
        one, parts = whole(step), [rank(step) for rank in ranks]
        for field in ("list_users", "list_past.items"):
            found = [attrgetter(field)(part) for part in parts]
            joined = torch.cat([rows[:each] for rows in found] + [rows[each:] for rows in found])
            assert torch.equal(joined, attrgetter(field)(one))
        for field in ("items", "teacher", "taken"):
            found = [getattr(part.lesson.candidates[name], field) for part in parts]
            if found[0] is None:
                continue
            joined = torch.cat([rows[:each] for rows in found] + [rows[each:] for rows in found])
            assert torch.equal(joined, getattr(one.lesson.candidates[name], field))


def test_the_mean_of_the_ranks_losses_is_that_of_the_one_step():
    model = TwoTower(
        PlainTable, num_users=USERS, num_items=ITEMS, dim=4, hidden=(), id_dropout=0.0, space="dot", temperature=1.0
    )
    for weight in model.parameters():
        torch.nn.init.normal_(weight)
    made = lessons()
    objective = Objective(model, loss="bpr", num_items=ITEMS, terms=made.terms).eval()
    one = objective(make_batches(sampler(made), World())(3))
    two = [objective(make_batches(sampler(made), World(rank=rank, size=2))(3)) for rank in range(2)]
    for name, value in one.items():
        torch.testing.assert_close((two[0][name] + two[1][name]) / 2, value)


def test_a_history_is_asked_of_what_it_does_not_hold():
    made = lessons(
        ListTermSpec(weight=1.0, draw=(Top(k=3), Own(n=4)), target=(Pt(),), loss=SoftmaxKL()),
        ListTermSpec(weight=1.0, draw=(Top(k=2), Unseen(n=6)), loss=LogitMSE()),
    )
    histories = (5, 20, 5, 0)
    found = drawn(made, histories=histories)
    own, below = found["0.softmax_kl"], found["1.logit_mse"]
    table = [sides.users @ sides.items.T for sides in (PLAIN.vectors, LISTS.vectors)]
    for n, (of, row) in enumerate([(0, 3), (0, 0), (0, 7), *((1, s) for s in histories)]):
        holds, lists = (TAKEN, HELD)[of][row], (PLAIN, LISTS)[of].items[0][row].tolist()
        assert own.items[n, :3].tolist() == lists[:3]
        mine = [item for item in own.items[n, 3:].tolist() if item >= 0]
        assert len(mine) == min(4, holds.sum())
        assert holds[mine].all()
        assert own.taken[n].tolist() == [False] * 3 + [item >= 0 for item in own.items[n, 3:].tolist()]
        assert not holds[below.items[n, 2:][below.items[n, 2:] >= 0]].any()
        assert not set(below.items[n, 2:].tolist()) & set(lists)
        known = below.items[n] >= 0
        wanted = torch.from_numpy(table[of][row])[below.items[n][known]]
        torch.testing.assert_close(below.teacher[n][known], wanted, rtol=1e-4, atol=1e-5)


def test_a_fit_takes_the_share_that_the_labels_say_where_ranks_can_share_it():
    made = lessons()
    found = fit._taught(sampler(rows=0), made, TrainSpec(epochs=1, list_users=12), World(size=2))
    assert (found.list_users, found.transfer_rows, len(found.transfer.indptr)) == (12, 6, len(MADE) + 1)
    with pytest.raises(ConfigError, match=r"7 of the 14 rows .* histories nobody had, which 2 processes cannot share"):
        fit._taught(sampler(rows=0), made, TrainSpec(epochs=1, list_users=14), World(size=2))
    plain = fit._taught(sampler(rows=0), lessons(labels=PLAIN), TrainSpec(epochs=1, list_users=14), World(size=2))
    assert (plain.transfer, plain.transfer_rows) == (None, 0)


@pytest.mark.parametrize(("size", "wanted"), [(1, [(0, 10)]), (2, [(3, 6), (8, 10)])])
def test_a_ranks_rows_are_of_each_block(size, wanted):
    assert [(part.start, part.stop) for part in of_rank(World(rank=size - 1, size=size), 6, 4)] == wanted


def test_rows_of_several_parts_keep_what_is_theirs():
    items = torch.arange(24).view(6, 4)
    pairs = torch.tensor([0, 0, 2, 4, 5]), torch.tensor([7, 8, 9, 10, 11])
    whole = Candidates(items=items, teacher=items.float(), ranked=4, gate=torch.arange(6), seen=pairs)
    found = cut(whole, slice(0, 2), slice(4, 6))
    assert found.items.tolist() == items[[0, 1, 4, 5]].tolist()
    assert found.gate.tolist() == [0, 1, 4, 5]
    assert [part.tolist() for part in found.seen] == [[0, 0, 2, 3], [7, 8, 10, 11]]
    shared = replace(whole, items=items[:1].expand(6, -1), seen=None)
    assert cut(shared, slice(0, 2), slice(4, 6)).items.stride() == (0, 1)
