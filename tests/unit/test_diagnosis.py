"""A diagnosis of planted models says what was planted."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.sequences import Sequences
from recdistill.diagnosis.form import Diagnosis, make, read
from recdistill.diagnosis.lists import Measure
from recdistill.diagnosis.panel import NO_BETA, NO_HISTORY, UNSCORED, Panel, diagnose
from recdistill.diagnosis.voices import DROPPED, Heard, View, asked, views
from recdistill.errors import ArtifactError
from recdistill.topk import exact_topk
from recdistill.types import Dataset, Interactions

USERS, ITEMS, DIM = 60, 40, 6
HOW = Measure("ndcg", 5, 200, 0)


def interactions(taken: np.ndarray) -> Interactions:
    return Interactions(indptr=np.concatenate([[0], taken.sum(1).cumsum()]), items=np.nonzero(taken)[1])


@pytest.fixture(scope="module")
def planted():
    """Return data whose test part is what the teacher ranks first of what was not taken before, and the teacher."""
    rng = np.random.default_rng(3)
    users, items = (rng.normal(size=(n, DIM)).astype(np.float32) for n in (USERS, ITEMS))
    scores = users @ items.T
    train = rng.random((USERS, ITEMS)) < 0.15
    train[:, 0] |= ~train.any(1)
    valid = (rng.random((USERS, ITEMS)) < 0.05) & ~train
    best = np.argsort(np.argsort(-np.where(train | valid, -np.inf, scores), axis=1), axis=1) < 3
    ids = {"user_ids": pl.Series(range(USERS)), "item_ids": pl.Series(range(ITEMS))}
    data = Dataset(**ids, train=interactions(train), valid=interactions(valid), test=interactions(best))
    return data, (users, items)


def voice(vectors, dataset, who, *, scored=True):
    """Return the voice of an encoder with `vectors`, on any view."""

    def say(view: View) -> Heard:
        lists = exact_topk(*vectors, who.depth, seen=view.seen, rows=who.users).items.numpy()
        if not scored:
            return Heard(lists, None, None)
        scores = torch.from_numpy(vectors[0][who.held.users] @ vectors[1].T)
        for row, user in enumerate(who.held.users):
            scores[row, view.seen.items[view.seen.indptr[user] : view.seen.indptr[user + 1]]] = -torch.inf
        return Heard(lists, scores, vectors)

    return say


@pytest.fixture(scope="module")
def found(planted) -> Diagnosis:
    """A student that is its teacher, a scratch twin that knows nothing, and controls that give all and nothing."""
    data, teacher = planted
    rng = np.random.default_rng(5)
    who = asked(data, 10, ranker=False)
    other = [rng.normal(size=x.shape).astype(np.float32) for x in teacher]
    copy, nothing = voice(teacher, data, who), voice(other, data, who)
    panel = Panel(
        teacher=copy,
        scratch=[nothing, nothing],
        student=[copy, copy],
        controls={"all": [copy, copy], "none": [nothing, nothing]},
        lacks={"all": "nothing", "none": "everything"},
        uncontrolled=["another: why not"],
        temperatures={2.0: [copy, copy]},
    )
    return diagnose(data, panel, views(data, reads=False), who, HOW)


def test_a_copy_agrees_with_its_teacher_everywhere(found) -> None:
    for part in ("train", "held-out"):
        at = {a.model: a for a in found.agreement if a.part == part}
        student = at["student"]
        assert (student.top, student.overlap, student.rbo) == (1.0, 1.0, pytest.approx(1.0))
        assert student.kl == pytest.approx(0.0, abs=1e-9)
        assert at["scratch"].overlap < 0.5
        assert at["scratch"].kl > 1


def test_controls_share_what_was_planted(found) -> None:
    all_, none = found.controls
    assert (all_.control, all_.lacks) == ("all", "nothing")
    assert all_.share == pytest.approx(1.0)
    assert none.share == pytest.approx(0.0)
    assert none.value == 0
    assert all_.gain == all_.value > 0.5
    assert found.uncontrolled == ["another: why not"]


def test_the_worst_bucket_is_the_least_of_all(found) -> None:
    assert len(found.buckets) == 9
    known = [b for b in found.buckets if b.users]
    assert found.worst in known
    assert found.worst.difference == min(b.difference for b in known)
    assert found.worst.student == found.worst.teacher


def test_a_copy_has_the_slope_the_spectrum_and_the_chances_of_its_teacher(found) -> None:
    slopes = {(s.part, s.model): s for s in found.slopes}
    assert slopes["held-out", "student"].slope == pytest.approx(1.0)
    assert slopes["held-out", "student"].intercept == pytest.approx(0.0, abs=1e-9)
    assert slopes["held-out", "scratch"].slope != pytest.approx(1.0, abs=0.05)
    copies = [v for v in found.directions if v.model == "student"]
    assert [v.direction for v in copies] == list(range(1, DIM + 1))
    np.testing.assert_allclose([v.gain for v in copies], 1.0)
    assert {v.residual for v in copies} == {None}  # nothing is apart
    assert sum(v.teacher for v in copies) == pytest.approx(1.0)
    by_model = {r.model: r for r in found.reliability}
    assert by_model["student"] == by_model["teacher"].model_copy(update={"model": "student"})
    assert by_model["scratch"].nll > by_model["teacher"].nll
    flat = {f.model: f for f in found.flatness if f.rho == 0.05}
    assert flat["student"].rise == flat["teacher"].rise > 0


def test_a_copy_takes_all_its_own_noise_away(found) -> None:
    noise = {v.model: v for v in found.variance}
    assert noise["student"].rho2 == pytest.approx(1.0)
    assert noise["student"].best == pytest.approx(1.0)
    assert noise["student"].ratios["1"] == pytest.approx(0.0, abs=1e-9)
    assert noise["student"].ratios["0.5"] == pytest.approx(0.25)
    assert noise["scratch"].rho2 < 1


def test_a_copy_inherits_what_scratch_has_not(found) -> None:
    for one in found.inherited:
        assert one.student == 1.0
        assert one.index == pytest.approx(1.0 - one.independent)
        assert one.low > 0


def test_points_of_the_frontier_are_of_every_model(found) -> None:
    points = {p.model: p for p in found.frontier}
    assert points.keys() == {"teacher", "scratch", "student", "all", "none", "taught at 2"}
    assert points["student"].relevance == points["teacher"].relevance == pytest.approx(3 / 5)
    assert points["scratch"].teacher_chance < points["student"].teacher_chance
    assert (points["student"].teacher_temperature, points["taught at 2"].teacher_temperature) == (1.0, 2.0)
    assert found.notes == [NO_HISTORY]
    assert {s.model for s in found.shown} == {"teacher", "scratch", "student", "popularity"}


def test_a_teacher_of_lists_alone_is_diagnosed_as_far_as_lists_go(planted) -> None:
    data, teacher = planted
    who = asked(data, 10, ranker=False)
    copy, lists = voice(teacher, data, who), voice(teacher, data, who, scored=False)
    found = diagnose(data, Panel(teacher=lists, scratch=[copy], student=[copy]), views(data, reads=False), who, HOW)
    assert found.scored == 0
    assert found.agreement[0].overlap == 1.0
    assert {a.kl for a in found.agreement} == {None}
    assert found.slopes == found.directions == found.variance == []
    assert {r.model for r in found.reliability} == {"scratch", "student"}
    assert found.notes == [UNSCORED, NO_HISTORY, NO_BETA]
    assert all(point.teacher_chance is None for point in found.frontier)


def test_augmented_histories_lack_about_half_and_keep_their_owners(planted) -> None:
    data, _ = planted
    train, held_out, augmented = views(data, reads=True)
    assert (train.name, held_out.name, augmented.name) == ("train", "held-out", "augmented")
    assert len(held_out.seen) == len(data.train) + len(data.valid)
    assert augmented.seen is data.train
    whole, thin = (np.diff(view.sequences.indptr.numpy()) for view in (train, augmented))
    assert (thin > 0).all()
    assert (thin <= whole).all()
    assert thin.sum() / whole.sum() == pytest.approx(1 - DROPPED, abs=0.12)
    mine = {(u, i) for u, i in zip(data.train.users().tolist(), data.train.items.tolist(), strict=True)}
    seen: Sequences = augmented.sequences
    assert set(zip(seen.owner.tolist()[: len(seen.items)], seen.items.tolist(), strict=True)) <= mine


def test_a_diagnosis_is_json_and_reads_back(found) -> None:
    text = json.dumps(found.model_dump(mode="json"), allow_nan=False)
    assert read(json.loads(text)) == found
    assert read(json.loads(text) | {"later": [1]}).model_dump()["later"] == [1]  # room for what comes


def test_what_is_no_number_is_null() -> None:
    least = {"metric": "ndcg", "k": 10, "users": 0, "scored": 0, "seeds": 1}
    rows = [{"model": "m", "popularity": math.nan, "coverage": math.inf, "tail_recall": np.float64(0.5)}]
    shown = make(Diagnosis, **least, shown=rows).shown[0]
    assert (shown.popularity, shown.coverage, shown.tail_recall) == (None, None, 0.5)


@pytest.mark.parametrize(("given", "said"), [({"schema_version": 2}, "schema 2"), ({"k": 1}, "metric: Field required")])
def test_what_is_no_diagnosis_is_refused(given, said) -> None:
    with pytest.raises(ArtifactError, match=said):
        read(given)
