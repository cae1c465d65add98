"""The student's own lists: exact, refreshed in time, the same after a restart, and nothing kept that nobody reads."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.distill import trajectory
from recdistill.distill.spec import AlignTermSpec, ListTermSpec
from recdistill.distill.spec_align import Gram
from recdistill.distill.spec_draws import InBatch, StudentTop, Top, Trajectory, Unseen
from recdistill.distill.spec_lists import PlackettLuce
from recdistill.guide import Guide, Walk, turned
from recdistill.models.spec import GuideSpec
from recdistill.teaching import Teaching, follows, make_guide
from recdistill.topk import exact_topk
from recdistill.types import Dataset, Interactions, Labels
from recdistill.world import World

USERS, ITEMS, DIM, EVERY = 8, 20, 4, 5
RNG = np.random.default_rng(0)
TAKEN = RNG.random((USERS, ITEMS)) < 0.3
TRAIN = Interactions(indptr=np.concatenate([[0], TAKEN.sum(1).cumsum()]), items=np.nonzero(TAKEN)[1])
ALL_USERS, ALL_ITEMS = np.arange(USERS), np.arange(ITEMS)


def vectors(step, name="student"):
    rng = np.random.default_rng([step, len(name)])
    return tuple(rng.standard_normal((rows, DIM)).astype(np.float32) for rows in (USERS, ITEMS))


class Student:
    """Somebody whose vectors change with each refresh, and who notes how often they were asked for."""

    def __init__(self, *names):
        self.names, self.asked, self.step = names or ("student",), [], 0

    def __call__(self):
        self.asked.append(self.step)
        return {name: vectors(self.step, name) for name in self.names}

    def guide(self, out, **settings):
        given = {"depth": 6, "every": EVERY, "train": TRAIN, "world": World(), "ask": self}
        return Guide(out=out, **given | settings)

    def go(self, guide, *steps):
        for self.step in steps:
            guide.prepare(self.step)


def lists(step, depth=6, name="student"):
    return exact_topk(*vectors(step, name), depth, seen=TRAIN).items


def test_a_refresh_is_the_exact_lists_of_the_vectors_of_that_step(tmp_path: Path):
    student = Student("student", "partner")
    guide = student.guide(tmp_path)
    student.go(guide, 0)
    assert torch.equal(guide.student(ALL_USERS), lists(0))
    assert torch.equal(guide.partner(ALL_USERS), lists(0, name="partner"))
    some = np.array([5, 1, 5])
    assert torch.equal(guide.student(some), lists(0)[some])
    assert not any(TAKEN[user, item] for user, row in enumerate(lists(0).tolist()) for item in row if item >= 0)
    assert guide.by_item(ALL_ITEMS) is None
    assert guide.fused(ALL_USERS) is None


def test_lists_of_users_for_an_item_are_of_those_who_did_not_take_it(tmp_path: Path):
    student = Student()
    guide = student.guide(tmp_path, item_depth=4)
    student.go(guide, 0)
    users, items = vectors(0)
    for item, found in enumerate(guide.by_item(ALL_ITEMS).tolist()):
        left = [user for user in np.argsort(-(users @ items[item])).tolist() if not TAKEN[user, item]][:4]
        assert found == left + [-1] * (4 - len(left))


def test_more_than_the_catalogue_is_the_catalogue(tmp_path: Path):
    student = Student()
    guide = student.guide(tmp_path, depth=500)
    student.go(guide, 0)
    assert guide.student(ALL_USERS).shape == (USERS, ITEMS)


def test_it_is_asked_once_in_so_many_steps(tmp_path: Path):
    student = Student()
    guide = student.guide(tmp_path)
    student.go(guide, *range(12))
    assert student.asked == [0, 5, 10]
    assert torch.equal(guide.student(ALL_USERS), lists(10))


@pytest.mark.parametrize("step", [5, 7, 9])
def test_a_restart_reads_what_the_last_refresh_wrote(tmp_path: Path, step: int):
    first, second = Student(), Student()
    first.go(first.guide(tmp_path), *range(step))
    guide = second.guide(tmp_path)
    second.go(guide, step)
    assert second.asked == ([5] if step == 5 else [])  # at the step of a refresh the weights are those of then
    assert torch.equal(guide.student(ALL_USERS), lists(5))


def test_who_took_an_item_stands_in_the_place_of_what_a_user_took():
    found = turned(TRAIN, ITEMS)
    assert found.num_users == ITEMS
    for item in range(ITEMS):
        assert (
            found.items[found.indptr[item] : found.indptr[item + 1]].tolist() == np.flatnonzero(TAKEN[:, item]).tolist()
        )


MEMBERS, MOMENTS, PLACES, K = 2, 3, 7, 5
ALONG = np.stack([RNG.permutation(ITEMS)[:PLACES] for _ in range(USERS * MEMBERS * MOMENTS)]).astype(np.int32)
LABELS = Labels(
    items=(np.zeros((USERS, 1), np.int32),),
    scores=(np.zeros((USERS, 1), np.float32),),
    residual=(np.zeros(USERS, np.float32),),
    per_shard=USERS,
    facts={"along": [MEMBERS, MOMENTS, PLACES]},
    extra={"trajectory": (ALONG.reshape(USERS, -1),)},
)
WALK = Walk(k=K, alpha=1.0, decay=0.9, every=2)
SETTINGS = {"k": K, "alpha": 1.0, "decay": 0.9}


def expected(times):
    """Return places and fused lists after so many refreshes, each worked out from the first."""
    along = torch.from_numpy(ALONG.astype(np.int64)).view(USERS, MEMBERS, MOMENTS, PLACES)
    places = torch.zeros(USERS, MEMBERS, dtype=torch.int64)
    for refresh in range(2, times + 1, 2):
        places = trajectory.advance(along, places, lists(refresh * EVERY), moves=refresh // 2 - 1, **SETTINGS)
    return places, trajectory.fused(along, places, K)


def test_places_move_only_at_every_second_refresh(tmp_path: Path):
    student = Student()
    guide = student.guide(tmp_path, labels=LABELS, walk=WALK)
    seen = []
    for refresh in range(7):
        student.go(guide, refresh * EVERY)
        places, fused = expected(refresh)
        assert torch.equal(torch.from_numpy(guide.now["places"].astype(np.int64)), places)
        assert torch.equal(guide.fused(ALL_USERS), fused)
        seen.append(places)
    assert [torch.equal(a, b) for a, b in pairwise(seen)][0::2] == [True] * 3
    assert not torch.equal(seen[1], seen[2])
    assert (seen[0] == 0).all()


@pytest.mark.parametrize("checkpoint", [6, 9, 10, 11, 15])
@pytest.mark.parametrize("walk", [None, WALK], ids=["plain", "walk"])
def test_what_is_pruned_is_missed_by_nobody(tmp_path: Path, checkpoint: int, walk: Walk | None):
    """A run is killed at its checkpoint, or goes on: either way the files that are left are enough."""
    settings = {"labels": LABELS, "walk": walk}
    student, later, unpruned = Student(), Student(), Student()
    guide = student.guide(tmp_path, **settings)
    student.go(guide, *range(checkpoint))
    guide.prune(checkpoint)
    assert len(list(tmp_path.glob("guide-*.npz"))) == 1

    resumed = later.guide(tmp_path, **settings)
    later.go(resumed, *range(checkpoint, 31))
    (tmp_path / "other").mkdir()
    whole = unpruned.guide(tmp_path / "other", **settings)
    unpruned.go(whole, *range(31))
    student.go(guide, *range(checkpoint, 31))
    for other in (resumed, guide):
        assert set(other.now) == set(whole.now)
        assert all(np.array_equal(other.now[name], whole.now[name]) for name in whole.now)


def listing(*draw, teacher="labels", side="users"):
    return ListTermSpec(weight=1.0, draw=draw, loss=PlackettLuce(), teacher=teacher, side=side)


@pytest.mark.parametrize(
    ("term", "said"),
    [
        (listing(Top(k=3), Unseen(n=2)), False),
        (listing(StudentTop(k=3)), True),
        (listing(Trajectory(k=3)), True),
        (listing(InBatch(n=3), teacher="partner"), False),
        (listing(Top(k=3), teacher="partner"), True),  # there is no list of a partner's but the guide's
        (listing(Top(k=3), teacher="student"), True),
        (AlignTermSpec(weight=1.0, loss=Gram()), False),
    ],
)
def test_lists_are_kept_up_to_date_for_draws_that_read_them(term, said):
    assert follows(term) == said


def test_a_guide_is_made_as_its_terms_ask(tmp_path: Path):
    dataset = Dataset(
        user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=TRAIN, valid=TRAIN, test=TRAIN
    )
    walking = listing(Trajectory(k=3, every=4, alpha=1.1, decay=0.9), Unseen(n=1))
    teaching = Teaching(terms=[listing(Top(k=2))], labels=LABELS, guide=GuideSpec(depth=7, refresh=3))
    assert make_guide(teaching, dataset, tmp_path, World(), Student(), 10) is None
    made = make_guide(replace(teaching, terms=[walking]), dataset, tmp_path, World(), Student(), 10)
    assert made is not None
    assert (made.depth, made.every, made.item_depth) == (7, 30, 0)
    assert made.walk == Walk(k=3, alpha=1.1, decay=0.9, every=4)
    both = [listing(StudentTop(k=2)), listing(StudentTop(k=2), side="items")]
    made = make_guide(replace(teaching, terms=both), dataset, tmp_path, World(), Student(), 10)
    assert made is not None
    assert (made.item_depth, made.walk) == (7, None)
