"""A batch is a function of (seed, step), cut by rank; epochs cover the data; negatives are rejected exactly."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest
import torch

from recdistill.data.batches import Sampler, make_batches
from recdistill.data.sequences import Sequences
from recdistill.errors import DataError
from recdistill.parts import cut
from recdistill.types import Candidates, Interactions, Labels, Lesson
from recdistill.world import World

USERS, ITEMS = 12, 30
TAKEN = np.random.default_rng(0).random((USERS, ITEMS)) < 0.3
TAKEN[3] = True
TAKEN[3, [7, 20]] = False  # a user of all but two items
TRAIN = Interactions(
    indptr=np.concatenate([[0], TAKEN.sum(1).cumsum()]),
    items=np.nonzero(TAKEN)[1],
    times=np.arange(TAKEN.sum()),
)
LABELS = Labels(
    items=(np.arange(USERS * 3, dtype=np.int32).reshape(USERS, 3) % ITEMS,),
    scores=(np.tile(np.float32([3, 2, 1]), (USERS, 1)),),
    residual=(np.zeros(USERS, np.float32),),
    per_shard=USERS,
    facts={},
)
SAMPLER = Sampler(
    train=TRAIN,
    num_items=ITEMS,
    sequences=Sequences.of(TRAIN),
    batch=8,
    negatives=5,
    own_negatives=True,
    history=4,
    seed=3,
)


class Shown:
    """A lesson of the teacher's three items and two at random."""

    asks_users, asks_items, asks_batch = True, False, False

    def kept(self):
        return None

    def prepare(self, step):
        pass

    def draw(self, step, users, items, world, generator, histories):  # noqa: ARG002
        listed, scores = map(torch.from_numpy, LABELS.take(users.numpy()))
        noise = torch.randint(ITEMS, (len(users), 2), generator=generator)
        teacher = torch.nn.functional.pad(scores, (0, 2))
        whole = Candidates(items=torch.cat([listed, noise], 1), teacher=teacher, ranked=3)
        return Lesson(candidates={"term": cut(whole, world.slice(len(users)))})

    def of_batch(self, users, positives, negatives):  # noqa: ARG002
        yield from ()


DISTILLED = replace(SAMPLER, list_users=6, lessons=Shown())
NAMES = ("users", "positives", "negatives", "past.items", "list_users", "list_past.items")


def same(a, b):
    terms = all(torch.equal(a.lesson.candidates[t].items, b.lesson.candidates[t].items) for t in a.lesson.candidates)
    return terms and all(torch.equal(attrgetter(name)(a), attrgetter(name)(b)) for name in NAMES)


