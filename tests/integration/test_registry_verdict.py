"""A verdict that is recorded moves no alias, and is what the promotion goes by."""

from __future__ import annotations

import pytest

from recdistill import registry, tracking
from recdistill.errors import GateRejected
from recdistill.registry_verdict import call_candidate, decided, record
from recdistill.results import GateResult

PASS = GateResult(gate="ndcg_at_10", passed=True, measured=0.5, required=">= 0.4", reason="ndcg_at_10 is 0.5")
FAIL = GateResult(gate="p95_ms", passed=False, measured=9.0, required="<= 5", reason="p95_ms is 9, required <= 5")


@pytest.fixture
def uri(new_registry, tmp_path):
    return new_registry(tmp_path / "mlflow")


@pytest.fixture
def version(uri, make_bundle, tmp_path):
    (tmp_path / "report").mkdir()
    dataset: tracking.DatasetFacts = {"name": "log", "digest": "ab" * 32, "rows": 7}
    run = tracking.record(uri, "recdistill/test", "first", [], dataset, tmp_path / "report")
    return registry.register(uri, "m", make_bundle(tmp_path / "b", data_end="2026-01-01"), run, {})


def test_a_version_that_passed_serves_once_it_is_promoted(uri, version):
    assert not decided(uri, "m", None)
    assert not decided(uri, "m", version)
    release = record(uri, "m", version, gates=[PASS])
    assert (release.version, release.alias, release.gates) == (version, None, (PASS,))
    assert decided(uri, "m", version)
    assert registry.champion(uri, "m") is None
    assert registry.promote(uri, "m", version).alias == "champion"
    assert record(uri, "m", version).alias == "champion"


def test_a_version_that_failed_is_refused_and_so_is_its_promotion(uri, version):
    with pytest.raises(GateRejected, match="never judged"):
        record(uri, "m", version)
    for again in ([PASS, FAIL], None):
        with pytest.raises(GateRejected, match="p95_ms is 9, required <= 5") as caught:
            record(uri, "m", version, gates=again)
        assert caught.value.reasons == ["p95_ms is 9, required <= 5"]
    with pytest.raises(GateRejected, match="p95_ms is 9"):
        registry.promote(uri, "m", version)
    assert registry.champion(uri, "m") is None


def test_a_version_whose_run_was_killed_is_called_the_candidate_by_the_next(uri, version):
    def candidates():
        return [found["version"] for found in registry.history(uri, "m") if "candidate" in found["aliases"]]

    with tracking.store(uri) as client:
        client.delete_registered_model_alias("m", "candidate")
    assert candidates() == []
    call_candidate(uri, "m", version)
    assert candidates() == [version]


def test_a_bundle_is_on_the_disk_before_a_version_names_it(uri, make_bundle, tmp_path, monkeypatch):
    flushed = []

    def flush(folder):
        names = {file.name for file in folder.rglob("*") if file.is_file()}
        flushed.append((names, len(registry.history(uri, "m"))))

    monkeypatch.setattr(registry, "flush", flush)
    run = tracking.record(uri, "recdistill/test", "f", [], {"name": "", "digest": "", "rows": 0}, tmp_path / "none")
    registry.register(uri, "m", make_bundle(tmp_path / "flushed"), run, {})
    ((names, versions),) = flushed
    assert {"MLmodel", "manifest.json", "query.safetensors", "index.faiss"} <= names
    assert (versions, len(registry.history(uri, "m"))) == (0, 1)
