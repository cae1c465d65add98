"""The whole path in processes of its own: from a log to a registered version, again, and refused."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from recdistill.report import read_report

NAMES = ["ingest", "split", "scratch", "teacher", "labels", "student", "index", "evaluate", "latency"]


def said(process, code=0):
    assert process.returncode == code, process.stdout + process.stderr
    return json.loads(process.stdout)


@pytest.fixture
def registry(tiny, monkeypatch):
    """The registry that the run in `tiny` filled, read from its folder."""
    from pipelines.models import prepare_mlflow
    from recdistill import registry

    monkeypatch.chdir(tiny.home)
    prepare_mlflow()
    return lambda model="tiny-model": {
        int(v["version"]): v for v in registry.history("sqlite:///runs/mlflow.db", model)
    }


def test_a_run_ends_promoted_with_a_report(tiny, done, registry):
    assert [row["stage"] for row in done.outcome["stages"]] == NAMES
    assert not any(row["hit"] for row in done.outcome["stages"])
    release = done.outcome["release"]
    assert (release["model"], release["version"], release["alias"]) == ("tiny-model", 1, "champion")
    assert all(gate["passed"] for gate in release["gates"])
    assert {"champion"} <= set(registry()[1]["aliases"])
    page = (tiny.home / done.outcome["report"]).read_text()
    assert "tiny-model" in page
    assert "<script src" not in page


def test_the_report_is_whole_and_says_how_it_was_made(tiny, done):
    report = read_report((tiny.home / done.outcome["report"]).parent)
    assert {r["model"] for r in report["quality"]} == {"teacher", "scratch", "student", "student@index", "popularity"}
    assert {r["slice"] for r in report["quality"]} > {"all"}
    for row in report["quality"]:
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert {r["model"] for r in report["latency"]} == {"student@index", "student@flat", "teacher"}
    assert [row["stage"] for row in report["stages"]] == NAMES
    assert report["data"]["ages"]["teacher_days"] >= report["data"]["ages"]["labels_days"] >= 0
    assert report["verdict"]["promoted"] is True
    assert report["verdict"]["version"] == 1
    assert report["config"]["student"]["model"]["dim"] == 8
    assert report["command"] == f"recdistill run {done.config} --json"


def test_plan_says_miss_before_and_hit_after(tiny, done):
    before, after = said(done.before)["stages"], said(tiny("plan", done.config, "--json"))["stages"]
    assert [(row["stage"], row["state"]) for row in before] == [(name, "miss") for name in NAMES]
    assert [(row["stage"], row["state"]) for row in after] == [(name, "hit") for name in NAMES]
    assert [row["fingerprint"] for row in before] == [row["fingerprint"] for row in done.outcome["stages"]]
    assert all((tiny.home / row["path"] / "manifest.json").is_file() for row in after)


def test_how_a_run_is_done_does_not_change_what_it_finds(tiny, done):
    sets = ["exec.threads=2", "exec.checkpoint_every=7", "exec.tables=row_wise", "exec.device=auto"]
    words = [word for pair in sets for word in ("--set", pair)]
    again = said(tiny("run", done.config, "--json", *words))
    assert all(row["hit"] for row in again["stages"])
    assert again["release"]["version"] == 1
    assert again["report"] == done.outcome["report"]
    other = said(tiny("plan", done.config, "--json", "--set", "student.train.epochs=4"))["stages"]
    changed = {"scratch", "student", "index", "evaluate", "latency"}
    assert {row["stage"] for row in other if row["state"] == "miss"} == changed


def test_until_stops_after_a_stage_and_refuses_an_unknown_one(tiny, done):
    stopped = said(tiny("run", done.config, "--json", "--until", "split"))
    assert [(row["stage"], row["hit"]) for row in stopped["stages"]] == [("ingest", True), ("split", True)]
    assert stopped["report"] is None
    assert stopped["release"] is None
    measured = said(tiny("run", done.config, "--json", "--until", "surface"))  # which this run has not
    assert [row["stage"] for row in measured["stages"]] == NAMES
    assert measured["release"] is None
    refused = tiny("run", done.config, "--until", "studnet")
    assert refused.returncode == 2
    assert "did you mean 'student'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_student_that_fails_its_gates_is_registered_and_does_not_serve(tiny, done, registry):
    gates = {"ndcg_at_10": {"min": 1.5}, "recall_at_10": {"min": 0.0}}
    train = {"epochs": 1, "batch": 512, "negatives": 64, "list_users": 64}
    student = {"model": {"kind": "two_tower", "dim": 8, "history": 8}, "train": train}
    config = tiny.config("refused", student=student, registry={"model": "tiny-model", "gates": gates})
    before = set(registry())
    refused = said(tiny("run", config, "--json"), code=4)
    assert refused["kind"] == "GateRejected"
    assert len(refused["reasons"]) == 1
    assert "ndcg_at_10" in refused["reasons"][0]
    assert "1.5" in refused["reasons"][0]
    (new,) = set(registry()) - before
    assert "champion" in registry()[1]["aliases"]
    assert "champion" not in registry()[new]["aliases"]
    assert (registry()[new]["gate"], registry()[new]["reasons"]) == ("failed", refused["reasons"][0])
    again = said(tiny("run", config, "--json"), code=4)
    assert again["reasons"] == refused["reasons"]
    assert set(registry()) == before | {new}
    reports = [read_report(path) for path in (tiny.home / "runs" / "reports").glob("tiny-*")]
    (verdict,) = [r["verdict"] for r in reports if r["verdict"]["version"] == new]
    assert (verdict["promoted"], verdict["reasons"]) == (False, refused["reasons"])


def test_artifacts_can_be_shown_and_verified_and_the_report_printed(tiny, done):
    for stage, kind in (("student", "fit"), ("labels", "labels"), ("index", "index")):
        path = str(tiny.at(kind, done.stages[stage]))
        assert said(tiny("verify", path, "--json"))["whole"] is True
        shown = said(tiny("show", path, "--json"))
        assert (shown["stage"], shown["fingerprint"]) == (kind, done.stages[stage]["fingerprint"])
    home = str((tiny.home / done.outcome["report"]).parent)
    printed = tiny("report", home)
    assert printed.returncode == 0, printed.stderr
    assert "student@index" in printed.stdout


def test_labels_are_one_polars_line_in_teacher_order(tiny, done):
    """The teacher is asked again, over the whole catalogue, for some users, and sorted here."""
    import torch

    from recdistill.config import load_config
    from recdistill.data.dataset import read_dataset
    from recdistill.data.sequences import Sequences
    from recdistill.fit import load
    from recdistill.models.encoders import Group

    labels = tiny.at("labels", done.stages["labels"])
    table = pl.read_ipc(f"{labels}/*.arrow")
    assert table["user"].to_list() == list(range(200))
    items, scores = table["items"].to_numpy(), table["scores"].to_numpy()
    assert items.shape == scores.shape == (200, 30)
    assert (np.diff(scores, axis=1) <= 0).all()

    dataset = read_dataset(tiny.at("ingest", done.stages["ingest"]), tiny.at("split", done.stages["split"]))
    spec = load_config(tiny.home / done.config).teacher.model
    model = load(spec, dataset, tiny.at("fit", done.stages["teacher"])).eval()
    users = torch.tensor([0, 17, 199])
    past = Sequences.of(dataset.train).latest(users, spec.history)
    with torch.inference_mode():
        everything = torch.arange(dataset.num_items).expand(3, -1)
        (asked,) = model.score(users, past, [Group(everything)])
    for row, user in enumerate(users.tolist()):
        mine = dataset.train.items[dataset.train.indptr[user] : dataset.train.indptr[user + 1]]
        assert not set(items[user].tolist()) & set(mine.tolist())
        fresh = asked[row].numpy().astype(np.float64)
        fresh[mine] = -np.inf
        np.testing.assert_allclose(scores[user], fresh[items[user]], rtol=0, atol=1e-4)
        np.testing.assert_allclose(scores[user], np.sort(fresh)[::-1][:30], rtol=0, atol=1e-4)
