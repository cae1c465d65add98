"""A version goes from the registry where it passed its gates to another one, whole, once, and under the rule there."""

from __future__ import annotations

import json
import shutil

import pytest

from pipelines.__main__ import main
from recdistill import registry, registry_across, tracking
from recdistill.errors import ArtifactError, ConfigError, GateRejected
from recdistill.registry_across import promote_across
from recdistill.results import GateResult

FAIL = GateResult(gate="p95_ms", passed=False, measured=9.0, required="<= 5", reason="p95_ms is 9, required <= 5")
ENDS = ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04")
DATASET: tracking.DatasetFacts = {"name": "logs/2026-11-20", "digest": "ab" * 18, "rows": 7}


def register(uri, folder, make_bundle, *, seed, end):
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "report.json").write_text('{"quality": [], "name": "mine"}')
    bundle = make_bundle(folder / f"b{seed}", seed=seed, data_end=end)
    run = tracking.record(uri, "recdistill/test", f"night {seed}", [], DATASET, folder / "report")
    return registry.register(uri, "m", bundle, run, {"recdistill.teacher": f"t{seed}"})


@pytest.fixture(scope="module")
def nights(new_registry, make_bundle, tmp_path_factory):
    """A registry of four nights: two passed, the third failed a gate, the fourth was never judged."""
    folder = tmp_path_factory.mktemp("nights")
    uri = new_registry(folder)
    for n, end in enumerate(ENDS):
        assert register(uri, folder, make_bundle, seed=n, end=end) == n + 1
    for n in (1, 2):
        registry.promote(uri, "m", n, gates=[])
    with pytest.raises(GateRejected):
        registry.promote(uri, "m", 3, gates=[FAIL])
    return folder


@pytest.fixture
def here(nights, tmp_path):
    (tmp_path / "here").mkdir()
    shutil.copyfile(nights / "mlflow.db", tmp_path / "here" / "mlflow.db")  # its bundles stay where they were
    return f"sqlite:///{tmp_path / 'here' / 'mlflow.db'}"


@pytest.fixture
def there(new_registry, tmp_path):
    return new_registry(tmp_path / "there")


def only(uri):
    (version,) = registry.history(uri, "m")
    return version


def test_the_bundle_its_report_and_its_tags_go_along(here, there, nights, tmp_path):
    release = promote_across(here, there, "m", 2)
    assert (release.version, release.alias, release.uri) == (1, "champion", there)
    theirs = only(there)
    assert sorted(theirs["aliases"]) == ["candidate", "champion"]
    assert (theirs["gate"], theirs["reasons"], theirs["data_end"]) == ("passed", "", "2026-01-02")
    ours = next(v for v in registry.history(here, "m") if v["version"] == 2)
    assert (theirs["from"], theirs["from_version"], theirs["from_run"]) == (here, "2", ours["run_id"])
    assert theirs["teacher"] == "t1"
    assert theirs["manifest_sha256"] == ours["manifest_sha256"]
    assert registry.champion_report(there, "m") == {"quality": [], "name": "mine"}
    _, bundle = registry.champion(there, "m")
    assert bundle.is_relative_to(tmp_path / "there")
    assert (bundle / "index.faiss").read_bytes() == (nights / "b1" / "bundle" / "index.faiss").read_bytes()
    with tracking.store(there) as client:
        run = client.get_run(release.run_id)
    assert (run.info.run_name, run.data.tags["recdistill.from_run"]) == ("night 1", ours["run_id"])
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("logs/2026-11-20", "ab" * 18)


def test_the_same_command_again_is_the_same_version(here, there):
    assert [promote_across(here, there, "m", 1).version for _ in range(2)] == [1, 1]
    assert only(there)["version"] == 1


def test_one_that_was_killed_before_the_verdict_went_along_is_finished_by_the_next(here, there, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(registry_across, "_carry", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            promote_across(here, there, "m", 1)
    assert "gate" not in only(there)
    assert promote_across(here, there, "m", 1).version == 1
    assert only(there)["gate"] == "passed"


def test_what_did_not_pass_here_does_not_go_there_unless_forced(here, there):
    with pytest.raises(GateRejected, match="p95_ms is 9, required <= 5"):
        promote_across(here, there, "m", 3)
    with pytest.raises(GateRejected, match="never judged"):
        promote_across(here, there, "m", 4)
    assert registry.history(there, "m") == []
    assert promote_across(here, there, "m", 3, force=True).version == 1
    assert only(there)["reasons"] == "version 1 was forced"


def test_the_newest_data_serves_there_whatever_served_here(here, there, make_bundle, tmp_path):
    registry.promote(there, "m", register(there, tmp_path, make_bundle, seed=5, end="2026-01-05"), gates=[])
    with pytest.raises(GateRejected, match="version 1 serves, with data up to 2026-01-05"):
        promote_across(here, there, "m", 2)
    assert registry.champion(there, "m")[0] == 1
    assert [v["aliases"] for v in registry.history(there, "m")] == [["candidate"], ["champion"]]


def test_what_was_rolled_back_there_does_not_come_back(here, there):
    for version in (1, 2):
        promote_across(here, there, "m", version)
    assert registry.rollback(there, "m").version == 1
    with pytest.raises(GateRejected, match="rolled back to version 1"):
        promote_across(here, there, "m", 2)
    assert registry.champion(there, "m")[0] == 1


def test_two_who_copy_the_same_bundle_at_once_both_end_well(here, there, monkeypatch):
    promote_across(here, there, "m", 1)
    # Another one looks before the first has registered, twice, and the first has not seen the other's.
    find, seen = registry.find_version, [1, None, None]
    monkeypatch.setattr(registry, "find_version", lambda *asked: seen.pop() if seen else find(*asked))
    assert promote_across(here, there, "m", 1).version == 2
    assert promote_across(here, there, "m", 1).version == 2
    assert not seen


def flip(bundle):
    data = bytearray((bundle / "index.faiss").read_bytes())
    data[-1] ^= 1
    (bundle / "index.faiss").write_bytes(data)


def test_a_bundle_that_was_changed_here_is_refused_and_not_copied(here, there):
    bundle = registry.fetch(here, "m", 1)
    flip(bundle)
    try:
        with pytest.raises(ArtifactError, match=r"index\.faiss"):
            promote_across(here, there, "m", 1)
    finally:
        flip(bundle)  # which other tests copy
    assert registry.history(there, "m") == []


def test_a_copy_that_was_changed_there_does_not_serve(here, there, monkeypatch):
    whole = registry.register

    def broken(uri, model, *rest):
        number = whole(uri, model, *rest)
        flip(registry.fetch(uri, model, number))
        return number

    monkeypatch.setattr(registry, "register", broken)
    with pytest.raises(ArtifactError, match=r"index\.faiss"):
        promote_across(here, there, "m", 1)
    assert registry.champion(there, "m") is None
    assert "gate" not in only(there)


def test_a_registry_is_no_other_one_than_itself(here):
    with pytest.raises(ConfigError, match="another registry"):
        promote_across(here, here, "m", 1)


def test_the_command_takes_the_champion(here, there, capsys):
    assert main(["promote", "m", "--mlflow", here, "--to", there, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1
    assert only(there)["data_end"] == "2026-01-02"
    assert main(["promote", "m", "--mlflow", here, "--to", here]) == 2
    assert main(["promote", "m", "--mlflow", here, "--to", there, "--version", "3"]) == 4
