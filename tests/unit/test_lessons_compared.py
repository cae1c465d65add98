"""A lesson of terms of every kind: what each of them put there is what the objective compares, on every rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.batches import Sampler, make_batches
from recdistill.data.sequences import Sequences
from recdistill.distill.compose import make_terms
from recdistill.distill.objective import Objective, Widths
from recdistill.distill.spec import AlignTermSpec, Auxiliary, ListTermSpec
from recdistill.distill.spec_align import Distance, Filter, Linear, Preserve
from recdistill.distill.spec_draws import InBatch, Rest, Top, Unseen
from recdistill.distill.spec_lists import LogitMSE, PlackettLuce
from recdistill.guide import turned
from recdistill.lessons import make_lessons
from recdistill.models.encoders import MF
from recdistill.models.tables import PlainTable
from recdistill.taught import comparable, neighbours
from recdistill.topk import exact_topk
from recdistill.types import Dataset, Interactions, Labels, Vectors
from recdistill.world import World

USERS, ITEMS, TAUGHT, DIM, STEPS = 12, 30, 6, 4, 50
RNG = np.random.default_rng(0)
TAKEN = RNG.random((USERS, ITEMS)) < 0.25
TRAIN = Interactions(indptr=np.concatenate([[0], TAKEN.sum(1).cumsum()]), items=np.nonzero(TAKEN)[1])
NOBODY = Interactions(indptr=np.zeros(USERS + 1, np.int64), items=np.zeros(0, np.int64))
DATASET = Dataset(
    user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=TRAIN, valid=NOBODY, test=NOBODY
)
VECTORS = Vectors(
    users=RNG.standard_normal((USERS, TAUGHT)).astype(np.float32),
    items=RNG.standard_normal((ITEMS, TAUGHT)).astype(np.float32),
)
TABLE = torch.from_numpy(VECTORS.users @ VECTORS.items.T)


def store(users, items, depth, seen, **more):
    best = exact_topk(users, items, depth, seen=seen)
    rows = best.items.numpy().astype(np.int32)
    return Labels(
        items=(rows,), scores=(best.scores.numpy(),), residual=(best.residual.numpy(),), per_shard=99, facts={}, **more
    )


BY_ITEM = store(VECTORS.items, VECTORS.users, 5, turned(TRAIN, ITEMS))
LABELS = store(VECTORS.users, VECTORS.items, 8, TRAIN, vectors=VECTORS, by_item=BY_ITEM)


def listing(loss=None, **settings):
    return ListTermSpec(**{"weight": 1.0} | settings, loss=loss or LogitMSE())


def lessons(*specs, labels=LABELS, guide=None):
    terms = make_terms(specs, num_items=ITEMS, epochs=1)
    return make_lessons(DATASET, labels, terms, guide, Sequences.of(TRAIN), 0, STEPS)


def draw(made, users=(3, 0, 7, 7), items=(5, 1, 20, 5), step=10, world=World(), seed=0):  # noqa: B008
    generator = torch.Generator().manual_seed(seed)
    return made.draw(step, torch.tensor(users), torch.tensor(items), world, generator)


def filled():
    made = MF(PlainTable, num_users=USERS, num_items=ITEMS, dim=DIM, space="dot", temperature=0.5)
    generator = torch.Generator().manual_seed(1)
    for weight in made.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
        weight.requires_grad_()
    return made


def sampler(made, **settings):
    given = {"own_negatives": True, "negatives": 6, "batch": 8, "list_users": 4} | settings
    return Sampler(
        train=TRAIN, num_items=ITEMS, sequences=Sequences.of(TRAIN), history=0, seed=3, lessons=made, **given
    )


def objective(made):
    return Objective(
        filled(), loss="bpr", num_items=ITEMS, terms=made.terms, widths=Widths(DIM, DIM, *made.widths)
    ).eval()


def scores():
    made = filled()
    return (made.user.weight @ made.item.weight.T / made.temperature).detach()


def everything():
    """Return terms of every kind that asks for vectors, with vectors' terms between those over lists."""
    filtered = Filter(neighbours=2, alpha=0.5, keep=1.0)
    return lessons(
        AlignTermSpec(weight=1.0, loss=Distance(adapter=Linear()), filter=filtered),
        listing(side="items", draw=(Top(k=3), Unseen(n=2))),
        listing(draw=(Top(k=3), Rest()), loss=PlackettLuce()),
        listing(draw=(Top(k=2),), head=Auxiliary()),
        AlignTermSpec(weight=1.0, loss=Distance(adapter=Linear()), preserve=Preserve(k=2, weight=0.3, temperature=0.5)),
        listing(side="items", draw=(Top(k=4),)),
        AlignTermSpec(weight=1.0, sides=("items",), loss=Distance(adapter=Linear()), filter=filtered),
        listing(draw=(InBatch(n=3),), head=Auxiliary()),
        AlignTermSpec(weight=1.0, sides=("users",), loss=Distance(adapter=Linear(), metric="cosine")),
    )


