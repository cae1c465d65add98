"""`plan-serving` from a finished run's surface to a directory that serves, and what it says where there is none."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from surfaces import point, surface

from pipelines import distill
from pipelines.__main__ import main
from recdistill.config import load_config
from recdistill.store import Step, build
from recdistill.surface_form import SURFACE
from recdistill.world import World

TEXT = """\
# our shop
name: shop
log: {path: log.parquet, user: u, item: i, time: t}
teacher: {model: {kind: mf, dim: 64}, train: {epochs: 30}}
student: {model: {kind: mf, dim: 16}, train: {epochs: 10}}  # of sixteen numbers
index:
  # by size
  factory: auto
  min_recall: 0.9
report: {k: [10]}
"""
POINTS = [
    point("d16 IVF16,SQ8 nprobe=8", factory="IVF16,SQ8", params="nprobe=8", file="indexes/ivf.faiss", p95=1.0, size=3),
    point("d16 Flat", factory="Flat", quality=0.139, p95=1.5, size=9),
]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Give a way to run the command on a configuration whose run has measured POINTS."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(TEXT)

    def work(out: Path) -> None:
        (out / "indexes").mkdir()
        (out / "indexes" / "ivf.faiss").write_bytes(b"an index")
        (out / SURFACE).write_text(json.dumps(surface(POINTS)))

    made = build(tmp_path / "store", World(), Step("surface", 1, {}, {}), work)
    rows: list[dict[str, Any]] = [{"stage": "surface", "state": "hit", "path": str(made.path)}]
    monkeypatch.setattr(distill, "plan", lambda _: rows)

    def run(*words: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main(["plan-serving", "my.yaml", *words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return SimpleNamespace(run=run, rows=rows, path=made.path)


def test_a_plan_leaves_the_index_the_configuration_and_their_digests(ran: Any, tmp_path: Path) -> None:
    code, said = ran.run("--p95-ms", "2", "--min-ndcg-of-teacher", "0.9", "--out", "serve")
    assert code == 0
    assert said["picked"]["id"] == "d16 IVF16,SQ8 nprobe=8"
    out = tmp_path / "serve"
    assert (out / "index.faiss").read_bytes() == b"an index"
    manifest = json.loads((out / "manifest.json").read_text())
    assert sorted(manifest["files"]) == ["config.yaml", "index.faiss", "index.json", "plan.json"]
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    facts = json.loads((out / "index.json").read_text())
    assert facts["files"] == {"index.faiss": manifest["files"]["index.faiss"]}
    assert (facts["factory"], facts["params"]) == ("IVF16,SQ8", "nprobe=8")
    text = (out / "config.yaml").read_text()
    assert text == TEXT.replace("factory: auto", 'factory: "IVF16,SQ8"').replace(
        "min_recall: 0.9", 'params: "nprobe=8"'
    )
    assert said["command"] == "recdistill run serve/config.yaml"
    assert list(tmp_path.glob(".*")) == []


def test_the_setting_of_a_plan_means_what_its_file_means(ran: Any, tmp_path: Path) -> None:
    _, said = ran.run("--p95-ms", "2", "--out", "serve", "--set", "index.k=[10]", "--set", "student.train.epochs=3")
    assert said["command"] == "recdistill run serve/config.yaml --set student.train.epochs=3"
    by_file = load_config(tmp_path / "serve" / "config.yaml", ["student.train.epochs=3"])
    by_set = load_config(tmp_path / "my.yaml", ["student.train.epochs=3", said["set"]])
    assert by_file.index == by_set.index
    assert by_file.index.model_dump(exclude={"min_recall", "tables"}) == {
        "factory": "IVF16,SQ8",
        "params": "nprobe=8",
        "k": (10,),
    }
    assert by_file.model_dump() == by_set.model_dump()


def test_a_later_plan_takes_the_place_of_an_earlier_one_and_of_nothing_else(ran: Any, tmp_path: Path) -> None:
    assert ran.run("--p95-ms", "2", "--out", "serve")[0] == 0
    code, said = ran.run("--p95-ms", "2", "--min-ndcg", "0.135", "--out", "serve")
    assert code == 0
    assert said["picked"]["id"] == "d16 Flat"
    assert not (tmp_path / "serve" / "index.faiss").exists()  # the surface kept none
    assert load_config(tmp_path / "serve" / "config.yaml").index.factory == "Flat"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    code, said = ran.run("--p95-ms", "2", "--out", "mine")
    assert code == 5
    assert "does not overwrite" in said["error"]
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_an_index_that_is_not_what_was_measured_is_not_handed_out(ran: Any, tmp_path: Path) -> None:
    (ran.path / "indexes" / "ivf.faiss").write_bytes(b"an INDEX")
    code, said = ran.run("--p95-ms", "2", "--out", "serve")
    assert code == 5
    assert "contents differ" in said["error"]
    assert not (tmp_path / "serve").exists()


def test_limits_that_nothing_keeps_end_with_4_and_write_nothing(ran: Any, tmp_path: Path) -> None:
    code, said = ran.run("--p95-ms", "0.5", "--out", "serve")
    assert code == 4
    assert said["picked"] is None
    assert said["conflicts"] == [["--p95-ms"]]
    assert not (tmp_path / "serve").exists()


def test_a_run_without_a_surface_is_told_how_to_get_one(ran: Any) -> None:
    ran.rows[0]["state"] = "miss"
    code, said = ran.run("--p95-ms", "2")
    assert code == 5
    assert "recdistill run my.yaml --until surface" in said["error"]
    ran.rows.clear()
    code, said = ran.run("--p95-ms", "2")
    assert code == 2
    assert "surface: {}" in said["error"]


def test_a_plan_without_a_limit_is_refused(ran: Any) -> None:
    code, said = ran.run()
    assert code == 2
    assert "no limit was given" in said["error"]


def test_a_person_reads_the_choice_first_and_the_command_last(ran: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ran.run("--p95-ms", "2")
    assert main(["plan-serving", "my.yaml", "--p95-ms", "2", "--out", "serve"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("serve d16 IVF16,SQ8 nprobe=8: 3 MB, p95 1.00 ms, NDCG@10 0.1300, 91.5% of the teacher's")
    assert said[-1] == "serve it by: recdistill run serve/config.yaml"
