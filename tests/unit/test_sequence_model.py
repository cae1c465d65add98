"""The sequence encoder: against loops by hand, and that a state knows its own past and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from recdistill.data.batches import Sampler, make_batches
from recdistill.data.sequences import Sequences
from recdistill.distill.objective import Objective
from recdistill.models.encoders import Group, hidden
from recdistill.models.reading import between
from recdistill.models.sequence import SequenceEncoder
from recdistill.models.tables import PlainTable
from recdistill.types import Batch, Interactions, Past
from recdistill.world import World

USERS, ITEMS, DIM, HEADS, LENGTH = 12, 13, 8, 2, 5
NOBODY = torch.full((3,), -1)
HISTORY = torch.tensor([[-1, -1, 4, 0, 7], [1, 2, 3, 12, 5], [-1, -1, -1, -1, -1]])
TIMES = torch.tensor([[0, 0, 5, 9, 400], [3, 3, 8, 90_000, 90_001], [0, 0, 0, 0, 0]]) * 1_000_000
PAST = Past(items=HISTORY, times=TIMES)
NO_ITEMS = torch.zeros(0, dtype=torch.int64)


def model(layers=2, space="dot", temperature=1.0, id_dropout=0.0):
    made = SequenceEncoder(
        PlainTable,
        num_users=USERS,
        num_items=ITEMS,
        dim=DIM,
        layers=layers,
        heads=HEADS,
        history=LENGTH,
        id_dropout=id_dropout,
        space=space,
        temperature=temperature,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return made.eval().requires_grad_(False)


def states(made, past):
    return made.states(torch.full((len(past),), -1), past, NO_ITEMS)[0]


# The layers


def norm(x, layer):
    centred = x - x.mean()
    scaled = centred / math.sqrt((centred**2).mean() + layer.eps)
    return scaled * layer.weight.double().numpy() + layer.bias.double().numpy()


def linear(x, layer):
    return layer.weight.double().numpy() @ x + layer.bias.double().numpy()


def by_hand(made, items, seconds):
    """Return the states of one history [L] in float64, place by place and head by head."""
    table = made.item.weight.double().numpy()
    x = [norm(table[item] if item >= 0 else np.zeros(DIM), made.reading.first) for item in items]
    for block in made.reading.blocks:
        mixed = [np.split(linear(norm(row, block.before), block.mix), 4) for row in x]
        added = []
        for i, (gate, _, query, _) in enumerate(mixed):
            heads = []
            for head in range(HEADS):
                mine = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
                weights = []
                seen = [j for j in range(i + 1) if items[j] >= 0]
                for j in seen:
                    bucket = int(2 * math.log2(1 + seconds[i] - seconds[j]))
                    bias = float(block.place[i - j, head]) + float(block.age[bucket, head])
                    weights.append(query[mine] @ mixed[j][3][mine] / math.sqrt(DIM / HEADS) + bias)
                share = np.exp(np.array(weights) - max(weights))
                heads.append(sum(s * mixed[j][1][mine] for j, s in zip(seen, share / share.sum(), strict=True)))
            silu = gate / (1 + np.exp(-gate))
            added.append(linear(norm(np.concatenate(heads), block.between) * silu, block.out))
        x = [row + more for row, more in zip(x, added, strict=True)]
    return np.stack([0.1 * norm(row, made.reading.last) for row in x])


@pytest.mark.parametrize("items", [[1, 2, 3, 12, 5], [1, -1, 3, 12, -1]], ids=["whole", "hidden"])
@pytest.mark.parametrize("layers", [1, 2])
def test_states_are_those_of_loops_by_hand(layers, items):
    made = model(layers)
    found = states(made, Past(items=torch.tensor([items]), times=TIMES[1:2]))[0].numpy()
    np.testing.assert_allclose(found, by_hand(made, items, [3, 3, 8, 90_000, 90_001]), rtol=1e-3, atol=1e-5)


def test_times_apart_fall_in_buckets_two_an_octave():
    apart = between(torch.tensor([[0, 1, 3, 4, 2**40]]) * 1_000_000)[0]
    assert apart[:, 0].tolist() == [0, 2, 4, 4, 63]  # twice log2 of 1, 2, 4, 5, and beyond the last bucket
    assert apart[0].tolist() == [0] * 5  # what comes later is nothing apart


# What a state knows


def test_what_comes_later_changes_no_state():
    made, before = model(), states(model(), PAST)
    for at in range(LENGTH):
        changed, moved = HISTORY.clone(), TIMES.clone()
        changed[:, at] = 9
        moved[:, at:] += 7_000_000
        after = states(made, Past(items=changed, times=moved))
        assert torch.equal(after[:, :at], before[:, :at])
        assert (after[1, at] != before[1, at]).any()


def test_a_state_is_the_vector_of_the_past_up_to_it():
    made, whole = model(), states(model(), PAST)
    for at in range(LENGTH):
        upto = Past(items=HISTORY[:, : at + 1], times=TIMES[:, : at + 1])
        left, _ = made.vectors(NOBODY, upto, NO_ITEMS)
        torch.testing.assert_close(left, whole[:, at])


def test_padding_changes_nothing():
    made = model()
    short, _ = made.vectors(NOBODY[:1], Past(items=torch.tensor([[4, 0, 7]]), times=TIMES[:1, 2:]), NO_ITEMS)
    padded, _ = made.vectors(NOBODY[:1], Past(items=HISTORY[:1], times=TIMES[:1]), NO_ITEMS)
    torch.testing.assert_close(short, padded)
    torch.testing.assert_close(states(made, PAST)[0], states(made, Past(items=HISTORY[:1], times=TIMES[:1]))[0])


def test_only_times_apart_matter_and_they_do():
    made, before = model(), states(model(), PAST)
    torch.testing.assert_close(states(made, Past(items=HISTORY, times=TIMES + 10**15)), before)
    stretched = states(made, Past(items=HISTORY, times=TIMES * 50))
    assert (stretched[1, -1] - before[1, -1]).abs().max() > 1e-3


def test_without_times_the_order_alone_is_read():
    made = model()
    found = states(made, Past(items=HISTORY))
    assert torch.isfinite(found).all()
    assert (found[1] != states(made, Past(items=HISTORY.flip(1)))[1]).any()


def test_a_known_users_vector_is_its_row_plus_the_state():
    made, users = model(), torch.tensor([4, 0, 11])
    known, _ = made.vectors(users, PAST, NO_ITEMS)
    torch.testing.assert_close(known, made.user.weight[users] + states(made, PAST)[:, -1])


def test_id_dropout_hides_ids_in_training_only():
    made, users = model(id_dropout=0.5), torch.arange(USERS).repeat(10)
    past = Past(items=torch.arange(10 * USERS).unsqueeze(1) % ITEMS)
    assert torch.equal(made.states(users, past, NO_ITEMS)[1], made.user.weight[users])
    made.train()
    added, hides = made.states(users, past, NO_ITEMS)[1], hidden(users, past.items, 0.5)
    assert 0 < hides.sum() < len(users)
    assert torch.equal(added, made.user.weight[users] * ~hides.unsqueeze(1))


def test_nobody_and_nothing_are_zeros():
    made = model()
    left, right = made.vectors(NOBODY, PAST, torch.tensor([3, -1]))
    assert not left[2].any()
    assert left[0].any()
    assert not right[1].any()
    torch.testing.assert_close(right[0], made.item.weight[3])
    empty, _ = made.vectors(NOBODY, Past(items=torch.zeros(3, 0, dtype=torch.int64)), NO_ITEMS)
    assert empty.shape == (3, DIM)
    assert not empty.any()


# Scores


EACH = torch.tensor([[1, 2], [3, -1], [0, 12]])
PLACES = torch.tensor([[0, 0, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
AT = [(0, 2), (0, 4), (1, 0), (1, 1), (1, 4)]  # the same in words
OF_PLACES = torch.arange(30).view(3, 5, 2) % ITEMS


@pytest.mark.parametrize("whole", [True, False], ids=["catalogue", "few"])
@pytest.mark.parametrize("space", ["dot", "cosine"])
def test_scores_of_each_group_are_inner_products(whole, space):
    made = model(space=space, temperature=0.5)
    groups = [Group(torch.tensor([5, 0])), Group(EACH), Group(torch.tensor([8]), slice(1, 3))]
    groups += [Group(torch.tensor([6]), places=PLACES)]
    if whole:  # with as many items as there are, all are looked up instead
        groups += [Group(torch.arange(ITEMS)), Group(EACH, places=PLACES), Group(OF_PLACES, places=PLACES)]
    found = made.score(torch.tensor([4, 0, -1]), PAST, groups)
    identity = torch.stack([made.user.weight[4], made.user.weight[0], torch.zeros(DIM)])
    left, right = states(made, PAST) + identity.unsqueeze(1), made.item.weight
    if space == "cosine":
        left, right = (x / x.norm(dim=-1, keepdim=True).clamp(min=1e-9) for x in (left, right))
    table = left @ right.T / 0.5
    last = table[:, -1]
    torch.testing.assert_close(found[0], last[:, [5, 0]])
    expected = last.gather(1, EACH.clamp(min=0))
    expected[1, 1] = 0
    torch.testing.assert_close(found[1], expected)
    torch.testing.assert_close(found[2], last[1:3, [8]])
    torch.testing.assert_close(found[3], torch.stack([table[row, at, [6]] for row, at in AT]))
    if whole:
        torch.testing.assert_close(found[4], last)
        each = torch.stack([table[row, at, EACH[row].clamp(min=0)] for row, at in AT])
        each[2:, 1] = 0
        torch.testing.assert_close(found[5], each)
        own = torch.stack([table[row, at, OF_PLACES[row, at]] for row, at in AT])
        torch.testing.assert_close(found[6], own)


WINDOWS = Batch(
    users=torch.tensor([0, 1, 2]),
    positives=torch.tensor([[-1, -1, 0, -1, 9], [2, 3, -1, -1, 6], [-1, -1, -1, -1, -1]]),
    negatives=torch.arange(ITEMS),
    past=PAST,
    count=5.0,
    list_users=NO_ITEMS,
    list_past=Past(items=torch.zeros(0, LENGTH, dtype=torch.int64)),
)
WANTED = [0, 9, 2, 3, 6]
READ = [{4}, {4, 0, 7}, {1}, {1, 2}, {1, 2, 3, 12, 5}]  # what each place has read, which is no negative


def task(batch, loss="softmax"):
    return Objective(model(), loss=loss, num_items=ITEMS)(batch)["task"].item()


def at_places():
    known = states(model(), PAST) + model().user.weight[WINDOWS.users].unsqueeze(1)
    table = (known @ model().item.weight.T).double()
    return [table[row, at].tolist() for row, at in AT]


def test_the_task_is_the_mean_over_the_targets_of_all_windows():
    expected = [
        math.log(sum(math.exp(s) for item, s in enumerate(row) if item not in known)) - row[wanted]
        for row, wanted, known in zip(at_places(), WANTED, READ, strict=True)
    ]
    assert task(WINDOWS) == pytest.approx(sum(expected) / 5, rel=1e-4)
    assert task(replace(WINDOWS, count=2.5)) == pytest.approx(sum(expected) / 2.5, rel=1e-4)  # half of two ranks' ten


def test_the_task_with_shared_negatives_leaves_collisions_and_the_past_out():
    few = [9, 1, 4, 9, 12]
    expected = 0.0
    for row, wanted, known in zip(at_places(), WANTED, READ, strict=True):
        rest = sum(math.exp(row[n]) * ITEMS / 5 for n in few if n != wanted and n not in known)
        expected += (math.log(math.exp(row[wanted]) + rest) - row[wanted]) / 5
    assert task(replace(WINDOWS, negatives=torch.tensor(few))) == pytest.approx(expected, rel=1e-4)


def test_bpr_compares_each_place_with_its_rows_negatives():
    own = torch.tensor([[1, 5], [8, 10], [3, 3]])  # of no user's past
    expected = 0.0
    for (user, _), row, wanted in zip(AT, at_places(), WANTED, strict=True):
        expected += sum(math.log1p(math.exp(row[n] - row[wanted])) for n in own[user].tolist()) / 10
    assert task(replace(WINDOWS, negatives=own), "bpr") == pytest.approx(expected, rel=1e-4)


def test_the_mean_over_ranks_is_the_loss_of_one():
    taken = np.random.default_rng(0).random((12, ITEMS)) < 0.5
    taken[:, :2] = True
    indptr = np.concatenate([[0], taken.sum(1).cumsum()])
    log = Interactions(indptr=indptr, items=np.nonzero(taken)[1], times=np.arange(indptr[-1]) ** 2)
    sampler = Sampler(
        train=log,
        num_items=ITEMS,
        sequences=Sequences.of(log),
        batch=8,
        negatives=ITEMS,
        own_negatives=False,
        history=LENGTH,
        seed=3,
        windows=True,
    )
    parts = [make_batches(sampler, World(rank=rank, size=4)) for rank in range(4)]
    for step in (0, 5):
        whole = make_batches(sampler, World())(step)
        counts = [int((part(step).positives >= 0).sum()) for part in parts]
        assert len(set(counts)) > 1  # the ranks hold different numbers of targets
        assert sum(task(part(step)) for part in parts) / 4 == pytest.approx(task(whole), rel=1e-5)
