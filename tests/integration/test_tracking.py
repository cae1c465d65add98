from __future__ import annotations

import json
import sqlite3

import pytest

from recdistill import registry, tracking
from recdistill.errors import ArtifactError, StageError

DATASET: tracking.DatasetFacts = {"name": "logs/2026-11-20", "digest": "ab" * 32, "rows": 7}


@pytest.fixture
def uri(new_registry, tmp_path):
    return new_registry(tmp_path / "mlflow")


@pytest.fixture
def run(uri, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text('{"quality": []}')
    (tmp_path / "curve.csv").write_text("step,loss\n")
    stages: list[tracking.StageRun] = [
        {
            "stage": "student",
            "fingerprint": "f1",
            "seconds": 2.0,
            "params": {"model": {"dim": 16}, **{f"p{n}": n for n in range(150)}},
            "metrics": {"recall@10": 0.25},
            "artifacts": [tmp_path / "curve.csv"],
        },
        {"stage": "index", "fingerprint": "f2", "seconds": 1.0},
    ]
    return tracking.record(uri, "recdistill/test", "first", stages, DATASET, tmp_path / "report")


def test_a_run_has_a_child_per_stage(uri, run, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    parent = client.get_run(run)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {"student.recall_at_10": 0.25}
    (dataset,) = parent.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("logs/2026-11-20", ("ab" * 32)[:36])
    assert json.loads(dataset.dataset.profile) == {"rows": 7}
    assert [f.path for f in client.list_artifacts(run, "report")] == ["report/report.json"]
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run}'")
    by = {c.data.tags["recdistill.stage"]: c for c in children}
    assert set(by) == {"student", "index"}
    student = by["student"]
    assert student.data.params["model.dim"] == "16"
    assert len(student.data.params) == 151
    assert student.data.metrics == {"recall_at_10": 0.25, "seconds": 2.0}
    assert student.data.tags["recdistill.fingerprint"] == "f1"
    assert [f.path for f in client.list_artifacts(student.info.run_id)] == ["curve.csv"]
    assert student.info.end_time - student.info.start_time == 2000
    assert parent.info.artifact_uri.startswith((tmp_path / "mlflow" / "mlartifacts").as_uri())


def test_a_run_that_breaks_is_marked_failed(uri, tmp_path):
    from mlflow import MlflowClient

    stage: tracking.StageRun = {"stage": "s", "fingerprint": "f", "seconds": 1, "artifacts": [tmp_path / "absent"]}
    with pytest.raises(StageError, match="absent"):
        tracking.record(uri, "broken", "r", [stage], DATASET, tmp_path / "none")
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("broken").experiment_id])
    assert [r.info.status for r in runs] == ["FAILED", "FAILED"]


INITIALISE = """
import sys
from pathlib import Path
from recdistill.tracking import initialise
initialise(sys.argv[1], Path(sys.argv[2]))
"""


def test_first_use_by_two_processes(tmp_path, spawn, finish):
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    # Two runs with stores of their own, who share the registry alone.
    assert finish([spawn(INITIALISE, uri, tmp_path / f"locks{n}") for n in range(2)]) == [0, 0]
    assert registry.history(uri, "m") == []


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql+psycopg://me:secret@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////a/b@c:d.db", "sqlite:////a/b@c:d.db"),
    ],
)
def test_a_password_is_not_shown(uri, said):
    assert tracking.shown(uri) == said


def test_an_error_of_the_registry_does_not_say_a_password():
    with pytest.raises(StageError, match="db") as caught, tracking.store("foo://me:s3c/r@t@db/m") as client:
        client.search_experiments()
    assert "s3c" not in str(caught.value)
    assert "r@t" not in str(caught.value)


def test_a_database_that_another_process_keeps_is_not_called_broken(tmp_path, monkeypatch):
    def locked(*_, **__):
        raise sqlite3.OperationalError("database is locked")

    (tmp_path / "mlflow.db").write_bytes(b"SQLite format 3")
    monkeypatch.setattr(sqlite3, "connect", locked)
    with pytest.raises(StageError, match=r"mlflow\.db: another process keeps the database to itself"):
        tracking.initialise(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)


def test_broken_and_unreachable_stores_are_named(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"not a database, but long enough to be looked at" * 40)
    with pytest.raises(ArtifactError, match="not an SQLite database"):
        tracking.initialise(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    with pytest.raises(StageError, match=r"fix: check exec\.mlflow"):
        tracking.initialise("http://127.0.0.1:9", tmp_path)
