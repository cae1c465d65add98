"""What a teacher says, against brute force in float64: an encoder's lists and residual, a ranker's, its candidates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recdistill import labels, teachers
from recdistill.data.sequences import Sequences
from recdistill.distill.spec import CandidatesSpec
from recdistill.labels import open_labels, shard_path
from recdistill.models.build import build
from recdistill.models.encoders import Group
from recdistill.models.spec import RankerSpec
from recdistill.models.tables import PlainTable
from recdistill.teachers import chooser, encoder_lister, ranker_lister, splitmix, write_labels
from recdistill.types import Dataset, Interactions, Past, quiet

USERS, ITEMS, DIM, EACH = 40, 30, 6, 5
RNG = np.random.default_rng(17)
LEFT = RNG.normal(size=(USERS, DIM)).astype(np.float32)
RIGHT = RNG.normal(size=(ITEMS, DIM)).astype(np.float32)
# Items are taken the more often the smaller their row, so that what is popular is known.
TAKEN = [sorted(RNG.choice(ITEMS, EACH, replace=False, p=np.arange(ITEMS, 0, -1) / 465).tolist()) for _ in range(USERS)]


def interactions(lists: list[list[int]]) -> Interactions:
    flat = np.array([item for one in lists for item in one], np.int64)
    return Interactions(
        indptr=np.cumsum([0, *map(len, lists)]).astype(np.int64), items=flat, times=np.arange(len(flat))
    )


TRAIN = interactions(TAKEN)
NOTHING = interactions([[]] * USERS)
DATA = Dataset(
    user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=TRAIN, valid=NOTHING, test=NOTHING
)
EVERYONE = np.arange(USERS)


def by_hand(logits, depth, allowed):
    """Return lists, scores and residual of float64 `logits` over the `allowed` items of each user."""
    for row, scores in enumerate(logits):
        order = sorted(allowed[row], key=lambda item: (-scores[item], item))
        rest = [scores[item] for item in order[depth:]]
        residual = np.log(np.sum(np.exp(rest))) if rest else -np.inf
        yield order[:depth], scores[order[:depth]], residual


def assert_lists(found, wanted):
    for row, (items, scores, residual) in enumerate(wanted):
        short = found.items.shape[1] - len(items)
        assert found.items[row].tolist() == items + [-1] * short
        np.testing.assert_allclose(found.scores[row, : len(items)], scores, rtol=0, atol=2e-5)
        assert torch.isneginf(found.scores[row, len(items) :]).all()
        np.testing.assert_allclose(found.residual[row], residual, rtol=0, atol=2e-5)


@pytest.mark.parametrize("depth", [1, 8, 25, 30, 34])
@pytest.mark.parametrize("seen", [TRAIN, None])
def test_an_encoder_s_lists_and_what_they_leave_out(depth, seen):
    logits = LEFT.astype(np.float64) @ RIGHT.astype(np.float64).T
    own = TAKEN if seen is not None else [[]] * USERS
    allowed = [[item for item in range(ITEMS) if item not in mine] for mine in own]
    found = encoder_lister(LEFT, RIGHT, depth, seen)(EVERYONE)
    assert_lists(found, by_hand(logits, depth, allowed))


@pytest.fixture(scope="module")
def ranker():
    spec = RankerSpec(dim=4, heads=2, cross_layers=1, hidden=(8,), history=3)
    model = build(spec, DATA, PlainTable, seed=2)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():  # a plain table starts as zeros, whose scores would all be equal
        for table in (model.user.table, model.item.table):
            table.weight.copy_(torch.randn(table.weight.shape, generator=generator))
    return model.eval()


def logits_of(ranker):
    users = torch.arange(USERS)
    past = Past(items=torch.tensor([mine[-3:] for mine in TAKEN]))
    with torch.inference_mode():
        return ranker.score(users, past, [Group(torch.arange(ITEMS).expand(USERS, -1))])[0].double().numpy()


@pytest.mark.parametrize("seen", [TRAIN, None])
@pytest.mark.parametrize("some", [True, False])
def test_a_ranker_s_lists_are_of_its_candidates(ranker, seen, some):
    """The residual is over what was scored: the candidates, not the catalogue."""
    picked = [[7 * (user + n) % ITEMS for n in range(12)] for user in range(USERS)]
    table = np.full((USERS, 14), -1)  # -1: a user with fewer candidates
    table[:, 1:13] = picked
    own = TAKEN if seen is not None else [[]] * USERS
    pool = picked if some else [range(ITEMS)] * USERS
    allowed = [[item for item in set(items) if item not in mine] for items, mine in zip(pool, own, strict=True)]
    lister = ranker_lister(
        ranker,
        DATA,
        6,
        sequences=Sequences.of(TRAIN),
        history=3,
        seen=seen,
        choose=(lambda users: table[users]) if some else None,
    )
    assert_lists(lister(EVERYONE), by_hand(logits_of(ranker), 6, allowed))


def candidates(spec, users=EVERYONE, seen=TRAIN):
    choose = chooser(spec, DATA, (LEFT, RIGHT), seen)
    assert choose is not None
    return [[item for item in row if item >= 0] for row in choose(users).tolist()]


def test_candidates_are_near_popular_and_uniform_each_once():
    rows = candidates(CandidatesSpec(ann=5, popular=4, uniform=3))
    logits = LEFT.astype(np.float64) @ RIGHT.astype(np.float64).T
    counts = np.bincount(TRAIN.items, minlength=ITEMS)
    popular = sorted(range(ITEMS), key=lambda item: (-counts[item], item))[:4]
    uniform = 0
    for user, row in enumerate(rows):
        assert len(row) == len(set(row)) <= 12
        near = sorted(set(range(ITEMS)) - set(TAKEN[user]), key=lambda item: -logits[user, item])[:5]
        assert set(near) | set(popular) <= set(row)
        uniform += len(set(row) - set(near) - set(popular))
    assert uniform > USERS  # of 3 a user, some fall on the others


def test_uniform_candidates_are_uniform():
    spec = CandidatesSpec(ann=0, popular=0, uniform=20)
    counts = np.bincount([item for row in candidates(spec) for item in row], minlength=ITEMS)
    # 20 draws of 30 with repetition take an item with probability 1 - (29/30)^20 = 0.492, so 19.7 of 40 users do.
    assert abs(counts.mean() - 19.7) < 1.5
    assert counts.min() > 6
    assert counts.max() < 34


def test_candidates_of_a_user_do_not_depend_on_who_is_asked_with_it():
    spec = CandidatesSpec(ann=4, popular=2, uniform=6)
    together = candidates(spec)
    assert candidates(spec) == together
    assert [candidates(spec, np.array([user]))[0] for user in (0, 9, 39)] == [together[user] for user in (0, 9, 39)]
    assert candidates(spec, EVERYONE[::-1].copy()) == together[::-1]


def test_candidates_that_cover_the_catalogue_are_the_catalogue():
    assert chooser(None, DATA, None, TRAIN) is None
    assert chooser(CandidatesSpec(ann=10, popular=10, uniform=10), DATA, (LEFT, RIGHT), TRAIN) is None
    assert chooser(CandidatesSpec(ann=10, popular=10, uniform=9), DATA, (LEFT, RIGHT), TRAIN) is not None


def test_splitmix_is_the_published_one():
    """The first outputs of SplitMix64 from state 0, as its reference implementation prints them."""
    assert [hex(v) for v in splitmix(np.array([1, 2, 3]))] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


def test_labels_are_written_by_shard_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(teachers, "PER_SHARD", 16)
    monkeypatch.setattr(labels.missing_shards, "__defaults__", (16,))
    asked: list[list[int]] = []
    lister = encoder_lister(LEFT, RIGHT, 4, TRAIN)

    def watched(users):
        asked.append(users.tolist())
        return lister(users)

    facts = write_labels(tmp_path, watched, DATA, 4, {"teacher": "mf"}, quiet)
    assert asked == [list(range(16)), list(range(16, 32)), list(range(32, 40))]
    assert facts["coverage"] == {"users": 40, "users_with_labels": 40, "mean_length": 4.0, "shortest": 4}
    assert json.loads((tmp_path / "labels.json").read_text()) == facts
    assert (facts["per_shard"], facts["num_items"], facts["teacher"]) == (16, ITEMS, "mf")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    shard_path(tmp_path, 1).unlink()
    (tmp_path / "labels.json").unlink()
    asked.clear()
    assert write_labels(tmp_path, watched, DATA, 4, {"teacher": "mf"}, quiet) == facts
    assert asked == [list(range(16, 32))]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    whole = lister(EVERYONE)
    items, scores = open_labels(tmp_path).take(EVERYONE[::-1].copy())
    np.testing.assert_array_equal(items, whole.items.numpy()[::-1])
    np.testing.assert_array_equal(scores, whole.scores.numpy()[::-1])