def test_features_are_rows_of_the_teachers_tables():
    made = everything()
    found = draw(made)
    plain = comparable(VECTORS)
    _, smooth = neighbours(DATASET, plain, neighbours=2, alpha=0.5, keep=1.0)
    assert made.widths == (TAUGHT, TAUGHT)
    for name, sides in (("0.distance", smooth), ("4.distance", plain), ("6.distance", smooth), ("8.distance", plain)):
        assert torch.equal(found.features[name][0], sides[0][[3, 0, 7, 7]])
        assert torch.equal(found.features[name][1], sides[1][[5, 1, 20, 5]])
    kept = found.candidates["4.distance"].items
    assert torch.equal(found.kept["4.distance"], plain[1][kept.reshape(-1)])


def test_curves_and_the_share_that_is_done_go_with_every_step():
    found = draw(everything(), step=20)
    assert found.at == 20 / STEPS
    assert set(found.curves.values()) == {1.0}


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_draw_their_parts_of_the_one_lesson(size):
    made = everything()
    whole = draw(made)
    ranks = [draw(made, world=World(rank=rank, size=size)) for rank in range(size)]
    for name, candidates in whole.candidates.items():
        parts = [rank.candidates[name] for rank in ranks]
        assert torch.equal(torch.cat([part.items for part in parts]), candidates.items)
        assert torch.equal(torch.cat([part.teacher for part in parts]), candidates.teacher)
        if candidates.seen is not None:
            shift = [(part.seen[0] + rank * 4 // size, part.seen[1]) for rank, part in enumerate(parts)]
            together = (torch.cat([s[i] for s in shift]) for i in (0, 1))
            assert all(torch.equal(a, b) for a, b in zip(together, candidates.seen, strict=True))
    assert torch.equal(torch.cat([rank.items for rank in ranks]), whole.items)
    for name, sides in whole.features.items():
        for side in (0, 1):
            assert torch.equal(torch.cat([rank.features[name][side] for rank in ranks]), sides[side])


def smoothed(table, near, rows):
    """Return half of each row and half of what its neighbours say, one at a time."""
    found = []
    for row in rows:
        total = 0.5 * table[row]
        for other, weight in zip(near[0][row].tolist(), near[1][row].tolist(), strict=True):
            if other >= 0:
                total = total + 0.5 * weight * table[other]
        found.append(total)
    return torch.stack(found)


def test_the_objective_finds_in_a_lesson_what_each_term_put_there():
    made = everything()
    batch = make_batches(sampler(made), World())(1)
    lesson, judge = batch.lesson, objective(made)
    losses = judge(batch)
    own, tables = scores(), [w.detach() for w in (judge.model.user.weight, judge.model.item.weight)]
    rows = {"users": batch.list_users.tolist(), "items": lesson.items.tolist()}

    for name in ("1.logit_mse", "5.logit_mse"):  # users compared for an item
        candidates = lesson.candidates[name]
        student = own.T[rows["items"]].gather(1, candidates.items.clamp(min=0))
        known = torch.isfinite(candidates.teacher)
        gap = (student - candidates.teacher).masked_fill(~known, 0.0).square().sum(1) / known.sum(1)
        assert losses[name].item() == pytest.approx(gap.mean().item(), rel=1e-4)

    listed, total = lesson.candidates["2.plackett_luce"].items[:, :3], 0.0
    for row, user in enumerate(rows["users"]):
        below = [i for i in range(ITEMS) if i not in listed[row].tolist() and not TAKEN[user, i]]
        rest = own[user, below].exp().sum()
        s = own[user, listed[row]]
        total += sum(((s[j:].exp().sum() + rest).log() - s[j]).item() for j in range(3)) / 3 / len(rows["users"])
    assert losses["2.plackett_luce"].item() == pytest.approx(total, rel=1e-4)

    head = judge.own["3_logit_mse_head"]
    candidates = lesson.candidates["3.logit_mse"]
    each = [
        (head.user(tables[0][user]) @ head.item(tables[1][candidates.items[row]]).T / 0.5 - candidates.teacher[row])
        for row, user in enumerate(rows["users"])
    ]
    assert losses["3.logit_mse"].item() == pytest.approx(torch.stack(each).square().mean().item(), rel=1e-4)

    head = judge.own["7_logit_mse_head"]
    items = torch.cat([batch.positives.unsqueeze(1), batch.negatives[:, :3]], 1)
    student = torch.stack(
        [head.user(tables[0][u]) @ head.item(tables[1][items[row]]).T for row, u in enumerate(batch.users)]
    )
    gap = (student / 0.5 - lesson.candidates["7.logit_mse"].teacher).square().mean()
    assert losses["7.logit_mse"].item() == pytest.approx(gap.item(), rel=1e-4)


def test_the_objective_compares_the_vectors_that_a_lesson_names():
    made = everything()
    batch = make_batches(sampler(made), World())(1)
    lesson, judge = batch.lesson, objective(made)
    losses = judge(batch)
    tables = {"users": judge.model.user.weight.detach(), "items": judge.model.item.weight.detach()}
    rows = {"users": batch.list_users.tolist(), "items": lesson.items.tolist()}
    plain = dict(zip(("users", "items"), comparable(VECTORS), strict=True))
    near, _ = neighbours(DATASET, tuple(plain.values()), neighbours=2, alpha=0.5, keep=1.0)
    near = dict(zip(("users", "items"), near, strict=True))

    def adapter(term, side):
        return judge.own[f"{term}_distance_{side}"].adapter.layer

    expected = {}
    for term, sides in (("0", ("users", "items")), ("6", ("items",))):
        each = []
        for side in sides:
            student = adapter(term, side)(smoothed(tables[side], near[side], rows[side]))
            taught = smoothed(plain[side], near[side], rows[side])
            each.append((student - taught).square().sum(1).mean())
        expected[term] = torch.stack(each).mean()

    adapted = {side: adapter("4", side)(tables[side]) for side in tables}
    each = [(adapted[side] - plain[side])[rows[side]].square().sum(1).mean() for side in tables]
    kept = lesson.candidates["4.distance"].items
    cross = []
    for row, user in enumerate(rows["users"]):
        before = (tables["items"][kept[row]] @ tables["users"][user] / 0.5).softmax(0)
        after = (adapted["items"][kept[row]] @ adapted["users"][user] / 0.5).log_softmax(0)
        cross.append(-(before * after).sum())
    expected["4"] = torch.stack(each).mean() + 0.3 * torch.stack(cross).mean()

    student = adapter("8", "users")(tables["users"])[rows["users"]]
    cosine = torch.nn.functional.cosine_similarity(student, plain["users"][rows["users"]])
    expected["8"] = (1 - cosine).mean()
    for term, value in expected.items():
        assert losses[f"{term}.distance"].item() == pytest.approx(value.item(), rel=1e-4), term


def test_a_step_is_the_same_whenever_it_is_asked_for():
    made = everything()
    one, other = make_batches(sampler(made), World()), make_batches(sampler(made), World())
    other(3)
    first, second = one(5).lesson, other(5).lesson
    for name in first.candidates:
        assert torch.equal(first.candidates[name].items, second.candidates[name].items)
    assert torch.equal(first.crowd, second.crowd)
    assert not torch.equal(first.items, replace(one(6)).lesson.items)
