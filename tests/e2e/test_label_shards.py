"""Labels by several machines: processes that each write a share of one store, stopped and mixed up in between."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from pipelines.__main__ import main
from recdistill.store import open_artifact, verify

MF = {"model": {"kind": "mf", "dim": 8}, "train": {"epochs": 1, "batch": 512, "negatives": 64}}
SECTIONS = {
    "features": None,
    "registry": None,
    "teacher": MF,
    "student": {"model": {"kind": "mf", "dim": 4}, "train": {"epochs": 1, "batch": 512, "negatives": 64}},
    "labels": {"depth": 10, "shard_users": 30, "rest": 4},  # 200 users: seven shards
    "distill": [{"kind": "list", "weight": 1.0, "draw": [{"kind": "top", "k": 10}], "loss": {"kind": "softmax_kl"}}],
    "report": {"k": [10], "metrics": ["ndcg"], "bootstrap": 50},
}


def said(process, code=0):
    assert process.returncode == code, process.stdout + process.stderr
    return json.loads(process.stdout)


@pytest.fixture(scope="module")
def alone(tiny):
    """Labels of one process, and the store before them, which each test has for itself."""
    config = tiny.config("sharded", **SECTIONS)
    said(tiny("run", config, "--until", "teacher", "--json"))
    for name in ("several", "struck", "foreign", "old"):
        shutil.copytree(tiny.home / "runs" / "store", tiny.home / name / "store")
    outcome = said(tiny("label", config, "--json"))
    row = next(row for row in outcome["stages"] if row["stage"] == "labels")
    return SimpleNamespace(config=config, path=tiny.at("labels", row), fingerprint=row["fingerprint"])


def label(tiny, alone, name, *words, kill=None, code=0):
    """Label in the store `name`; return what the command says, or of a killed one nothing."""
    process = tiny("label", alone.config, "--json", "--set", f"exec.store={name}/store", *words, kill=kill)
    return said(process, code) if kill is None else process.returncode


def bytes_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "manifest.json"}


def half(tiny, name, alone):
    return tiny.home / name / "store" / "labels" / f"{alone.fingerprint}.partial"


def test_shares_of_several_processes_make_the_same_labels(tiny, alone):
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda share: label(tiny, alone, "several", "--shard", share), ["1/2", "2/2"]))
    assert [b["labels"]["written"] for b in both] == [[0, 2, 4, 6], [1, 3, 5]]
    assert [b["labels"]["shards"] for b in both] == [7, 7]
    assert (tiny.home / both[0]["labels"]["path"]) == half(tiny, "several", alone)
    whole = label(tiny, alone, "several", "--finalize")["labels"]
    assert not whole["hit"]
    path = tiny.home / whole["path"]
    verify(open_artifact(path))
    assert bytes_of(path) == bytes_of(alone.path)
    ours, theirs = open_artifact(path).manifest, open_artifact(alone.path).manifest
    assert (ours.files, ours.fingerprint) == (theirs.files, theirs.fingerprint)
    # And from here on there is nothing left to do: neither for a run nor for a share that comes late.
    plan = said(tiny("plan", alone.config, "--json", "--set", "exec.store=several/store"))
    assert next(row for row in plan["stages"] if row["stage"] == "labels")["state"] == "hit"
    assert label(tiny, alone, "several")["labels"]["hit"]
    assert label(tiny, alone, "several", "--shard", "1/2")["labels"]["hit"]
    assert not half(tiny, "several", alone).exists()


def test_a_killed_share_goes_on_and_the_end_waits_for_it(tiny, alone):
    assert label(tiny, alone, "struck", "--shard", "1/2", kill=r"partial/labels-00004\.arrow$") == -9
    there = half(tiny, "struck", alone)
    assert sorted(file.name for file in there.glob("labels*")) == ["labels-00000.arrow", "labels-00002.arrow"]
    assert len(list(there.glob(".labels-00004*.tmp"))) == 1
    before = {file.name: file.stat().st_mtime_ns for file in there.glob("labels*")}

    refused = label(tiny, alone, "struck", "--finalize", code=5)
    assert "5 of 7 shards are missing: 1, 3-6" in refused["error"]
    assert "--shard i/n" in refused["error"]

    assert label(tiny, alone, "struck", "--shard", "1/2")["labels"]["written"] == [4, 6]
    assert {name: (there / name).stat().st_mtime_ns for name in before} == before
    assert "3 of 7 shards are missing: 1, 3, 5" in label(tiny, alone, "struck", "--finalize", code=5)["error"]
    # What is left is done by a plain run, which also finishes.
    outcome = said(tiny("run", alone.config, "--json", "--set", "exec.store=struck/store", "--until", "labels"))
    path = tiny.at("labels", outcome["stages"][-1], "struck/store")
    assert bytes_of(path) == bytes_of(alone.path)


def test_a_shard_of_other_labels_is_no_part_of_these(tiny, alone):
    """As when files of two runs are gathered in the wrong directory."""
    said(tiny("label", alone.config, "--shard", "1/1", "--json", "--set", "exec.store=foreign/store"))
    process = tiny(
        *("label", alone.config, "--json", "--shard", "1/1"),
        *("--set", "exec.store=foreign/store", "--set", "teacher.train.seed=9"),
    )
    other = tiny.home / said(process)["labels"]["path"]
    ours = half(tiny, "foreign", alone)
    shutil.copy(other / "labels-00003.arrow", ours / "labels-00003.arrow")
    mine = (alone.path / "labels-00003.arrow").read_bytes()
    for words in (("--finalize",), ("--shard", "4/7"), ()):
        refused = label(tiny, alone, "foreign", *words, code=5)
        assert "labels-00003.arrow: a shard of other labels: it is of step" in refused["error"]
        assert f"where step {alone.fingerprint} is expected" in refused["error"]
        assert "delete this file" in refused["error"]
    (ours / "labels-00003.arrow").unlink()
    assert label(tiny, alone, "foreign", "--shard", "4/7")["labels"]["written"] == [3]
    path = tiny.home / label(tiny, alone, "foreign", "--finalize")["labels"]["path"]
    assert (path / "labels-00003.arrow").read_bytes() == mine
    assert bytes_of(path) == bytes_of(alone.path)


def test_labels_older_than_their_time_are_refused(tiny, alone):
    """The limit is no part of what labels are: it may be named, changed and dropped over the same store."""
    fresh = label(tiny, alone, "old", "--set", "labels.ttl_days=1")["labels"]
    assert (fresh["hit"], fresh["path"]) == (False, f"old/store/labels/{alone.fingerprint}")
    manifest = tiny.home / fresh["path"] / "manifest.json"
    found = json.loads(manifest.read_text())
    found["facts"]["scored_at"] = "2026-01-02T00:00:00+00:00"
    del found["digest"]  # as of a manifest from before it had one
    manifest.write_text(json.dumps(found))
    for command in ("run", "label"):
        words = (command, alone.config, "--json", "--set", "exec.store=old/store", "--set", "labels.ttl_days=2.5")
        refused = said(tiny(*words), 5)["error"]
        assert "the labels were scored at 2026-01-02T00:00:00+00:00" in refused
        assert "labels.ttl_days is 2.5" in refused
    assert label(tiny, alone, "old")["labels"]["hit"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--shard", "3/2"), "'3/2' names no share"),
        (("--shard", "1"), "write i/n with i from 1 to n"),
        (("--shard", "1/2", "--finalize"), "--shard and --finalize exclude each other"),
        (("--set", "distill=[]", "--set", "report.k=[10]"), "labels: has no effect without distill"),
    ],
)
def test_what_cannot_be_labelled(tiny, alone, words, says, monkeypatch, capsys):
    monkeypatch.chdir(tiny.home)
    assert main(["label", alone.config, "--json", "--set", "exec.store=several/store", *words]) == 2
    assert says in json.loads(capsys.readouterr().out)["error"]


def test_a_configuration_without_distillation_has_no_labels(tiny, monkeypatch, capsys):
    monkeypatch.chdir(tiny.home)
    config = tiny.config("undistilled", **SECTIONS | {"labels": None, "distill": None})
    assert main(["label", config, "--json"]) == 2
    assert "there is nothing to label" in json.loads(capsys.readouterr().out)["error"]
