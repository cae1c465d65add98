"""What a label store keeps beside its lists: vectors that score them, lists of users, lists along a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recdistill import beside
from recdistill.beside import moments, with_trajectory, write_by_item, write_vectors
from recdistill.data.sequences import Sequences
from recdistill.errors import ConfigError
from recdistill.guide import turned
from recdistill.labels import Layout, Lists, open_labels
from recdistill.members import Ready
from recdistill.models.recipe import Teacher
from recdistill.models.spec import Fitted, MFSpec
from recdistill.scoring import encoder_scorer
from recdistill.shards import Share, finish, write_shards
from recdistill.teachers import encoder_lister
from recdistill.topk import exact_topk
from recdistill.types import Dataset, Interactions, quiet

USERS, ITEMS, DIM, DEPTH = 23, 17, 5, 6
RNG = np.random.default_rng(0)
TAKEN = RNG.random((USERS, ITEMS)) < 0.3
TAKEN[:, 4] = True  # an item that nobody is left for
TRAIN = Interactions(indptr=np.concatenate([[0], TAKEN.sum(1).cumsum()]), items=np.nonzero(TAKEN)[1])
DATASET = Dataset(
    user_ids=pl.Series(range(USERS)), item_ids=pl.Series(range(ITEMS)), train=TRAIN, valid=TRAIN, test=TRAIN
)
LAYOUT = Layout(num_users=USERS, num_items=ITEMS, depth=DEPTH, shard_users=10, stamp={"step": "s", "teacher": "t"})


def sides(seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((rows, DIM)).astype(np.float32) for rows in (USERS, ITEMS))


def ready(seed=0, vectors=True):
    made = sides(seed)
    return Ready(score=encoder_scorer(*made), size=0, vectors=made if vectors else None)


def store(out: Path, layout=LAYOUT, lister=None):
    write_shards(out, layout, lambda: lister or encoder_lister(*sides(), DEPTH, TRAIN), quiet, Share())
    return lambda: finish(out, layout, {}, TRAIN)


def test_the_product_of_the_vectors_is_the_listed_score(tmp_path: Path):
    end = store(tmp_path)
    write_vectors(tmp_path, ready(), Teacher())
    end()
    labels, users = open_labels(tmp_path), np.arange(USERS)
    assert labels.vectors is not None
    items, scores = labels.take(users)
    products = labels.vectors.users @ labels.vectors.items.T
    known = items >= 0
    np.testing.assert_allclose(scores[known], np.take_along_axis(products, items, 1)[known], rtol=1e-5, atol=1e-6)
    assert labels.by_item is None


@pytest.mark.parametrize("seen", [TRAIN, None], ids=["seen left out", "all"])
def test_lists_of_users_are_those_of_the_transposed_teacher(tmp_path: Path, seen):
    end = store(tmp_path)
    write_by_item(tmp_path, ready(), LAYOUT, 7, seen)
    end()
    by_item = open_labels(tmp_path).by_item
    assert by_item is not None
    found, scores = by_item.take(np.arange(ITEMS))
    users, items = sides()
    exact = exact_topk(items, users, 7, seen=None if seen is None else turned(seen, ITEMS))
    assert np.array_equal(found, exact.items.numpy())
    assert np.array_equal(scores, exact.scores.numpy())
    table = users @ items.T
    for item in range(ITEMS):
        left = [u for u in np.argsort(-table[:, item]).tolist() if seen is None or not TAKEN[u, item]][:7]
        assert found[item].tolist() == left + [-1] * (7 - len(left))
    assert (by_item.num_users, len(by_item.items)) == (ITEMS, 2)  # shards of ten items


@pytest.mark.parametrize(
    ("write", "setting"),
    [
        (lambda out, made: write_vectors(out, made, Teacher()), "labels.vectors"),
        (lambda out, made: write_by_item(out, made, LAYOUT, 3, None), "labels.item_depth"),
    ],
)
def test_a_teacher_without_vectors_is_refused(tmp_path: Path, write, setting):
    with pytest.raises(ConfigError, match=f"{setting}.*needs a teacher whose scores are products of vectors"):
        write(tmp_path, ready(vectors=False))


def test_lists_along_trainings_stand_by_teacher_then_moment_then_place(tmp_path: Path):
    along = [encoder_lister(*sides(seed), 4, TRAIN) for seed in range(1, 7)]  # two models at three moments
    layout = Layout(num_users=USERS, num_items=ITEMS, depth=DEPTH, shard_users=10, along=(2, 3, 4), stamp=LAYOUT.stamp)
    plain = encoder_lister(*sides(), DEPTH, TRAIN)
    store(tmp_path, layout, with_trajectory(plain, along))()
    labels, users = open_labels(tmp_path), np.array([22, 3, 11])
    found = labels.trajectory(users)
    assert found.shape == (3, 2, 3, 4)
    for seed in range(1, 7):
        member, moment = divmod(seed - 1, 3)
        assert np.array_equal(found[:, member, moment], exact_topk(*sides(seed), 4, seen=TRAIN, rows=users).items)
    assert np.array_equal(labels.take(users)[0], plain(users).items)


def model(path: Path, steps, best):
    path.mkdir()
    for step in steps:
        (path / f"weights-{step}.safetensors").touch()
    (path / "weights-old.safetensors").touch()  # of no step
    manifest = SimpleNamespace(facts={"best_step": best})
    return Fitted(spec=MFSpec(dim=4), artifact=SimpleNamespace(path=path, manifest=manifest))  # pyrefly: ignore


@pytest.mark.parametrize(
    ("steps", "best", "count", "wanted"),
    [
        ((10, 20, 30, 40, 50, 60), 50, 3, [10, 40, "best"]),
        ((100, 20, 3, 40), 100, 4, [3, 20, 40, "best"]),  # by number, not by name
        ((10, 20, 30), 30, 1, ["best"]),
        ((10, 20), 20, 4, [10, 10, 10, "best"]),
        ((10, 20), 10, 3, ["best", "best", "best"]),
    ],
)
def test_moments_are_even_and_the_best_weights_are_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps, best, count, wanted
):
    asked = []

    def opened(spec, path, dataset, sequences, weights):
        asked.append((path.name, weights))
        return ready(len(asked))

    monkeypatch.setattr(beside, "ready", opened)
    teacher = Teacher(models=(model(tmp_path / "a", steps, best), model(tmp_path / "b", steps, best)))
    listers = moments(DATASET, teacher, count, 4, Sequences.of(TRAIN), TRAIN)
    names = ["weights.safetensors" if step == "best" else f"weights-{step}.safetensors" for step in wanted]
    assert asked == [(model, name) for model in "ab" for name in names]
    users = np.array([3, 0])
    for seed, lister in enumerate(listers, start=1):
        lists: Lists = lister(users)
        assert np.array_equal(lists.items, exact_topk(*sides(seed), 4, seen=TRAIN, rows=users).items)
