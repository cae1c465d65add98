"""The registry as a team has it: an `mlflow server` over PostgreSQL, used for the first time by several at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from servers import mlflow_server, postgres

from recdistill import registry
from recdistill.errors import GateRejected

NEWEST, OLDEST, OLD = ENDS = ("2026-01-03", "2026-01-01", "2026-01-02")  # of the data of each candidate
PROMOTER = """
import sys, time
from pathlib import Path
import mlflow, psycopg
from recdistill import registry, tracking
from recdistill.errors import GateRejected

database, bundle, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

def wait(phase):
    (folder / f"{bundle.parent.name}.{phase}").touch()
    while not (folder / phase).exists():
        time.sleep(0.001)

wait("database")
tracking.initialise(database)
wait("server")
uri = (folder / "server").read_text()
wait("go")
data = {"name": "logs", "digest": "ab" * 32, "rows": 7}
run = tracking.record(uri, "recdistill/team", bundle.parent.name, [], data, bundle.parent / "report")
version = registry.register(uri, "m", bundle, run, {})
try:
    registry.promote(uri, "m", version, gates=[])
except GateRejected as refused:
    sys.exit(refused.exit_code)
"""


def ready(processes, folder: Path, phase: str) -> None:
    """Wait until all of them wait for `phase`."""
    deadline = time.monotonic() + 120
    while len(list(folder.glob(f"*.{phase}"))) < len(processes):
        assert [p.poll() for p in processes] == [None] * len(processes), f"one died before {phase}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def go(folder: Path, phase: str, text: str = "") -> None:
    (folder / "written").write_text(text)
    (folder / "written").replace(folder / phase)


@pytest.fixture(scope="module")
def race(make_bundle, tmp_path_factory, finish) -> Iterator[SimpleNamespace]:
    """Three promoters that met a database, then a server, at once when neither held anything."""
    folder = tmp_path_factory.mktemp("race")
    bundles = [make_bundle(folder / f"b{n}", seed=n, data_end=end) for n, end in enumerate(ENDS)]
    for bundle in bundles:
        (bundle.parent / "report").mkdir()
        (bundle.parent / "report" / "report.json").write_text(f'{{"quality": [], "name": "{bundle.parent.name}"}}')
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        promoters = [started(stack, database, bundle, folder) for bundle in bundles]
        ready(promoters, folder, "database")
        go(folder, "database")
        ready(promoters, folder, "server")
        before = registry.history(database, "m")
        uri = stack.enter_context(mlflow_server(database, folder))
        go(folder, "server", uri)
        ready(promoters, folder, "go")
        go(folder, "go")
        yield SimpleNamespace(uri=uri, before=before, bundles=bundles, codes=finish(promoters))


def started(stack: ExitStack, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROMOTER, *map(str, arguments)]
    process = stack.enter_context(subprocess.Popen(command, cwd=Path(__file__).parents[2]))
    stack.callback(process.kill)
    return process


def test_first_use_of_a_database_by_several_machines(race):
    """They share no file to lock: without a lock in the database one meets the tables of another half made."""
    assert race.before == []  # and nobody died of it


def test_promoters_that_race_on_a_server_end_on_the_newest_data(race):
    """The experiment, the model and every tag and alias are new as well, made by whoever comes first."""
    assert race.codes[0] == 0
    assert set(race.codes) <= {0, 4}
    versions = {v["data_end"]: v for v in registry.history(race.uri, "m")}
    assert set(versions) == set(ENDS)
    assert "champion" in versions[NEWEST]["aliases"]
    assert sum("candidate" in v["aliases"] for v in versions.values()) == 1
    assert {v["gate"] for v in versions.values()} == {"passed"}


def test_what_serves_is_whole_and_knows_its_report(race, tmp_path):
    _, found = registry.champion(race.uri, "m", tmp_path / "copy")
    assert (found / "index.faiss").read_bytes() == (race.bundles[0] / "index.faiss").read_bytes()
    assert registry.champion_report(race.uri, "m") == {"quality": [], "name": "b0"}


def test_a_stale_candidate_is_refused_and_a_newer_one_rolled_back(race, make_bundle, tmp_path):
    versions = {v["data_end"]: v["version"] for v in registry.history(race.uri, "m")}
    with pytest.raises(GateRejected, match=f"version {versions[NEWEST]} serves, with data up to {NEWEST}"):
        registry.promote(race.uri, "m", versions[OLD])
    run = registry.history(race.uri, "m")[0]["run_id"]
    bundle = make_bundle(tmp_path / "next", seed=9, data_end="2026-01-04")
    newest = registry.register(race.uri, "m", bundle, run, {})
    assert registry.promote(race.uri, "m", newest, gates=[]).version == newest
    assert registry.rollback(race.uri, "m").version == versions[NEWEST]
    assert registry.champion(race.uri, "m")[0] == versions[NEWEST]
