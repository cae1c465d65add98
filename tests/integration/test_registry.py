from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time

import pytest

from recdistill import registry, tracking
from recdistill.bundle import manifest_sha256
from recdistill.errors import ArtifactError, GateRejected
from recdistill.results import GateResult

PASS = GateResult(gate="ndcg_at_10", passed=True, measured=0.5, required=">= 0.4", reason="ndcg_at_10 is 0.5")
FAIL = GateResult(gate="p95_ms", passed=False, measured=9.0, required="<= 5", reason="p95_ms is 9, required <= 5")
DATASET: tracking.DatasetFacts = {"name": "logs/2026-11-20", "digest": "ab" * 32, "rows": 7}


@pytest.fixture
def uri(new_registry, tmp_path):
    return new_registry(tmp_path / "mlflow")


@pytest.fixture
def run(uri, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text('{"quality": []}')
    return tracking.record(uri, "recdistill/test", "first", [], DATASET, tmp_path / "report")


@pytest.fixture
def versions(uri, run, make_bundle, tmp_path):
    """Register bundles in this order of their data's end: version n has the n-th."""

    def make(*ends):
        folders = [make_bundle(tmp_path / f"b{n}", seed=n, data_end=end) for n, end in enumerate(ends)]
        return [registry.register(uri, "m", folder, run, {"recdistill.git_sha": "abc"}) for folder in folders]

    return make


def aliases(uri):
    return {a: v["version"] for v in registry.history(uri, "m") for a in v["aliases"]}


def gate_of(uri, version):
    return next(v["gate"] for v in registry.history(uri, "m") if v["version"] == version)


def test_registering_twice_is_one_version(uri, run, make_bundle, tmp_path):
    bundle = make_bundle(tmp_path / "b", data_end="2026-01-01")
    assert registry.find_version(uri, "m", manifest_sha256(bundle)) is None
    assert registry.register(uri, "m", bundle, run, {"note": None}) == 1
    assert registry.register(uri, "m", bundle, run, {}) == 1
    assert registry.find_version(uri, "m", manifest_sha256(bundle)) == 1
    (version,) = registry.history(uri, "m")
    assert (version["version"], version["aliases"], version["run_id"]) == (1, ["candidate"], run)
    assert (version["data_end"], version["fingerprint"]) == ("2026-01-01", "seed0")
    assert registry.champion(uri, "m") is None
    assert registry.champion_report(uri, "m") is None


def test_a_refused_candidate_stays_registered_with_reasons(uri, versions):
    first, second = versions("2026-01-01", "2026-01-02")
    release = registry.promote(uri, "m", first, gates=[PASS])
    assert (release.version, release.alias, release.gates) == (first, "champion", (PASS,))
    wide = dataclasses.replace(FAIL, reason="the difference is -0.1; its interval does not rule a larger drop out")
    why = ["p95_ms is 9, required <= 5", wide.reason]
    with pytest.raises(GateRejected, match="p95_ms is 9, required <= 5") as caught:
        registry.promote(uri, "m", second, gates=[PASS, FAIL, wide])
    assert (caught.value.exit_code, caught.value.reasons) == (4, why)
    refused = next(v for v in registry.history(uri, "m") if v["version"] == second)
    assert (refused["gate"], refused["reasons"]) == ("failed", "\n".join(why))
    assert aliases(uri) == {"champion": first, "candidate": second}
    assert registry.champion_report(uri, "m") == {"quality": []}
    with pytest.raises(GateRejected, match="p95_ms is 9") as caught:  # by hand, without new verdicts
        registry.promote(uri, "m", second)
    assert caught.value.reasons == why
    # A champion is not judged anew by the same command run again.
    assert registry.promote(uri, "m", first, gates=[FAIL]).version == first


def test_never_judged_is_refused(uri, versions):
    (only,) = versions("2026-01-01")
    with pytest.raises(GateRejected, match="never judged"):
        registry.promote(uri, "m", only)


def test_older_data_is_refused_unless_forced(uri, versions):
    old, new = versions("2026-01-01", "2026-01-02")
    registry.promote(uri, "m", new, gates=[PASS])
    with pytest.raises(GateRejected, match=f"version {new} serves, with data up to 2026-01-02"):
        registry.promote(uri, "m", old, gates=[PASS])
    assert aliases(uri)["champion"] == new
    assert registry.promote(uri, "m", old, force=True).version == old
    assert (aliases(uri)["champion"], aliases(uri)["previous"]) == (old, new)
    assert gate_of(uri, new) == "withdrawn"


def test_force_overrides_a_failed_gate(uri, versions):
    (only,) = versions(None)
    with pytest.raises(GateRejected):
        registry.promote(uri, "m", only, gates=[FAIL])
    assert registry.promote(uri, "m", only, force=True).alias == "champion"


def test_rollback_goes_back_and_stays_back(uri, versions):
    a, b, c = versions("2026-01-01", "2026-01-02", "2026-01-03")
    with pytest.raises(ArtifactError, match="no previous champion"):
        registry.rollback(uri, "m")
    for version in (a, b, c):
        registry.promote(uri, "m", version, gates=[PASS])
    assert registry.rollback(uri, "m").version == b
    assert (aliases(uri)["champion"], aliases(uri)["previous"]) == (b, a)
    # The scheduler repeats yesterday's command: what was rolled back must not come back by itself.
    with pytest.raises(GateRejected, match="rolled back to version"):
        registry.promote(uri, "m", c, gates=[PASS])
    assert registry.promote(uri, "m", b, gates=[PASS]).version == b
    assert registry.rollback(uri, "m").version == a
    assert "previous" not in aliases(uri)
    with pytest.raises(ArtifactError, match="no previous champion"):
        registry.rollback(uri, "m")


def test_a_rollback_that_was_killed_is_finished_by_the_next(uri, versions, monkeypatch, tmp_path):
    """Whatever the last write was that it came to, the same command ends where one would have, and no further back."""
    a, b, c = versions("2026-01-01", "2026-01-02", "2026-01-03")
    for version in (a, b, c):
        registry.promote(uri, "m", version, gates=[PASS])
    left = [0]

    def counted(write):
        def limited(*arguments):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            write(*arguments)

        return limited

    for writes in range(6):
        shutil.copyfile(tmp_path / "mlflow" / "mlflow.db", tmp_path / f"{writes}.db")
        copy, left[0] = f"sqlite:///{tmp_path / f'{writes}.db'}", writes
        with monkeypatch.context() as patch:
            for name in ("tag", "point"):
                patch.setattr(registry.held, name, counted(getattr(registry.held, name)))
            with pytest.raises(KeyboardInterrupt):
                registry.rollback(copy, "m")
        assert registry.rollback(copy, "m").version == b, writes
        assert (aliases(copy)["champion"], aliases(copy)["previous"]) == (b, a), writes
        assert gate_of(copy, c) == "withdrawn", writes


def test_rolling_back_a_forced_promotion(uri, versions):
    old, new = versions("2026-01-01", "2026-01-02")
    registry.promote(uri, "m", new, gates=[PASS])
    registry.promote(uri, "m", old, gates=[PASS], force=True)
    assert registry.rollback(uri, "m").version == new
    assert aliases(uri)["champion"] == new


def test_a_stale_promoter_ends_on_the_right_version(uri, versions, monkeypatch):
    """Another promoter finishes between this one's choice and its write."""
    newer, stale = versions("2026-01-02", "2026-01-01")
    passed, calls = registry._passed, []

    def slow(*asked):
        found = passed(*asked)
        calls.append(len(found))
        if len(calls) == 1:
            registry.promote(uri, "m", newer, gates=[PASS])
        return found

    monkeypatch.setattr(registry, "_passed", slow)
    with pytest.raises(GateRejected, match=f"version {newer} serves"):
        registry.promote(uri, "m", stale, gates=[PASS])
    assert calls[0] == 1  # it had seen only itself
    assert aliases(uri)["champion"] == newer


PROMOTE = """
import sys, time
from pathlib import Path
from recdistill import registry
from recdistill.errors import GateRejected
from recdistill.tracking import store
with store(sys.argv[1]) as client:
    client.search_experiments(max_results=1)
Path(sys.argv[3]).touch()
while not Path(sys.argv[4]).exists():
    time.sleep(0.001)
try:
    registry.promote(sys.argv[1], "m", int(sys.argv[2]), gates=[])
except GateRejected as refused:
    sys.exit(refused.exit_code)
"""


def test_racing_promoters_end_on_the_newest_data(uri, versions, tmp_path, spawn, finish):
    newest, *others = versions("2026-01-03", "2026-01-01", "2026-01-02")
    order = [*others, newest]
    racers = [spawn(PROMOTE, uri, v, tmp_path / f"ready{v}", tmp_path / "go") for v in order]
    deadline = time.monotonic() + 120
    while not all((tmp_path / f"ready{v}").exists() for v in order) and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    codes = finish(racers)
    assert codes[-1] == 0
    assert set(codes) <= {0, 4}
    assert aliases(uri)["champion"] == newest


def test_a_tampered_champion_is_refused(uri, versions):
    (only,) = versions("2026-01-01")
    registry.promote(uri, "m", only, gates=[PASS])
    version, bundle = registry.champion(uri, "m")
    assert version == only
    data = bytearray((bundle / "index.faiss").read_bytes())
    data[-1] ^= 1
    (bundle / "index.faiss").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"index\.faiss") as caught:
        registry.champion(uri, "m")
    assert caught.value.exit_code == 5
    # Whoever also forges the manifest still meets the digest that was registered.
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["index.faiss"] = hashlib.sha256(bytes(data)).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="not the one that was registered"):
        registry.champion(uri, "m")


def test_a_champion_can_be_copied_out(uri, versions, tmp_path):
    (only,) = versions("2026-01-01")
    registry.promote(uri, "m", only, gates=[PASS])
    _, copy = registry.champion(uri, "m", tmp_path / "copy")
    assert copy.is_relative_to(tmp_path / "copy")


def test_an_unknown_version_is_named(uri, versions):
    versions("2026-01-01")
    with pytest.raises(ArtifactError, match="7"):
        registry.promote(uri, "m", 7)
