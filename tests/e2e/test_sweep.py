"""Two methods on one small log by the command line: a table, found done the second time, and a method that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.sweep_table import SHOWN

ENCODER = {
    "features": None,
    "registry": None,
    "teacher": {"model": {"kind": "mf", "dim": 16}, "train": {"epochs": 3, "batch": 512, "negatives": 64}},
    "student": {
        "model": {"kind": "mf", "dim": 4},
        "train": {"epochs": 2, "batch": 512, "negatives": 64, "list_users": 64},
    },
}
ASKED = ("--methods", "rrd,kd,./broken.yaml", "--seeds", "1,2", "--tune", "0.5,1", "--out", "swept")
BROKEN = """\
title: Broken
paper: nobody's
transfers: nothing
reference: none
cost: none
set:
  distill:
    - {kind: list, weight: 1.0, draw: [{kind: ranked, k: 4000}], loss: {kind: plackett_luce}}
"""


@pytest.fixture(scope="module")
def swept(tiny):
    labels = {"depth": 50}
    config = tiny.config("sweep", **ENCODER, labels=labels, exec={"store": "runs/swept", "device": "cpu", "threads": 1})
    (tiny.home / "broken.yaml").write_text(BROKEN)
    presets = tiny.home / "configs" / "methods"
    presets.mkdir(parents=True, exist_ok=True)
    for name, loss in (("rrd", "plackett_luce"), ("kd", "softmax_kl")):
        text = BROKEN.replace("4000", "20").replace("plackett_luce", loss)
        (presets / f"{name}.yaml").write_text(text)
    first = tiny("sweep", config, *ASKED, "--json")
    assert first.returncode == 0, first.stderr
    return config, json.loads(first.stdout)


def test_a_sweep_gives_one_row_a_model(tiny, swept) -> None:
    rows = {row["model"]: row for row in swept[1]["rows"]}
    assert list(rows) == ["teacher", "scratch", "rrd", "kd", "broken"]
    assert rows["broken"]["reason"].endswith("raise labels.depth")
    for name in ("rrd", "kd"):
        row = rows[name]
        assert row["factor"] in (0.5, 1.0)
        assert len(row["tuned"]) == 2
        assert len(set(row["fits"])) == 2
        mean = row["metrics"]["ndcg@10"] - rows["scratch"]["metrics"]["ndcg@10"]
        told = row["difference"]["ndcg@10"]
        assert told["difference"] == pytest.approx(mean)
        assert told["low"] <= told["difference"] <= told["high"]
        assert row["seed_spread"]["ndcg@10"] >= 0
        assert set(row["metrics"]) == {f"{name}@10" for name in SHOWN}
    folder = tiny.home / "swept"
    assert json.loads((folder / "sweep.json").read_text()) == swept[1]
    table = (folder / "sweep.md").read_text().splitlines()
    assert sum(line.startswith("|") for line in table) == 2 + len(rows)


def test_methods_with_the_same_labels_share_one_store(tiny, swept) -> None:
    assert len(whole(tiny.home / "runs" / "swept" / "labels")) == 1
    assert len(whole(tiny.home / "runs" / "swept" / "fit")) == 1 + 2 + 2 * 3  # teacher, scratch, two factors and a seed


def test_a_second_sweep_trains_nothing_and_says_the_same(tiny, swept) -> None:
    config, first = swept
    again = tiny("sweep", config, *ASKED, "--json")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["built"], told["found"]) == (0, 6)
    assert told["rows"] == first["rows"]


def test_what_is_missing_is_made_in_two_processes_and_nothing_else(tiny, swept) -> None:
    config, _ = swept
    words = ("--methods", "rrd,kd", "--seeds", "1,2", "--tune", "3", "--jobs", "2", "--out", "more")
    done = tiny("sweep", config, *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["model", "loss", "dim"]
    assert [line.split()[0] for line in lines[1:5]] == ["teacher", "scratch", "rrd", "kd"]
    assert lines[5] == "fits: 2 found done, 4 built"


def test_an_unknown_method_is_refused_before_anything_is_done(tiny) -> None:
    done = tiny("sweep", tiny.config("none", **ENCODER), "--methods", "rdd")
    assert done.returncode == 2
    assert "no method 'rdd'" in done.stderr


def whole(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if (path / "manifest.json").is_file()]