def test_a_batch_is_a_function_of_seed_and_step():
    first, second = make_batches(DISTILLED, World()), make_batches(DISTILLED, World())
    forward = [first(step) for step in range(40)]
    backward = [second(step) for step in reversed(range(40))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    assert not same(forward[0], forward[1])
    assert not same(forward[0], make_batches(replace(DISTILLED, seed=4), World())(0))


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_hold_the_parts_of_the_one_batch(own, size):
    sampler = replace(DISTILLED, own_negatives=own, list_users=8)
    whole = make_batches(sampler, World())
    ranks = [make_batches(sampler, World(rank=r, size=size)) for r in range(size)]
    for step in (0, 1, 17):
        one, parts = whole(step), [rank(step) for rank in ranks]
        for name in NAMES:
            if name == "negatives" and not own:
                assert all(torch.equal(p.negatives, one.negatives) for p in parts)
            else:
                assert torch.equal(torch.cat([attrgetter(name)(p) for p in parts]), attrgetter(name)(one))
        for field in ("items", "teacher"):
            joined = torch.cat([getattr(p.lesson.candidates["term"], field) for p in parts])
            assert torch.equal(joined, getattr(one.lesson.candidates["term"], field))
        assert {p.lesson.candidates["term"].ranked for p in parts} == {3}


def test_shapes_are_those_of_the_types():
    one = make_batches(DISTILLED, World())(0)
    assert one.users.shape == one.positives.shape == (8,)
    assert one.negatives.shape == (8, 5)
    assert one.past.items.shape == (8, 4)
    assert one.list_users.shape == (6,)
    assert one.list_past.items.shape == (6, 4)
    assert make_batches(replace(SAMPLER, own_negatives=False), World())(0).negatives.shape == (5,)


def epoch(sampler, number=0):
    batch = make_batches(sampler, World())
    steps = range(number * sampler.steps_per_epoch, (number + 1) * sampler.steps_per_epoch)
    found = [batch(step) for step in steps]
    return [pair for b in found for pair in zip(b.users.tolist(), b.positives.tolist(), strict=True)]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_interaction_comes_once_an_epoch(number):
    whole = list(zip(*np.nonzero(TAKEN), strict=True))
    divides = next(b for b in range(2, len(whole)) if len(whole) % b == 0)
    assert sorted(epoch(replace(SAMPLER, batch=divides), number)) == sorted(whole)
    short = epoch(SAMPLER, number)  # what is left over when the batch does not divide the log waits for luck
    assert len(set(short)) == len(short) == len(whole) // 8 * 8


def test_epochs_differ_in_their_order():
    assert epoch(SAMPLER, 0) != epoch(SAMPLER, 1)


def test_a_batch_larger_than_the_log_goes_round_it():
    size = len(TRAIN)
    users = make_batches(replace(SAMPLER, batch=2 * size), World())(0)
    pairs = list(zip(users.users.tolist(), users.positives.tolist(), strict=True))
    assert all(pairs.count(pair) == 2 for pair in set(pairs))
    assert len(set(pairs)) == size


def test_history_is_what_came_before_the_positive():
    batch = make_batches(SAMPLER, World())
    for step in range(5):
        one = batch(step)
        for user, positive, row in zip(
            one.users.tolist(), one.positives.tolist(), one.past.items.tolist(), strict=True
        ):
            mine = np.flatnonzero(TAKEN[user]).tolist()  # stored in time's order, which is the items' own here
            past = mine[: mine.index(positive)][-4:]
            assert row == [-1] * (4 - len(past)) + past


def test_own_negatives_are_never_the_users_items():
    batch = make_batches(SAMPLER, World())
    for step in range(60):
        one = batch(step)
        most = one.users != 3
        assert not TAKEN[one.users[most, None].numpy(), one.negatives[most].numpy()].any()


def test_shared_negatives_are_the_catalogue_when_they_would_exceed_it():
    batch = make_batches(replace(SAMPLER, own_negatives=False, negatives=ITEMS), World())
    assert batch(0).negatives.tolist() == list(range(ITEMS))


def test_list_users_cover_everyone_each_round():
    batch = make_batches(DISTILLED, World())
    for start in (0, 2, 4):
        seen = torch.cat([batch(step).list_users for step in (start, start + 1)])
        assert sorted(seen.tolist()) == list(range(USERS))


def test_lists_and_histories_are_those_of_their_users():
    one = make_batches(DISTILLED, World())(5)
    items, scores = LABELS.take(one.list_users.numpy())
    assert one.lesson.candidates["term"].items[:, :3].tolist() == items.tolist()
    assert one.lesson.candidates["term"].teacher[:, :3].tolist() == scores.tolist()
    for user, row in zip(one.list_users.tolist(), one.list_past.items.tolist(), strict=True):
        assert [item for item in row if item >= 0] == np.flatnonzero(TAKEN[user])[-4:].tolist()


def test_without_labels_there_are_no_list_users():
    one = make_batches(SAMPLER, World())(0)
    assert len(one.list_users) == 0
    assert one.lesson.candidates == {}


# Windows


WINDOWS = replace(SAMPLER, windows=True, own_negatives=False, batch=4)


def targets(sampler, number):
    """Return what an epoch teaches: (user, item) of every place, in the order of its windows."""
    batch = make_batches(sampler, World())
    steps = range(number * sampler.steps_per_epoch, (number + 1) * sampler.steps_per_epoch)
    found = []
    for one in map(batch, steps):
        rows, places = np.nonzero(one.positives.numpy() >= 0)
        found += list(zip(one.users[rows].tolist(), one.positives[rows, places].tolist(), strict=True))
    return found


def test_an_epoch_of_windows_teaches_every_interaction_but_a_users_first_once():
    count = sum(-(-(n - 1) // 4) for n in TAKEN.sum(1).tolist() if n)  # of windows of four targets
    divides = next(b for b in range(2, count + 1) if count % b == 0)
    wanted = [(u, int(i)) for u in range(USERS) for i in np.flatnonzero(TAKEN[u])[1:]]
    for number in (0, 1, 2):
        assert sorted(targets(replace(WINDOWS, batch=divides), number)) == wanted


def test_windows_lie_elsewhere_in_another_epoch():
    batch, each = make_batches(WINDOWS, World()), WINDOWS.steps_per_epoch
    starts = []
    for first in (0, each):
        steps = [batch(step) for step in range(first, first + each)]
        starts.append({(int(u), int(row[0])) for b in steps for u, row in zip(b.users, b.past.items, strict=True)})
    assert starts[0] != starts[1]


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_hold_the_parts_of_the_one_batch_of_windows(size):
    whole = make_batches(WINDOWS, World())
    ranks = [make_batches(WINDOWS, World(rank=r, size=size)) for r in range(size)]
    for step in (0, 3, 50):
        one, parts = whole(step), [rank(step) for rank in ranks]
        for name in ("users", "positives", "past.items", "past.times"):
            assert torch.equal(torch.cat([attrgetter(name)(p) for p in parts]), attrgetter(name)(one))
        assert one.positives.shape == one.past.items.shape == (4, 4)
        # A sum over a rank's targets, divided by its count and averaged over ranks, is the mean over all targets.
        assert one.count == (one.positives >= 0).sum()
        assert {p.count for p in parts} == {one.count / size}


def test_a_step_hides_a_share_of_the_past_and_none_of_the_targets():
    hiding = replace(WINDOWS, item_dropout=0.3)
    plain, batch, again = (make_batches(sampler, World()) for sampler in (WINDOWS, hiding, hiding))
    hidden = total = 0
    for step in range(60):
        whole, one = plain(step), batch(step)
        assert torch.equal(one.positives, whole.positives)
        assert torch.equal(one.past.items, again(step).past.items)
        gone = one.past.items != whole.past.items
        assert (one.past.items[gone] == -1).all()
        hidden, total = hidden + int(gone.sum()), total + int((whole.past.items >= 0).sum())
    assert hidden / total == pytest.approx(0.3, abs=0.06)  # four standard deviations of some 900 draws
    halves = [make_batches(hiding, World(rank=rank, size=2))(7).past.items for rank in range(2)]
    assert torch.equal(torch.cat(halves), batch(7).past.items)


def test_windows_need_a_user_with_two_interactions():
    alone = Interactions(indptr=np.arange(4), items=np.arange(3), times=np.zeros(3, np.int64))
    with pytest.raises(DataError, match="two training interactions"):
        make_batches(replace(WINDOWS, train=alone, sequences=Sequences.of(alone)), World())
