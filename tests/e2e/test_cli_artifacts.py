from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.__main__ import main
from recdistill import registry, store
from recdistill.errors import GateRejected
from recdistill.results import Release
from recdistill.world import World


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    def work(directory: Path) -> dict[str, int]:
        (directory / "data.txt").write_text("hello")
        return {"rows": 5}

    step = store.Step("ingest", 1, {"a": 1}, {"log": "f00d"})
    return store.build(tmp_path / "store", World(), step, work).path


def test_show_says_what_an_artifact_is(artifact: Path, capsys) -> None:
    assert main(["show", str(artifact)]) == 0
    said = capsys.readouterr().out
    for text in ("ingest", artifact.name, "from log", "f00d", "rows", "data.txt", "2cf24dba5fb0a30e"):
        assert text in said
    assert main(["show", str(artifact), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"]["data.txt"]["size"] == 5


def test_verify_finds_a_changed_byte(artifact: Path, capsys) -> None:
    assert main(["verify", str(artifact)]) == 0
    (artifact / "data.txt").write_text("hellO")
    assert main(["verify", str(artifact), "--json"]) == 5
    out, err = capsys.readouterr()
    assert "1 files, all whole" in out.splitlines()[0]
    assert json.loads(out.partition("\n")[2])["kind"] == "ArtifactError"
    assert err == ""


def test_report_is_printed_or_written_elsewhere(artifact: Path, tmp_path: Path, capsys) -> None:
    assert main(["report", str(artifact)]) == 5
    assert "report.json" in capsys.readouterr().err
    source = tmp_path / "source" / "report.json"
    source.parent.mkdir()
    source.write_text(json.dumps({"schema_version": 1, "name": "tiny-run"}))
    assert main(["report", str(source)]) == 0
    assert "tiny-run" in capsys.readouterr().out
    assert main(["report", str(source.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny-run"
    assert main(["report", str(source), "--out", str(tmp_path / "page")]) == 0
    assert "tiny-run" in (tmp_path / "page" / "report.html").read_text()
    assert main(["report", str(source), "--out", str(artifact)]) == 5
    assert not (artifact / "report.html").exists()


@pytest.fixture
def versions(monkeypatch, tmp_path: Path) -> list[tuple[str, int, bool]]:
    """A registry whose latest candidate is version 2; returns what is promoted, and refuses without force."""
    asked: list[tuple[str, int, bool]] = []

    def promote(uri: str, model: str, version: int, *, force: bool, trust: Sequence[Path]) -> Release:
        assert not trust
        asked.append((model, version, force))
        if not force:
            raise GateRejected("m version 2 does not serve", reasons=["too slow"])
        return Release(model=model, version=version, alias="champion", gates=(), uri=uri, run_id="r")

    found = [{"version": 3, "aliases": []}, {"version": 2, "aliases": ["candidate"]}]
    monkeypatch.setattr(registry, "history", lambda _uri, model: found if model == "m" else [])
    monkeypatch.setattr(registry, "promote", promote)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").touch()
    return asked


def test_promote_takes_the_candidate_and_exits_4_when_refused(versions, capsys) -> None:
    assert main(["promote", "m"]) == 4
    assert capsys.readouterr().err == "error: m version 2 does not serve\n  - too slow\n"
    assert main(["promote", "m", "--version", "3", "--force"]) == 0
    assert capsys.readouterr().out == "m version 3 serves as champion (sqlite:///runs/mlflow.db)\n"
    assert main(["promote", "m", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["reasons"] == ["too slow"]
    assert versions == [("m", 2, False), ("m", 3, True), ("m", 2, False)]


def test_a_model_without_versions_exits_5(versions, capsys) -> None:
    assert main(["promote", "other"]) == 5
    assert "'other' has no candidate, and no versions" in capsys.readouterr().err
    assert main(["show", "other"]) == 5
    assert main(["show", "m"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["version", "3", "2"]
    assert versions == []


def test_mlflow_defaults_do_not_replace_what_the_user_set(versions, monkeypatch) -> None:
    import os

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    main(["show", "m"])
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
