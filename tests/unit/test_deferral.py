"""What asking the teacher is said to gain: on planted users, and on lists and labels that are worked out by hand."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recdistill import deferral_crowd
from recdistill.ann import IndexSpec, build_index
from recdistill.bundle import write_bundle
from recdistill.deferral import DeferSpec, findings, held
from recdistill.deferral_crowd import Crowd, crowd, labelled
from recdistill.errors import DataError, StageError
from recdistill.gains.defer import fit_gate
from recdistill.report import html, markdown
from recdistill.report_defer import proven, verdict, warning
from recdistill.types import Dataset, Interactions, Labels

SPEC = DeferSpec(budget=0.2)


def planted(told: float, n: int = 1500, seed: int = 0, mean: float = 0.01) -> Crowd:
    """Users of whom the second feature tells as much of the advantage as `told`; asking is worth `mean` to each."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 4))
    gains = mean + told * features[:, 1] + 0.05 * rng.standard_normal(n)
    return Crowd(features, gains, np.full(n, 0.3), 1.0)


def judged(told: float, spec: DeferSpec = SPEC, mean: float = 0.01, seed: int = 0) -> dict:
    fitted, tested = (planted(told, seed=part, mean=mean) for part in (2 * seed, 2 * seed + 1))
    gate = fit_gate(fitted.features, fitted.gains)
    eta = held(gate(tested.features), spec.budget)
    return findings(gate, eta, fitted, tested, spec, times=300, seed=0)


def test_the_quantile_is_the_best_choice_within_the_budget() -> None:
    rng = np.random.default_rng(3)
    for n, budget in ((7, 0.3), (8, 0.5), (9, 0.1), (10, 0.99)):
        expected = np.abs(rng.standard_normal(n))
        above = expected > held(expected, budget)
        most = max(m for m in range(n + 1) if m / n <= budget)
        best = max(expected[list(chosen)].sum() for chosen in combinations(range(n), most))
        assert expected[above].sum() == pytest.approx(best)
        assert above.mean() <= budget


def test_no_rounding_moves_a_user_across_the_threshold() -> None:
    expected = np.random.default_rng(0).standard_normal(101)
    eta = held(expected, 0.3)
    assert (expected > eta).sum() == 30
    for error in (-1e-7, 1e-7):
        np.testing.assert_array_equal(expected + error > eta, expected > eta)
    tied = np.repeat([1.0, 2.0], 5)
    assert (tied > held(tied, 0.5)).mean() == 0.5
    assert not (tied > held(tied, 0.4)).any()  # equals are asked about together, or not at all


def test_where_a_feature_tells_the_gate_is_above_chance() -> None:
    found = judged(told=0.05)
    assert found["rate"] == 0.2
    assert found["lead"]["low"] > 0
    assert found["gate"]["value"] > 3 * found["random"]["value"]
    assert found["random"]["value"] == pytest.approx(0.2 * found["cascade"]["value"])
    assert found["lead"]["value"] == pytest.approx(found["gate"]["value"] - found["random"]["value"])
    assert found["gate"]["value"] < found["oracle"]
    assert found["share"] == pytest.approx(found["gate"]["value"] / found["cascade"]["value"])
    assert max(found["weights"], key=found["weights"].get) == "margin"
    assert proven(found)
    assert "chooses better than chance" in verdict(found)
    assert "20.0% of the users" in verdict(found)
    assert not warning(found)


def test_where_nothing_tells_the_report_says_so() -> None:
    every = [judged(told=0.0, seed=seed) for seed in range(20)]
    assert sum(map(proven, every)) <= 2  # of intervals that miss 0 on either side in one of twenty
    found = next(one for one in every if one["lead"]["low"] < 0 < one["lead"]["high"])
    assert not proven(found)
    assert "not shown to choose better than chance" in verdict(found)
    assert "contains 0" in verdict(found)
    assert "not shown" in warning(found)
    report = {"schema_version": 1, "name": "r", "defer": found}
    assert "not shown to choose better than chance" in markdown(report)
    assert "not shown to choose better than chance" in html(report)


def test_a_teacher_that_gains_nothing_has_no_share_of_it() -> None:
    found = judged(told=0.05, mean=0.0)
    assert found["share"] is None
    assert "not shown to gain" in verdict(found)
    assert found["gate"]["low"] > 0  # and yet it pays to ask about some


def test_the_curve_goes_from_the_student_to_the_cascade() -> None:
    found = judged(told=0.05, spec=DeferSpec(budget=0.25))
    first, *_, last = found["curve"]
    assert [first[name] for name in ("rate", "gain", "random", "entropy", "oracle")] == [0] * 5
    assert [last[name] for name in ("gain", "random", "entropy")] == pytest.approx([found["cascade"]["value"]] * 3)
    assert all(point["rate"] <= point["budget"] for point in found["curve"])
    (asked,) = [point for point in found["curve"] if point["budget"] == 0.25]
    assert asked["gain"] == pytest.approx(found["gate"]["value"])
    assert asked["oracle"] == pytest.approx(found["oracle"])


def test_drift_tells_what_older_predictions_would_have_asked() -> None:
    fitted, tested = planted(0.05), planted(0.05, seed=1)
    gate = fit_gate(fitted.features, fitted.gains)
    grown = tested._replace(features=tested.features + np.array([0, 0.5, 0, 0]))
    found = findings(gate, held(gate(grown.features), 0.2), fitted, grown, SPEC, times=10, seed=0)
    assert found["rate"] == 0.2
    assert found["drift"] > 0.3


