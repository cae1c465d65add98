"""A run that is killed anywhere ends, by the same command, in the very bytes of one that was left alone."""

from __future__ import annotations

import json

import pytest

from recdistill.errors import ArtifactError
from recdistill.store import open_artifact, verify

TIMED = (
    "latency.json",
    "build_s",
    "scored_at",
    "seconds_per_epoch",
)  # what says when, or how long; all else is the same

# In the order of the path: the stage, and the rename before which the process dies. The rename to {fp} is the last of a
# stage, with everything written; the others leave it half done. The fingerprint tells the three fits apart.
KILLS = [
    ("ingest", r"/ingest/{fp}$"),
    ("split", r"/split/{fp}\.partial/lint\.json$"),
    ("scratch", r"/fit/{fp}\.partial/weights-16\.safetensors$"),
    ("scratch", r"/fit/{fp}\.partial/checkpoint-20$"),
    ("teacher", r"/fit/{fp}\.partial/curve\.json$"),
    ("teacher", r"/fit/{fp}$"),
    ("labels", r"/labels/{fp}\.partial/labels-00000\.arrow$"),
    ("labels", r"/labels/{fp}$"),
    ("student", r"/fit/{fp}\.partial/items\.npy$"),
    ("index", r"/index/{fp}$"),
    ("evaluate", r"/evaluate/{fp}\.partial/quality\.json$"),
    ("latency", r"/latency/{fp}$"),
]
KIND = {"scratch": "fit", "teacher": "fit", "student": "fit"}


@pytest.fixture(scope="module")
def ended(tiny, done):
    """Kill a run at each place of KILLS, one after the other in one store, and then let it end."""
    config = tiny.config("killed", registry=None)
    words = ("run", config, "--json", "--set", "exec.store=killed/store", "--set", "exec.checkpoint_every=2")
    left = []
    for stage, pattern in KILLS:
        fingerprint = done.stages[stage]["fingerprint"]
        process = tiny(*words, kill=pattern.replace("{fp}", fingerprint))
        left.append((stage, pattern, process.returncode, process.stderr[-2000:], half(tiny.home / "killed" / "store")))
    return left, tiny(*words)


def half(store):
    """Return what has the name of an artifact and is not a whole one."""
    found = []
    for path in store.glob("*/*"):
        if path.is_dir() and path.suffix != ".partial":
            try:
                verify(open_artifact(path))
            except ArtifactError as error:
                found.append(f"{path}: {error}")
    return found


def test_a_kill_leaves_no_half_artifact(ended):
    left, _ = ended
    assert [(s, p, code, said) for s, p, code, said, _ in left if code != -9] == []
    assert [broken for *_, broken in left if broken] == []


def test_the_same_command_ends_the_run(ended):
    _, process = ended
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize("stage", list(dict.fromkeys(stage for stage, _ in KILLS)))
def test_a_killed_run_ends_in_the_same_files(tiny, done, ended, stage):
    path = tiny.at(KIND.get(stage, stage), done.stages[stage])
    again = tiny.home / "killed" / "store" / path.relative_to(tiny.home / "runs" / "store")
    alone, killed = open_artifact(path).manifest, open_artifact(again).manifest
    for ours, theirs in ((killed.files, alone.files), (killed.facts, alone.facts)):
        assert ours.keys() == theirs.keys()
        assert [name for name in theirs if ours[name] != theirs[name] and name not in TIMED] == []


def test_what_is_left_of_a_killed_fit_is_a_plan_s_partial(tiny, done):
    config = tiny.config("partial", registry=None)
    fingerprint = done.stages["scratch"]["fingerprint"]
    words = (config, "--json", "--set", "exec.store=partial/store", "--set", "exec.checkpoint_every=2")
    process = tiny("run", *words, kill=rf"/fit/{fingerprint}\.partial/checkpoint-4$")
    assert process.returncode == -9
    partial = tiny.home / "partial" / "store" / "fit" / f"{fingerprint}.partial"
    assert (partial / "checkpoint-2" / "state.json").is_file()
    assert (partial / "checkpoint-4.tmp").is_dir()  # torn: written, and not yet given its name
    planned = tiny("plan", *words)
    assert planned.returncode == 0, planned.stderr
    states = {row["stage"]: row["state"] for row in json.loads(planned.stdout)["stages"]}
    assert (states["split"], states["scratch"], states["teacher"]) == ("hit", "partial", "miss")
