"""A password in an address is in nothing that a command prints, and in nothing that a run stores."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines import assembled
from pipelines.__main__ import main
from recdistill.config import load_config
from recdistill.report import html, markdown, model_card

URI, SAID = "postgresql://me:s3c/r@t@db.invalid/m", "postgresql://me:***@db.invalid/m"
ROOT = Path(__file__).parents[2]
QUICK = str(ROOT / "configs/quickstart.yaml")


@pytest.mark.parametrize(
    "words",
    [
        ["check", QUICK, "--set", f"exec.mlflow={URI}", "--json"],
        ["check", QUICK, "--set", f"exec.mlflow={URI}", "--set", f"exec.mlfow={URI}"],
        ["check", QUICK, "--set", f"log={URI}", "--json"],
        ["check", QUICK, "--set", f"log={URI.replace('t@', 't' * 60 + '@')}", "--json"],
        ["check", QUICK, "--set", f"exec={URI}", "--debug"],
        ["check", QUICK, "--nothing", URI],
    ],
)
def test_no_command_prints_it(words, capsys):
    main(words)
    said = "".join(capsys.readouterr())
    assert "s3c" not in said
    assert "r@t" not in said
    assert said
    assert (SAID in said) == ("log=" in str(words) or words[-1] in ("--json", "--debug"))


def test_no_report_holds_it(monkeypatch):
    made = SimpleNamespace(manifest=SimpleNamespace(facts={}, created_at="2026-01-01"), fingerprint="ab" * 16)
    quality = {"quality": [], "gap_closed": [], "student_minus_scratch": [], "users": 1, "users_without_test": 0}
    read = quality | {"latency": [], "latency_environment": {}, "params": ""}
    monkeypatch.setattr(assembled, "read_json", lambda _, name: [] if name == "curve.json" else dict(read))
    monkeypatch.setattr(assembled, "noise_warning", lambda _: "")
    fitted = [SimpleNamespace(artifact=made)]
    judged = SimpleNamespace(scratch=fitted, student=fitted, labels=None, index=made)
    judged.teacher = SimpleNamespace(models=[], recipe=None)
    data = SimpleNamespace(divided=made, ingested=made)
    everything = assembled.Everything(data=data, judged=judged, evaluated=made, timed=made)
    config = load_config(Path(QUICK), [f"exec.mlflow={URI}"])
    command = f"recdistill run configs/quickstart.yaml --set exec.mlflow={URI}"
    report = assembled.assemble(config, everything, [], command)
    assert report["command"] == f"recdistill run configs/quickstart.yaml --set exec.mlflow={SAID}"
    for text in (json.dumps(report, default=str), markdown(report), html(report), model_card(report)):
        assert "s3c" not in text
        assert "r@t" not in text
