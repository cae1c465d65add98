"""Gates against a champion that was asked for the same users, on slices, and on what a bundle is."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from recdistill.evaluate import evaluate
from recdistill.gates import GateSpec, GatesSpec, judge
from recdistill.gates_measured import bundle_facts
from recdistill.gates_spec import BUCKETS, KNOWN, parse
from recdistill.metrics import bootstrap, interval
from recdistill.results import GateResult

NOTHING: dict[str, Any] = {}


class Gates(BaseModel):
    gates: GatesSpec


def row(model: str, value: float, part: str = "all", metric: str = "ndcg") -> dict[str, Any]:
    return {"model": model, "metric": metric, "k": 10, "slice": part, "value": value, "low": value, "high": value}


def contest(difference: float, low: float, high: float, part: str = "all", champion: float = 0.132) -> dict[str, Any]:
    mine = {"metric": "ndcg", "k": 10, "slice": part, "difference": difference, "low": low, "high": high}
    rows = [row("candidate@index", champion + difference, part), row("champion@index", champion, part)]
    return {"users": 4000, "quality": rows, "differences": [mine | {"users": 4000}], "churn": [{"k": 10, "mean": 0.3}]}


def verdict(report, champion=NOTHING, name="ndcg_at_10", **bound) -> GateResult:
    (result,) = judge({name: GateSpec(**bound)}, report, champion)
    return result


@pytest.mark.parametrize(
    ("low", "limit", "passes", "margin"),
    [(-0.0012, 0.002, True, 0.0008), (-0.002, 0.002, True, 0.0), (-0.0021, 0.002, False, -0.0001), (0.0, 0, True, 0)],
)
def test_a_drop_is_judged_by_the_low_end_of_the_paired_interval(low, limit, passes, margin):
    result = verdict({"champion": contest(low / 2, low, 0.001)}, max_drop_vs_champion=limit)
    assert result.passed is passes
    assert result.margin == pytest.approx(margin, abs=1e-12)


def test_a_relative_drop_is_a_share_of_what_the_champion_is_worth_to_the_same_users():
    # 2% of .132 is .00264; the champion's report of another day says another number, which does not matter.
    report = {"champion": contest(-0.001, -0.0026, 0.001)}
    theirs = {"quality": [row("student@index", 0.9)]}
    assert verdict(report, theirs, max_relative_drop_vs_champion=0.02).margin == pytest.approx(0.00004)
    assert not verdict(report, theirs, max_relative_drop_vs_champion=0.019).passed


def test_the_reason_has_what_was_measured_what_was_required_and_by_how_much():
    result = verdict({"champion": contest(-0.0008, -0.0012, -0.0003)}, max_drop_vs_champion=0.001)
    assert result.reason == (
        "ndcg_at_10 is 0.1312, the champion's 0.132; the difference is -0.0008 [-0.0012, -0.0003] on 4,000 users, "
        "required: not below -0.001: 0.0002 too low; the difference alone would pass, but its interval does not rule "
        "a larger drop out"
    )
    assert result.measured == pytest.approx(0.1312)
    assert result.required == "no lower than -0.001 from the champion's 0.132"
    clear = verdict({"champion": contest(-0.0008, -0.0012, -0.0003)}, max_drop_vs_champion=0.0005)
    assert clear.reason.endswith("not below -0.0005: 0.0007 too low")


def test_a_candidate_that_is_the_champion_passes_a_bound_of_nothing():
    assert verdict({"champion": contest(0.0, 0.0, 0.0)}, max_drop_vs_champion=0.0).passed
    assert verdict({"champion": contest(0.0, 0.0, 0.0)}, max_relative_drop_vs_champion=0.0).passed


def test_the_interval_is_of_pairs_and_not_of_two_means():
    """Users differ by ten times what the models do: two means could be anything, the pairs are sure."""
    rng = np.random.default_rng(0)
    theirs = rng.random(2000)
    ours = theirs - 0.002 + rng.normal(0, 0.001, 2000)
    drawn = bootstrap(np.stack([ours, theirs], 1), 500, 1)
    low, high = interval(drawn[:, 0] - drawn[:, 1])
    report = {"champion": contest(float((ours - theirs).mean()), low, high, champion=float(theirs.mean()))}
    assert verdict(report, max_drop_vs_champion=0.0025).passed
    assert not verdict(report, max_drop_vs_champion=0.0019).passed
    apart = interval(drawn[:, 0])
    assert apart[1] - apart[0] > 0.02  # of ours alone: more than both bounds


@pytest.mark.parametrize("broken", [{"low": math.nan}, {"low": None}, {"difference": math.inf}, {"k": 20}])
def test_a_difference_that_was_not_measured_fails(broken):
    report = {"champion": contest(0.1, 0.05, 0.15)}
    report["champion"]["differences"][0] |= broken
    theirs = {"quality": [row("student@index", 0.0)]}  # against which it would pass
    report |= {"quality": [row("student@index", 0.9)]}
    result = verdict(report, theirs, max_drop_vs_champion=0.01)
    assert not result.passed
    assert result.margin is None
    assert "not measured beside the champion's" in result.reason


def test_what_has_no_pairs_is_compared_by_its_plain_numbers():
    report = {
        "champion": contest(-0.5, -0.6, -0.4),
        "quality": [row("student@index", 0.28, metric="coverage")],
        "index": {"recall": {"10": 0.97}},
    }
    theirs = {"quality": [row("student@index", 0.3, metric="coverage")], "index": {"recall": {"10": 0.99}}}
    kept = verdict(report, theirs, "coverage_at_10", max_relative_drop_vs_champion=0.1)
    assert (kept.passed, kept.margin) == (True, pytest.approx(0.01))
    lost = verdict(report, theirs, "coverage_at_10", max_drop_vs_champion=0.01)
    assert (lost.passed, lost.margin) == (False, pytest.approx(-0.01))
    assert lost.reason.endswith(": 0.01 too low")
    assert verdict(report, theirs, "index_recall_at_10", max_relative_drop_vs_champion=0.03).passed


def slices(model: str, **values: float) -> list[dict[str, Any]]:
    return [row(model, value, f"activity:{bucket}") for bucket, value in values.items()]


def test_the_worst_bucket_decides_and_is_named():
    rows = [row("student@index", 0.9), *slices("student@index", low=0.30, medium=0.2, high=0.4)]
    report = {"quality": rows + slices("teacher", low=0.5, medium=0.22, high=0.4)}
    floor = verdict(report, None, "ndcg_at_10_worst_activity", min=0.25)
    assert (floor.gate, floor.passed, floor.measured) == ("ndcg_at_10_worst_activity", False, 0.2)
    assert floor.margin == pytest.approx(-0.05)
    assert floor.reason == "ndcg_at_10 of activity:medium is 0.2, required >= 0.25: 0.05 too low"
    # Of the teacher's value it is another bucket that keeps least.
    kept = verdict(report, None, "ndcg_at_10_worst_activity", min_of_teacher=0.7)
    assert (kept.passed, kept.measured) == (False, 0.3)
    assert "activity:low" in kept.reason
    assert verdict(report, None, "ndcg_at_10_worst_activity", min=0.2).passed


def test_a_bucket_that_lost_against_the_champion_is_found_behind_a_good_mean():
    whole = contest(0.01, 0.005, 0.015)
    for part, low in (("activity:low", -0.03), ("activity:medium", 0.0), ("activity:high", 0.02)):
        found = contest(low + 0.01, low, low + 0.02, part)
        whole["quality"] += found["quality"]
        whole["differences"] += found["differences"]
    assert verdict({"champion": whole}, max_drop_vs_champion=0.0).passed
    worst = verdict({"champion": whole}, name="ndcg_at_10_worst_activity", max_drop_vs_champion=0.01)
    assert (worst.passed, worst.margin) == (False, pytest.approx(-0.02))
    assert worst.reason.startswith("ndcg_at_10 of activity:low is 0.112, the champion's 0.132")


def test_a_bucket_that_is_missing_or_nan_is_the_worst():
    for last in ({}, {"high": math.nan}):
        report = {"quality": slices("student@index", low=0.3, medium=0.2, **last)}
        result = verdict(report, None, "ndcg_at_10_worst_activity", min=0.0)
        assert not result.passed
        assert "activity:high was not measured" in result.reason


def test_the_buckets_a_gate_asks_for_are_those_that_are_measured(log_of_many):
    lists = {"student@index": [np.zeros((log_of_many.num_users, 1), np.int64)]}
    found = evaluate(
        lists,
        log_of_many,
        np.arange(log_of_many.num_users),
        k=[1],
        metrics=["ndcg"],
        slices=list(BUCKETS),
        times=2,
        seed=0,
    )
    parts = {f"{name}:{bucket}" for name, buckets in BUCKETS.items() for bucket in buckets}
    assert {r["slice"] for r in found["quality"]} == {"all"} | parts


@pytest.fixture
def log_of_many():
    import polars as pl

    from recdistill.types import Dataset, Interactions

    rng = np.random.default_rng(0)
    each = np.arange(0, 31 * 10, 10)
    parts = {name: Interactions(indptr=each, items=rng.integers(0, 40, 300)) for name in ("train", "valid", "test")}
    return Dataset(user_ids=pl.Series(range(30)), item_ids=pl.Series(range(40)), **parts)


def test_the_size_of_a_bundle_is_held_against_a_number_and_the_champions():
    report = {"bundle": {"bytes": 24_704_024}, "champion": {"bundle": {"bytes": 20_000_000}}}
    small = verdict(report, None, "bundle_bytes", max=24_000_000)
    assert (small.passed, small.margin) == (False, -704_024)
    assert small.reason == "bundle_bytes is 24,704,024, required <= 24,000,000: 704,024 too high"
    assert verdict(report, {}, "bundle_bytes", max_ratio_vs_champion=1.25).passed
    assert not verdict(report, {}, "bundle_bytes", max_ratio_vs_champion=1.2).passed
    assert verdict(report | {"champion": None}, None, "bundle_bytes", max_ratio_vs_champion=1.2).passed
    assert not verdict({}, None, "bundle_bytes", max=1e12).passed
    assert not verdict(report | {"champion": {}}, {}, "bundle_bytes", max_ratio_vs_champion=9.0).passed


def test_how_old_the_data_is_counts_to_the_hour():
    report = {"bundle": {"data_age_hours": 30.5}}
    old = verdict(report, None, "data_age_hours", max=26.0)
    assert (old.passed, old.margin) == (False, -4.5)
    assert verdict(report, None, "data_age_hours", max=30.5).passed
    assert not verdict({"bundle": {"data_age_hours": None}}, None, "data_age_hours", max=1e9).passed


def test_churn_is_held_against_the_champions_lists_and_against_nothing_without_one():
    report = {"champion": contest(0.0, 0.0, 0.0)}
    assert verdict(report, {}, "churn_at_10", max=0.3).margin == pytest.approx(0.0)
    assert not verdict(report, {}, "churn_at_10", max=0.25).passed
    assert not verdict(report, {}, "churn_at_20", max=1.0).passed  # there is a champion, and nobody measured it
    first = verdict({}, None, "churn_at_10", max=0.0)
    assert first.passed
    assert "there is no champion" in first.reason


def test_a_bundle_says_its_bytes_and_how_old_its_data_is(tmp_path):
    (tmp_path / "weights").write_bytes(b"x" * 100)
    told = json.dumps({"data_end": "2026-11-20T06:00:00+00:00"})
    (tmp_path / "manifest.json").write_text(told)
    now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    assert bundle_facts(tmp_path, now) == {
        "bytes": 100 + len(told),
        "data_end": "2026-11-20T06:00:00+00:00",
        "data_age_hours": 30.0,
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"data_end": "2026-11-20"}))
    assert bundle_facts(tmp_path, now)["data_age_hours"] == 36.0
    (tmp_path / "manifest.json").write_text("{}")
    assert bundle_facts(tmp_path, now)["data_age_hours"] is None


def test_every_name_that_is_told_is_a_name():
    assert all(parse(name.replace("_K", "_10")) for name in KNOWN)


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ({"coverage_at_10_worst_activity": {"min": 0.1}}, "no metric"),
        ({"ndcg_at_10_worst_country": {"min": 0.1}}, "no metric"),
        ({"ndcg_at_10_worst_activity": {"max_ratio_vs_champion": 2}}, "says nothing of quality"),
        ({"churn_at_10": {"max_drop_vs_champion": 0.1}}, "says nothing of churn"),
        ({"data_age_hours": {"min": 1}}, "says nothing of freshness"),
        ({"bundle_bytes": {"min_of_teacher": 0.1}}, "says nothing of size"),
        ({"ndcg_at_10": {"max_relative_drop_vs_champion": 1.0}}, "less than 1"),
        ({"p95_ms": {"max_relative_drop_vs_champion": 0.1}}, "says nothing of latency"),
    ],
)
def test_a_gate_that_could_not_work_is_an_error(gates, said):
    with pytest.raises(ValidationError, match=said):
        Gates(gates=gates)


def test_a_bound_that_is_not_set_leaves_no_trace():
    assert "max_relative_drop_vs_champion" not in GateSpec(min=0.1).model_dump()
