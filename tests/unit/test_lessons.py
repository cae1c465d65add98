"""What a step compares: drawn from labels, batches and guides, and put together as the objective expects it."""

from __future__ import annotations

from math import log
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.batches import Sampler, make_batches
from recdistill.data.sequences import Sequences
from recdistill.distill.compose import make_terms
from recdistill.distill.objective import Objective, Widths
from recdistill.distill.spec import Auxiliary, ListTermSpec
from recdistill.distill.spec_draws import InBatch, Pairs, RankGap, StudentTop, Top, Unseen
from recdistill.distill.spec_lists import LogitMSE, Pairwise, PlackettLuce, SoftmaxKL
from recdistill.distill.spec_targets import Debias
from recdistill.guide import turned
from recdistill.lessons import make_lessons
from recdistill.models.encoders import MF
from recdistill.models.tables import PlainTable
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


def test_lists_of_an_item_are_of_users_who_did_not_take_it():
    made = lessons(listing(side="items", draw=(Top(k=3), Unseen(n=4)), loss=PlackettLuce()))
    found = draw(made)
    candidates = found.candidates["0.plackett_luce"]
    assert (made.asks_items, made.asks_users) == (True, False)
    assert found.items.tolist() == [5, 1, 20, 5]
    assert candidates.items.shape == (4, 7)
    assert torch.equal(candidates.items[:, :3], torch.from_numpy(BY_ITEM.items[0][[5, 1, 20, 5], :3].astype(int)))
    for row, item in enumerate(found.items.tolist()):
        below = [u for u in candidates.items[row, 3:].tolist() if u >= 0]
        assert not TAKEN[below, item].any()
        assert not set(below) & set(BY_ITEM.items[0][item].tolist())
    assert torch.equal(found.crowd, candidates.items.reshape(-1))


def test_what_lists_do_not_score_vectors_do_on_either_side():
    made = lessons(listing(draw=(Top(k=2), Unseen(n=6))), listing(side="items", draw=(Top(k=2), Unseen(n=3))))
    found = draw(made)
    of_users, of_items = found.candidates["0.logit_mse"], found.candidates["1.logit_mse"]
    for candidates, rows, table in ((of_users, (3, 0, 7, 7), TABLE), (of_items, (5, 1, 20, 5), TABLE.T)):
        known = candidates.items >= 0
        expected = table[list(rows)].gather(1, candidates.items.clamp(min=0))
        torch.testing.assert_close(candidates.teacher[known], expected[known], rtol=1e-4, atol=1e-5)
        assert torch.isneginf(candidates.teacher[~known]).all()


