"""From a run that measured its ways to serve, by a plan, to a run that serves as the plan says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.__main__ import main
from recdistill.ann import search
from recdistill.report import read_report

FEW = {"epochs": 1, "batch": 512, "negatives": 32}
KL = {"kind": "list", "weight": 0.5, "draw": [{"kind": "top", "k": 10}], "loss": {"kind": "softmax_kl"}}


@pytest.fixture
def said(capsys):
    """Run a command in this process; returns its exit code and what it printed as JSON."""

    def run(*words: str) -> tuple[int, dict]:
        capsys.readouterr()
        code = main([*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_what_a_plan_leaves_is_what_a_run_of_its_configuration_serves(tiny, tmp_path: Path, monkeypatch, said) -> None:
    config = tiny.config(
        "planned",
        features=None,
        teacher={"model": {"kind": "mf", "dim": 16}, "train": FEW},
        student={"model": {"kind": "mf", "dim": 8}, "train": FEW},
        distill=[KL],
        index={"k": [10]},
        surface={"factories": ["IVF8,SQ8"], "recall_k": [10]},
        registry=None,
        exec={"store": str(tmp_path / "store"), "device": "cpu", "threads": 1},
    )
    monkeypatch.chdir(tiny.home)
    code, refused = said("plan-serving", config, "--memory-mb", "100")
    assert code == 5
    assert "--until surface" in refused["error"]

    code, ran = said("run", config)
    assert code == 0
    page = Path(ran["report"])
    measured = read_report(page.parent)["surface"]
    assert "Ways to serve" in page.read_text()
    least = min(p["bytes"] for p in measured["points"])
    assert {p["factory"] for p in measured["points"] if p["bytes"] == least} == {"IVF8,SQ8"}

    code, plan = said("plan-serving", config, "--memory-mb", f"{least / 1e6}", "--out", str(tmp_path / "serve"))
    assert code == 0
    params = plan["picked"]["params"]
    assert (plan["picked"]["factory"], params.split("=")[0]) == ("IVF8,SQ8", "nprobe")
    assert said("plan-serving", config, "--memory-mb", f"{0.9 * least / 1e6}")[0] == 4

    code, served = said("run", str(tmp_path / "serve" / "config.yaml"), "--until", "index")
    assert code == 0
    (made,) = [row for row in served["stages"] if row["stage"] == "index"]
    assert [row["stage"] for row in served["stages"] if not row["hit"]] == ["index"]
    bundle = tmp_path / "store" / "index" / made["fingerprint"] / "bundle"
    facts = json.loads((bundle / "index.json").read_text())
    assert (facts["factory"], facts["params"]) == ("IVF8,SQ8", params)
    queries = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    for mine, theirs in zip(
        search(tmp_path / "serve" / "index.faiss", queries, 10, params),
        search(bundle / "index.faiss", queries, 10),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)
