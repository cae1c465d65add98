"""`diagnose` on finished runs: its artifact, the students it trains, the report that shows it, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines.__main__ import main
from recdistill.report import read_report

MF = {"kind": "mf", "dim": 8}
KL = {"kind": "list", "weight": 0.5, "draw": [{"kind": "top", "k": 10}], "loss": {"kind": "softmax_kl"}}


@pytest.fixture
def said(capsys):
    """Run a command in this process; returns its exit code and what it printed as JSON."""

    def run(*words: str) -> tuple[int, dict]:
        capsys.readouterr()
        code = main([*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_run_is_diagnosed_with_every_control(tiny, tmp_path: Path, monkeypatch, said) -> None:
    config = tiny.config(
        "diagnosed",
        features=None,
        teacher={"model": MF, "train": {"epochs": 2, "batch": 512, "negatives": 64}},
        student={"model": {"kind": "mf", "dim": 4}, "train": {"epochs": 1, "batch": 512, "negatives": 32}},
        distill=[KL],
        registry=None,
        exec={"store": str(tmp_path / "store"), "device": "cpu", "threads": 1},
    )
    monkeypatch.chdir(tiny.home)
    code, refused = said("diagnose", config)
    assert code == 5
    assert "not finished" in refused["error"]
    assert "recdistill run" in refused["error"]

    code, ran = said("run", config)
    assert code == 0
    page = Path(ran["report"])
    assert "recdistill diagnose" in page.read_text()

    code, full = said("diagnose", config, "--temperatures", "2", "--tune", "0.1")
    assert code == 0
    found = full["diagnosis"]
    assert [c["control"] for c in found["controls"]] == NAMES
    assert {c["factor"] for c in found["controls"]} == {0.1}
    assert found["uncontrolled"] == []
    assert any("attribution, attack transfer and invariance: the teacher reads" in note for note in found["notes"])
    assert {p["model"] for p in found["frontier"]} >= {"teacher", "scratch", "student", "taught at 2", *NAMES}
    assert {a["part"] for a in found["agreement"]} == {"train", "held-out"}  # nobody reads a history
    assert read_report(Path(full["report"]).parent)["diagnosis"]["controls"] == found["controls"]
    assert "Is the gain knowledge?" in page.read_text()

    code, spoilt = said("diagnose", config, "--robustness", "--tune", "0.1")
    assert code == 0, spoilt
    rows = spoilt["diagnosis"]["robustness"]
    assert [r["spoil"] for r in rows] == ["clean", "noise", "noise", "imbalance", "imbalance"]
    asked = {"model": "student", "metric": "ndcg", "k": 10, "slice": "all"}.items()
    (student,) = [q["value"] for q in read_report(page.parent)["quality"] if asked <= q.items()]
    assert rows[0]["student"] == pytest.approx(student)  # the log as it is is the run
    assert len({r["teacher"] for r in rows}) == len(rows)  # it learns anew
    assert "Noise and imbalance" in page.read_text()

    again = said("run", config)[1]  # the report of a later run shows the fullest diagnosis there is
    assert read_report(Path(again["report"]).parent)["diagnosis"]["controls"] == found["controls"]


NAMES = ["label smoothing", "KD-pt", "another user's lists", "population mean"]


def test_a_ranking_teacher_is_diagnosed_on_augmented_histories_too(
    done, tiny, tmp_path: Path, monkeypatch, said
) -> None:
    for name in ("d", "runs"):
        shutil.copytree(tiny.home / name, tmp_path / name)
    shutil.copy(tiny.home / done.config, tmp_path)
    monkeypatch.chdir(tmp_path)
    code, bare = said("diagnose", done.config, "--no-controls")
    assert code == 0
    assert bare["diagnosis"]["controls"] == []
    assert [why.partition(":")[0] for why in bare["diagnosis"]["uncontrolled"]] == NAMES
    code, whole = said("diagnose", done.config, "--tune", "1")
    assert code == 0
    found = whole["diagnosis"]
    assert {a["part"] for a in found["agreement"]} == {"train", "held-out", "augmented"}
    assert [c["control"] for c in found["controls"]] == [name for name in NAMES if name != "KD-pt"]
    assert [why.partition(":")[0] for why in found["uncontrolled"]] == ["KD-pt"]
    assert {v["model"] for v in found["directions"]} == {"scratch", "student"}
    assert {r["model"] for r in found["reliability"]} == {"teacher", "scratch", "student"}


def test_what_is_taught_of_nobodys_histories_has_every_control(tiny, tmp_path: Path, monkeypatch, said) -> None:
    reads = {"kind": "two_tower", "dim": 8, "history": 8}
    config = tiny.config(
        "nobody",
        features=None,
        teacher={"model": reads, "train": {"epochs": 2, "batch": 512, "negatives": 64}},
        labels={"depth": 20, "transfer": {"kind": "splice", "share": 0.25}},
        student={
            "model": reads | {"dim": 4},
            "train": {"epochs": 1, "batch": 512, "negatives": 32, "list_users": 64},
        },
        distill=[KL],
        registry=None,
        exec={"store": str(tmp_path / "store"), "device": "cpu", "threads": 1},
    )
    monkeypatch.chdir(tiny.home)
    assert said("run", config)[0] == 0
    code, whole = said("diagnose", config)
    assert code == 0
    found = whole["diagnosis"]
    assert [c["control"] for c in found["controls"]] == NAMES
    assert {c["factor"] for c in found["controls"]} <= {0.1, 1.0} == set(found["tuned"])
    assert found["uncontrolled"] == []
    assert [one["what"] for one in found["inherited"]][3:] == ["attribution", "attack transfer", "invariance"]
    stores = [json.loads(path.read_text()) for path in (tmp_path / "store").glob("labels/*/labels.json")]
    assert len(stores) == 5  # the run's, with vectors for KD-pt, and three that are made from the run's
    assert len({json.dumps(facts["transfer"], sort_keys=True) for facts in stores}) == 1


@pytest.mark.parametrize("words", [["--temperatures", "0"], ["--temperatures", "a"], ["--temperatures", "2,2"]])
def test_odd_temperatures_are_refused(done, tiny, monkeypatch, said, words: list[str]) -> None:
    monkeypatch.chdir(tiny.home)
    assert said("diagnose", done.config, *words)[0] == 2


def test_a_temperature_that_no_term_reads_is_refused(done, tiny, tmp_path: Path, monkeypatch, said) -> None:
    monkeypatch.chdir(tiny.home)
    code, refused = said("diagnose", done.config, "--no-controls", "--temperatures", "2")
    assert code == 2
    assert "changes nothing" in refused["error"]