@pytest.mark.parametrize("own", [True, False], ids=["own", "shared"])
def test_the_batchs_items_are_each_rows_positive_and_its_first_negatives(own):
    made = lessons(listing(draw=(InBatch(n=4),)))
    batch = make_batches(sampler(made, own_negatives=own), World())(2)
    candidates = batch.lesson.candidates["0.logit_mse"]
    assert (made.asks_items, made.asks_users, len(batch.list_users)) == (False, False, 0)
    assert candidates.items.shape == (8, 5)
    assert candidates.ranked == 1
    negatives = batch.negatives if own else batch.negatives.expand(8, -1)
    for row, positive in enumerate(batch.positives.tolist()):
        expected = [positive, *(n if n != positive else -1 for n in negatives[row, :4].tolist())]
        assert candidates.items[row].tolist() == expected
    known = candidates.items >= 0
    expected = TABLE[batch.users].gather(1, candidates.items.clamp(min=0))
    torch.testing.assert_close(candidates.teacher[known], expected[known], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own", [True, False], ids=["own", "shared"])
@pytest.mark.parametrize("head", [None, Auxiliary()], ids=["serving", "own head"])
def test_fewer_negatives_than_asked_for_are_all_there_are(own, head):
    made = lessons(listing(draw=(InBatch(n=50),), head=head))
    batch = make_batches(sampler(made, own_negatives=own), World())(0)
    assert batch.lesson.candidates["0.logit_mse"].items.shape == (8, 7)
    found = objective(made)(batch)["0.logit_mse"]
    if head is None:
        items = batch.lesson.candidates["0.logit_mse"].items
        student = scores()[batch.users].gather(1, items.clamp(min=0))
        gap = (student - TABLE[batch.users].gather(1, items.clamp(min=0))).square() * (items >= 0)
        torch.testing.assert_close(found, (gap.sum(1) / (items >= 0).sum(1)).mean())
    assert torch.isfinite(found)


def scores():
    made = filled()
    return (made.user.weight @ made.item.weight.T / made.temperature).detach()


def test_teacher_and_student_are_corrected_alike():
    share = log(6 / ITEMS)
    made = lessons(listing(draw=(InBatch(n=6),), target=(Debias(),), loss=SoftmaxKL()))
    batch = make_batches(sampler(made, own_negatives=False), World())(1)
    candidates = batch.lesson.candidates["0.softmax_kl"]
    assert torch.equal(candidates.logq, torch.tensor([0.0] + [share] * 6).float().expand(8, -1))
    total = 0.0
    for row, user in enumerate(batch.users.tolist()):
        items = candidates.items[row]
        known = items >= 0
        sides = [
            (table[user, items.clamp(min=0)].double() - candidates.logq[row])[known].log_softmax(0)
            for table in (TABLE, scores())
        ]
        total += (sides[0].exp() * (sides[0] - sides[1])).sum().item() / 8
    assert objective(made)(batch)["0.softmax_kl"].item() == pytest.approx(total, rel=1e-4)


STUDENT = torch.from_numpy(np.stack([RNG.permutation(ITEMS)[:9] for _ in range(USERS)]))
PARTNER = torch.from_numpy(np.stack([RNG.permutation(ITEMS)[:9] for _ in range(USERS)]))
OF_ITEMS = torch.from_numpy(np.stack([RNG.permutation(USERS)[:6] for _ in range(ITEMS)]))
GUIDE = SimpleNamespace(
    student=lambda users: STUDENT[users],
    partner=lambda users: PARTNER[users],
    by_item=lambda items: OF_ITEMS[items],
    fused=lambda _: None,
    prepare=lambda _: None,
)


@pytest.mark.parametrize(
    ("teacher", "teaches", "learns"), [("partner", PARTNER, STUDENT), ("student", STUDENT, PARTNER)]
)
def test_lists_of_who_teaches_stand_for_the_labels(teacher, teaches, learns):
    users = [3, 0, 7, 7]
    made = lessons(
        listing(teacher=teacher, draw=(Top(k=4),)),
        listing(teacher=teacher, draw=(StudentTop(k=4),)),
        listing(teacher=teacher, draw=(RankGap(side="over", k=9, temperature=1),)),
        labels=None,
        guide=GUIDE,
    )
    found = draw(made, items=()).candidates
    assert torch.equal(found["0.logit_mse"].items, teaches[users, :4])
    assert torch.equal(found["1.logit_mse"].items, learns[users, :4])
    assert torch.equal(found["2.logit_mse"].items, learns[users])
    assert all(torch.isneginf(candidates.teacher).all() for candidates in found.values())


def test_what_teaches_can_be_drawn_in_pairs_too():
    made = lessons(listing(teacher="partner", draw=(Pairs(n=2, groups=2),), loss=Pairwise()), labels=None, guide=GUIDE)
    found = draw(made, items=()).candidates["0.pairwise"].items
    assert found.shape == (4, 8)
    for row, user in enumerate((3, 0, 7, 7)):
        order = PARTNER[user].tolist()
        for better, worse in found[row].view(-1, 2).tolist():
            assert better == worse == -1 or order.index(better) < order.index(worse)


def test_the_students_own_lists_of_users_are_those_of_the_item():
    made = lessons(listing(side="items", draw=(StudentTop(k=3),)), guide=GUIDE)
    assert torch.equal(draw(made).candidates["0.logit_mse"].items, OF_ITEMS[[5, 1, 20, 5], :3])
