"""A small soak in every run of the tests, and that the soak itself would see what is lost. The long one: make soak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import kinds
from children import Ended
from scene import Scene, made

FAULTS = 24
REFUSED = Ended(5, "error: runs/store/a: contents differ\n  fix: delete the directory", 0.1)


def test_a_pipeline_that_is_struck_ends_in_the_same_artifacts(tmp_path: Path) -> None:
    words = ["--short", "--seed", "7", "--count", str(FAULTS), "--out", str(tmp_path)]
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run(
        [sys.executable, Path(__file__).with_name("soak.py"), *words],
        capture_output=True,
        text=True,
        env=env,
        timeout=250,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    tried = json.loads((tmp_path / "seed-7.json").read_text())
    assert len(tried) == FAULTS
    assert {one["kind"].split()[0] for one in tried} == {"kill", "damaged", "write"}
    assert {one["stage"] for one in tried} == {"ingest", "split"}
    assert {one["came"] for one in tried} == {"survived", "refused"}
    assert f"| **all** | | {FAULTS} |" in (tmp_path / "seed-7.md").read_text()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch) -> Scene:
    """A scene whose only artifact is what it should be; `ends` is how its commands end, one after the other."""
    scene = Scene(tmp_path / "home", tmp_path / "snaps")
    artifact = scene.home / "runs" / "store" / "split" / "ab"
    artifact.mkdir(parents=True)
    (artifact / "rows.arrow").write_bytes(b"rows")
    manifest = {"facts": {"rows": 4}, "files": {}, "created_at": "today", "seconds": 1.0}
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    scene.whole["split"] = made(scene.home)
    return scene


def ends(monkeypatch, *how: Ended) -> None:
    left = list(how)
    monkeypatch.setattr(Scene, "run", lambda *_, **__: [left.pop(0)])


def came(scene: Scene, first: Ended | None = None) -> str:
    return kinds.again(scene, "split", first, kinds.no_matter)[0]


def test_what_ends_the_same_survived(scene, monkeypatch) -> None:
    file = scene.home / "runs" / "store" / "split" / "ab" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"created_at": "tomorrow", "seconds": 9.0}))
    ends(monkeypatch, Ended(0, "", 0.1))
    assert came(scene, Ended(-9, "", 0.1)) == "survived"


def test_what_was_refused_with_a_reason_and_ends_the_same_was_refused(scene, monkeypatch) -> None:
    ends(monkeypatch, REFUSED, Ended(0, "", 0.1))
    assert came(scene) == "refused"


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (Ended(1, "error: unexpected KeyError: 'a'\n  fix: report it", 0.1), "an error that nobody foresaw"),
        (Ended(1, "Traceback (most recent call last):", 0.1), "a traceback"),
        (Ended(1, "", 0.1), "no reason"),
        (Ended(2, "error: odd", 0.1), "a code that is none of a refusal"),
    ],
)
def test_an_end_without_a_reason_is_a_loss(scene, monkeypatch, first, why) -> None:
    assert came(scene, first) == "lost", why


def test_a_command_that_never_ends_well_is_a_loss(scene, monkeypatch) -> None:
    ends(monkeypatch, *[REFUSED] * kinds.PATIENCE)
    assert came(scene) == "lost"


@pytest.mark.parametrize("name", ["split/ab/rows.arrow", "split/ab/more.arrow", "fit/cd.partial/state.json"])
def test_an_artifact_that_differs_is_a_loss(scene, monkeypatch, name) -> None:
    file = scene.home / "runs" / "store" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"rowS")
    ends(monkeypatch, Ended(0, "", 0.1))
    assert came(scene) == "lost"


def test_a_fact_that_differs_is_a_loss(scene, monkeypatch) -> None:
    file = scene.home / "runs" / "store" / "split" / "ab" / "manifest.json"
    file.write_text(file.read_text().replace("4", "5"))
    ends(monkeypatch, Ended(0, "", 0.1))
    assert came(scene) == "lost"
