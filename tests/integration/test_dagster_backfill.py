"""A backfill in Dagster: its webserver and its daemon, set up as the documentation says, over a planted log."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import Any

import pytest
import yaml
from nights import CONFIG, NEEDS_DAGSTER, ROOT, nights

__all__ = ["nights"]
LONGEST = 800  # seconds that the nights of both days may take on a busy machine


@pytest.fixture
def scheduler(nights, tmp_path):
    """Ask a webserver in front of a daemon, both set up as the documentation says, for nights of filled.yaml."""
    nights_of = CONFIG | {"name": "filled", "registry": {"model": "filled", "gates": {"ndcg_at_10": {"min": 0.0}}}}
    (nights.home / "filled.yaml").write_text(yaml.safe_dump(nights_of))
    pages = [page.read_text() for page in (ROOT / "docs").rglob("*.md")]
    (settings,) = (found[1] for page in pages for found in re.finditer(r"```yml\n([^`]*concurrency:[^`]*)```", page))
    (tmp_path / "dagster.yaml").write_text(settings)
    call = f"Path('filled.yaml'), first='2026-11-02', launch={nights.launch!r}, home=Path({str(nights.home)!r})"
    code = f"from pathlib import Path\nfrom pipelines.daily import definitions\ndefs = definitions({call})\n"
    (tmp_path / "nights.py").write_text(code)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "dagster", "dev", "-f", "nights.py", "-h", "127.0.0.1", "-p", port]
    env = os.environ | {"DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True)

    def ask(query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
        for _ in range(600):
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read())["data"]
            except OSError:
                time.sleep(0.2)
        raise TimeoutError((tmp_path / "log").read_text())

    yield ask
    server.send_signal(signal.SIGINT)  # upon which it ends what it has started
    try:
        server.wait(60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


FILL = """mutation ($days: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $days) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
RUNS = "{ runsOrError { ... on Runs { results { status startTime endTime tags { key value } } } } }"


@NEEDS_DAGSTER
@pytest.mark.timeout(1200)
def test_a_backfill_runs_its_days_one_at_a_time_and_the_oldest_first(nights, scheduler) -> None:
    where = {"repositoryName": "__repository__", "repositoryLocationName": "nights.py"}
    chosen = {"partitionSetName": "filled_night_partition_set", "repositorySelector": where}
    days = ["2026-11-02", "2026-11-03"]
    begun = scheduler(FILL, days={"selector": chosen, "partitionNames": days})["launchPartitionBackfill"]
    assert begun["__typename"] == "LaunchBackfillSuccess", begun
    runs, ends = list[dict[str, Any]](), time.monotonic() + LONGEST
    while time.monotonic() < ends:
        runs = scheduler(RUNS)["runsOrError"]["results"]
        if len(runs) == 2 and all(run["status"] in ("SUCCESS", "FAILURE") for run in runs):
            break
        time.sleep(0.5)
    assert [run["status"] for run in runs] == ["SUCCESS"] * 2
    later, earlier = sorted(runs, key=lambda run: run["startTime"], reverse=True)
    assert earlier["endTime"] <= later["startTime"]
    told = [{tag["key"]: tag["value"] for tag in run["tags"]}["dagster/partition"] for run in (earlier, later)]
    assert told == days
    shown = subprocess.run(
        [*nights.launch, "-m", "pipelines", "show", "filled", "--json"],
        cwd=nights.home,
        capture_output=True,
        check=True,
    )
    versions = json.loads(shown.stdout)["versions"]
    assert [(v["version"], v["partition"]) for v in versions] == [(2, days[1]), (1, days[0])]
    assert versions[0]["aliases"] == ["candidate", "champion"]