def test_a_page_has_the_section_only_of_a_gate() -> None:
    found = judged(told=0.05)
    plain = {"schema_version": 1, "name": "r"}
    page = html(plain | {"defer": found})
    assert html(plain) == html(plain | {"defer": None})
    assert "Asking the teacher" in page
    assert "Asking the teacher" not in html(plain)
    figure = page[page.index("Asking the teacher") :]
    assert all(f"var(--series-{n})" in figure for n in (0, 1, 2, 4))  # oracle, entropy, gate, chance
    assert "Asking the teacher" in markdown(plain | {"defer": found})


USERS, ITEMS = 12, 30


def lists_of(*columns: list[list[int]]) -> list[Interactions]:
    return [
        Interactions(indptr=np.cumsum([0, *map(len, rows)]), items=np.array([i for row in rows for i in row], np.int64))
        for rows in columns
    ]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A served student of random vectors, and a teacher whose labels score everything."""
    rng = np.random.default_rng(0)
    order = [rng.permutation(ITEMS).tolist() for _ in range(USERS)]
    train, valid, test = lists_of(
        [o[: 3 + u % 4] for u, o in enumerate(order)],
        [o[8 : 8 + u % 3] for u, o in enumerate(order)],
        [o[20:26] for o in order],
    )
    ids = pl.Series(range(USERS)), pl.Series(range(ITEMS))
    dataset = Dataset(user_ids=ids[0], item_ids=ids[1], train=train, valid=valid, test=test)
    out = tmp_path_factory.mktemp("small")
    users, items = (rng.standard_normal((rows, 4)).astype(np.float32) for rows in (USERS, ITEMS))
    build_index(items, users, IndexSpec(factory="Flat", k=(2,)), out)
    meta = {"kind": "mf", "space": "dot", "dim": 4, "num_users": USERS, "num_items": ITEMS}
    given = {"histories": None, "popular": np.arange(ITEMS), "index_dir": out, "facts": {"fingerprint": "f"}}
    write_bundle(out / "bundle", query={"user": users}, query_meta=meta, user_ids=ids[0], item_ids=ids[1], **given)
    scores = rng.standard_normal((USERS, ITEMS)).astype(np.float32)
    return SimpleNamespace(dataset=dataset, path=out, users=users, items=items, scores=scores)


def labels(scores: np.ndarray, depth: int) -> Labels:
    items = np.argsort(-scores, axis=1)[:, :depth].astype(np.int32)
    ranked = np.take_along_axis(scores, items.astype(np.int64), axis=1)
    return Labels(items=(items,), scores=(ranked,), residual=(), per_shard=USERS, facts={})


def people(
    small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, depth: int, truth: Interactions | None = None
) -> Crowd:
    monkeypatch.setattr(deferral_crowd, "open_labels", lambda _: labels(small.scores, depth))
    models = SimpleNamespace(
        index=SimpleNamespace(path=small.path),
        labels=SimpleNamespace(path=Path()),
        teacher=SimpleNamespace(models=()),
    )
    how = {"k": 3, "depth": 10, "metric": "ndcg", "scale": 2.0, "popularity": np.arange(ITEMS, dtype=np.float32)}
    data: Dataset = small.dataset
    return crowd(data, models, data.train, data.valid if truth is None else truth, **how)


def test_the_advantage_is_of_the_teachers_order_of_the_students_unseen_list(
    small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = people(small, monkeypatch, depth=ITEMS)
    data: Dataset = small.dataset
    gains, quality, listed = [], [], []
    for user in range(USERS):
        taken, truth = (set(p.items[p.indptr[user] : p.indptr[user + 1]].tolist()) for p in (data.train, data.valid))
        if not truth:
            continue
        mine = small.items @ small.users[user]
        best = [item for item in np.argsort(-mine) if item not in taken][:10]
        again = sorted(best, key=lambda item: -small.scores[user, item])
        before, after = (_ndcg(order, truth) for order in (best, again))
        gains.append(after - before)
        quality.append(before)
        listed.append(np.mean(best))
    np.testing.assert_allclose(found.gains, gains)
    np.testing.assert_allclose(found.quality, quality)
    np.testing.assert_allclose(found.features[:, 3], listed)
    assert found.known == 1
    assert np.any(found.gains)


def _ndcg(order: list[int], truth: set[int]) -> float:
    discount = [1 / np.log2(place + 2) for place in range(3)]
    return sum(d for d, item in zip(discount, order, strict=False) if item in truth) / sum(discount[: len(truth)])


def test_a_file_that_scores_too_little_of_the_lists_is_refused(
    small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = people(small, monkeypatch, depth=24)
    assert 0.5 < some.known < 1
    with pytest.raises(DataError, match=r"of what the student lists.*\n.*raise labels\.depth"):
        people(small, monkeypatch, depth=8)


def test_nobody_to_fit_to_is_told_with_what_to_do(small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    (nothing,) = lists_of([[]] * USERS)
    with pytest.raises(StageError, match=r"raise split\.valid_fraction"):
        people(small, monkeypatch, depth=ITEMS, truth=nothing)


def test_labels_score_what_they_list_and_nothing_else(small: SimpleNamespace) -> None:
    users, items = np.array([4, 0, 11]), np.array([[3, 5, -1], [29, 0, 1], [7, 7, 2]])
    found = labelled(labels(small.scores, 12), users, items, ITEMS)
    top = np.sort(small.scores, axis=1)[:, -12]
    whole = np.where(items >= 0, small.scores[users[:, None], items], -np.inf)
    np.testing.assert_array_equal(found, np.where(whole >= top[users][:, None], whole, -np.inf))
    assert np.isfinite(found).any()
