"""Nights in Dagster: real processes through Pipes, on a planted log; skipped where Dagster is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nights import NEEDS_DAGSTER, OWN, ROOT, Nights, Ran, nights

__all__ = ["nights"]
pytestmark = [pytest.mark.filterwarnings(each) for each in OWN]
NAMES = ["data", "teacher", "labels", "student", "index", "evaluation", "latency", "verdict", "promoted"]
HEAVY = ("torch", "torchrec", "mlflow", "polars", "numpy", "faiss", "recdistill")
WITHOUT = """
import sys
for name in {names!r}:
    sys.modules[name] = None
import runpy
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], {{}}, "__main__")
"""
# What the process of an asset may end with: an exit code that it reports, or an end of its own.
SAYS = """
import sys
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    if {code} is None:
        sys.exit(9)
    pipes.report_custom_message({{"exit_code": {code}, "error": "what it was", "kind": "x"}})
"""


def without(names, *words):
    code = WITHOUT.format(names=names)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_without_dagster_it_is_said_how_to_install_it() -> None:
    refused = without(["dagster"], "pipelines.daily")
    assert refused.returncode == 1
    assert "pip install 'recdistill[dagster]'" in refused.stderr
    told = without(["dagster_pipes"], "pipelines.daily_pipe", "nights.yaml", "2026-11-03", "split")
    assert told.returncode == 1
    assert "pip install dagster-pipes" in told.stderr
    assert "Traceback" not in told.stderr


@NEEDS_DAGSTER
def test_the_scheduler_needs_dagster_alone() -> None:
    loaded = without(HEAVY, "pipelines.daily")
    assert loaded.returncode == 0, loaded.stderr


@pytest.fixture(scope="module")
def first(nights) -> Ran:
    return nights("nights.yaml", "2026-11-02")


@NEEDS_DAGSTER
def test_a_night_makes_every_asset_and_promotes_after_its_checks(nights, first) -> None:
    assert first.result.success
    assert list(first.made) == NAMES
    assert first.checks == {"contract": True, "quality_gates": True, "latency_gates": True, "alarms": True}
    data, verdict, promoted = (first.made[name] for name in ("data", "verdict", "promoted"))
    assert (data["rows_read"], data["users"], data["items"]) == (360, 60, 45)
    assert (verdict["version"], verdict["promoted"], promoted["promoted"]) == (1, False, True)
    assert Path(promoted["report"]).is_file()
    assert "nights" in promoted["registry"]
    assert verdict["verdict"].startswith("#")
    assert 0 < verdict["student ndcg@10"] <= 1
    assert verdict["ndcg_at_10"] == verdict["student ndcg@10"]
    assert "| teacher |" in first.made["teacher"]["stages"]
    assert "| student |" not in first.made["teacher"]["stages"]


@NEEDS_DAGSTER
def test_the_night_again_finds_all_done_and_is_the_version_it_was(nights, first) -> None:
    again = nights("nights.yaml", "2026-11-02", "promoted")
    assert again.result.success
    rows = [line for line in again.made["promoted"]["stages"].splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 8
    assert all(row.endswith("| yes |") for row in rows)
    assert again.made["promoted"]["version"] == 1


@NEEDS_DAGSTER
def test_a_day_without_rows_fails_the_check_of_the_data_and_nothing_after_it_is_run(nights, first) -> None:
    bad = nights("nights.yaml", "2026-11-07")
    assert not bad.result.success
    assert bad.made == {}
    assert bad.checks == {"contract": False}
    assert "STEP_UP_FOR_RETRY" not in bad.kinds
    (evaluation,) = bad.result.get_asset_check_evaluations()
    assert "nothing of 2026-11-07 is there" in evaluation.metadata["error"].value


@NEEDS_DAGSTER
def test_a_student_that_its_gates_refuse_is_registered_and_nothing_is_promoted(nights, first) -> None:
    refused = nights("strict.yaml", "2026-11-03", "verdict", "promoted")
    assert not refused.result.success
    assert list(refused.made) == ["verdict"]
    assert refused.checks == {"quality_gates": False, "latency_gates": True, "alarms": True}
    assert (refused.made["verdict"]["version"], refused.made["verdict"]["promoted"]) == (2, False)
    assert "STEP_UP_FOR_RETRY" not in refused.kinds


@NEEDS_DAGSTER
@pytest.mark.parametrize(("code", "tries"), [(1, 3), (None, 3), (2, 1), (3, 1), (4, 1), (5, 1)])
def test_only_what_starting_again_can_mend_is_tried_again(tmp_path, nights, code, tries) -> None:
    (tmp_path / "says.py").write_text(SAYS.format(code=code))
    says = Nights(home=tmp_path, launch=(sys.executable, str(tmp_path / "says.py")), instance=nights.instance)
    ran = says("nights.yaml", "2026-11-02", "teacher", "labels")
    assert not ran.result.success
    assert ran.kinds.count("STEP_START") + ran.kinds.count("STEP_RESTARTED") == tries
    assert ran.made == {}


@NEEDS_DAGSTER
def test_the_schedule_begins_the_night_of_the_day_before(nights) -> None:
    import dagster as dg

    found = nights.definitions("nights.yaml")
    schedule = found.resolve_schedule_def("nights_night_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 3 * * *", "UTC")
    moment = datetime(2026, 11, 21, 3, 30, tzinfo=UTC)
    context = dg.build_schedule_context(scheduled_execution_time=moment, repository_def=found.get_repository_def())
    (request,) = schedule.evaluate_tick(context).run_requests
    assert request.partition_key == "2026-11-20"
    assert found.resolve_job_def("nights_night").run_tags["recdistill/nights"] == "nights"


@NEEDS_DAGSTER
def test_only_promotion_is_in_the_pool_of_one(nights) -> None:
    graph = nights.definitions("nights.yaml").resolve_asset_graph()
    pools = {key.path[-1]: graph.get(key).pools for key in graph.get_all_asset_keys()}
    assert {name for name, pool in pools.items() if pool} == {"promoted"}
    assert pools["promoted"] == {"recdistill_promotion"}
