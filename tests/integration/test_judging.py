"""A candidate is judged by times that were taken in turns with the champion's, and the report keeps both tables."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from pipelines import judging
from recdistill.gates import GateSpec
from recdistill.latency_stats import warning
from recdistill.report_form import check
from recdistill.types import Dataset, Interactions

BEFORE = {"model": "student@index", "part": "total", "p50_ms": 1e6, "p95_ms": 1e6, "p99_ms": 1e6}


def dataset() -> Dataset:
    """Return what the made-up bundles know: 50 users who took an item each, and one more."""
    one = np.arange(51)
    nobody = Interactions(indptr=np.zeros(51, np.int64), items=np.zeros(0, np.int64))
    items = pl.Series([f"i{n}" for n in range(300)])
    parts = {name: Interactions(indptr=one, items=one[1:] + n) for n, name in enumerate(("train", "test"))}
    return Dataset(user_ids=pl.Series(range(1000, 1050)), item_ids=items, valid=nobody, **parts)


@pytest.fixture(scope="module")
def judged(make_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    ours, theirs = make_bundle(folder / "a", data_end="2026-11-21T06:00:00+00:00"), make_bundle(folder / "b", seed=1)
    gates = {
        "p95_ms": GateSpec(max=1e5, max_ratio_vs_champion=1e3),
        "ndcg_at_5": GateSpec(max_drop_vs_champion=1.0),
        "bundle_bytes": GateSpec(max_ratio_vs_champion=1.1),
        "data_age_hours": GateSpec(max=5.5),
        "churn_at_5": GateSpec(max=0.1),
    }
    asked = SimpleNamespace(k=(5,), metrics=("ndcg",), slices=(), bootstrap=50, seed=1)
    config = SimpleNamespace(registry=SimpleNamespace(model="m", gates=gates, trust=[]), report=asked, latency=None)
    report = {"latency": [BEFORE], "latency_environment": {"k": 5}, "warnings": [], "quality": [], "index": {}}
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging.registry, "champion", lambda *_, **__: (3, theirs))
        patch.setattr(judging.registry, "champion_report", lambda *_: {"latency": [BEFORE | {"p95_ms": 1e-9}]})
        return judging.judged_beside(config, report, ours, "uri", dataset, now), report


def test_both_tables_reach_the_report_each_with_its_environment(judged):
    gates, report = judged
    models = [row["model"] for row in report["latency"] if row["part"] == "total"]
    assert models == ["student@index", "candidate@index", "champion@index"]
    assert report["latency"][0] is BEFORE
    beside = report["latency_environment"]["beside_champion"]
    assert report["latency_environment"]["k"] == 5
    assert {label: told["exclude"] for label, told in beside["targets"].items()} == {
        "candidate@index": True,
        "champion@index": True,
    }
    # By what was measured beside the champion: the run's own rows, and the champion's of another day, would both fail.
    assert [gate.passed for gate in gates if gate.gate == "p95_ms"] == [True, True]


def test_both_are_asked_for_the_same_users_and_the_difference_is_paired(judged):
    _, report = judged
    found = report["champion"]
    assert found["users"] == 50
    assert {row["model"] for row in found["quality"]} == {"candidate@index", "champion@index"}
    assert [(d["metric"], d["k"], d["users"]) for d in found["differences"]] == [("ndcg", 5, 50)]
    assert found["churn"][0]["mean"] > 0.5  # two untrained models share next to nothing


def test_what_the_bundles_are_is_measured_and_judged(judged):
    gates, report = judged
    found = {gate.gate: gate for gate in gates if gate.gate != "p95_ms"}
    assert {name: gate.passed for name, gate in found.items()} == {
        "ndcg_at_5": True,
        "bundle_bytes": True,
        "data_age_hours": False,
        "churn_at_5": False,
    }
    assert found["data_age_hours"].margin == -0.5
    assert found["churn_at_5"].measured == report["champion"]["churn"][0]["mean"]
    sizes = report["bundle"]["bytes"], report["champion"]["bundle"]["bytes"]
    assert found["bundle_bytes"].margin == 1.1 * sizes[1] - sizes[0]
    assert report["champion"]["version"] == 3
    assert found["ndcg_at_5"].margin == report["champion"]["differences"][0]["low"] + 1.0
    assert [gate["margin"] for gate in report["gates"]] == [gate.margin for gate in gates]
    kept = {name: report[name] for name in ("gates", "bundle", "champion")}
    kept = check({"schema_version": 1, "name": "x", **kept})
    assert [gate["margin"] for gate in kept["gates"]] == [gate.margin for gate in gates]
    assert kept["bundle"] == report["bundle"]


def test_a_noisy_machine_is_a_warning_of_the_report(judged):
    _, report = judged
    noisy = warning(report["latency_environment"]["beside_champion"])
    assert report["warnings"] == ([f"beside the champion: {noisy}"] if noisy else [])
