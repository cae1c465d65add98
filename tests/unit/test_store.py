"""The artifact store: the states of a directory, and what a failure leaves."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from recdistill.errors import ArtifactError, DataError
from recdistill.spec import canonical, fingerprint
from recdistill.store import Step, aside, build, directory, open_artifact, state, verify, write_text
from recdistill.types import Artifact
from recdistill.world import World

ALONE = Step("split", 1, {"k": 1}, {"ingest": "aa"})
RESUMING = Step("fit", 1, {"k": 1}, {"ingest": "aa"}, resumes=True)


def write_two(out: Path) -> dict[str, int]:
    (out / "a.txt").write_text("alpha")
    (out / "deep").mkdir(exist_ok=True)
    (out / "deep" / "b.bin").write_bytes(bytes(range(10)))
    return {"rows": 3}


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return build(tmp_path, World(), ALONE, write_two)


def partial_of(root: Path, step: Step) -> Path:
    return directory(root, step).with_suffix(".partial")


def test_a_fingerprint_is_the_hash_of_what_made_the_artifact() -> None:
    text = '{"config":{"k":1},"inputs":{"ingest":"aa"},"stage":"split","version":1}'
    assert ALONE.fingerprint == hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    assert ALONE.fingerprint == "0285d4d0301ed7069b1f0b988c8eda01"
    assert (
        fingerprint("fit", 2, {"b": [1, None], "a": 0.1}, {}) == "77a4d1bfce7092410762fefb4fcb65da"
    )  # keys in any order
    assert fingerprint("fit", 2, {"a": 0.1, "b": [1, None]}, {}) == "77a4d1bfce7092410762fefb4fcb65da"


def test_every_part_of_a_step_counts() -> None:
    others = [
        Step("splits", 1, {"k": 1}, {"ingest": "aa"}),
        Step("split", 2, {"k": 1}, {"ingest": "aa"}),
        Step("split", 1, {"k": 1.5}, {"ingest": "aa"}),
        Step("split", 1, {"k": 1}, {"ingest": "ab"}),
        Step("split", 1, {"k": 1}, {"other": "aa"}),
    ]
    assert len({step.fingerprint for step in [ALONE, *others]}) == 6
    # How a stage runs is not what it means.
    assert Step("split", 1, {"k": 1}, {"ingest": "aa"}, True, True).fingerprint == ALONE.fingerprint


def test_canonical_json_refuses_what_has_no_one_text() -> None:
    assert canonical({"b": "\u00e9", "a": [True, None]}) == '{"a":[true,null],"b":"\\u00e9"}'
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})
    with pytest.raises(TypeError, match="not JSON: set"):
        canonical({"a": {1}})


def test_miss_then_hit(tmp_path: Path) -> None:
    assert state(tmp_path, ALONE) == "miss"
    calls: list[Path] = []

    def work(out: Path) -> dict[str, int]:
        calls.append(out)
        return write_two(out)

    built = build(tmp_path, World(), ALONE, work)
    found = build(tmp_path, World(), ALONE, work)
    assert (built.hit, found.hit, len(calls)) == (False, True, 1)
    assert state(tmp_path, ALONE) == "hit"
    assert built.path == tmp_path / "split" / ALONE.fingerprint
    assert calls == [partial_of(tmp_path, ALONE)]
    assert not calls[0].exists()


def test_the_manifest_says_what_is_there(artifact: Artifact) -> None:
    raw = json.loads((artifact.path / "manifest.json").read_text())
    assert raw["files"] == {
        "a.txt": {"sha256": hashlib.sha256(b"alpha").hexdigest(), "size": 5},
        "deep/b.bin": {"sha256": hashlib.sha256(bytes(range(10))).hexdigest(), "size": 10},
    }
    assert (raw["stage"], raw["version"], raw["format"]) == ("split", 1, 1)
    assert (raw["config"], raw["inputs"], raw["facts"]) == ({"k": 1}, {"ingest": "aa"}, {"rows": 3})
    assert raw["env"]["processes"] == "1"
    assert open_artifact(artifact.path).manifest.facts == {"rows": 3}


def failing(out: Path) -> None:
    (out / "begun.txt").write_text("half")
    raise DataError("bad row", where="log")


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        build(tmp_path, World(), ALONE, failing)
    assert state(tmp_path, ALONE) == "miss"
    assert not partial_of(tmp_path, ALONE).exists()
    assert not build(tmp_path, World(), ALONE, write_two).hit  # and the lock is free


def test_a_resuming_step_keeps_what_it_began(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        build(tmp_path, World(), RESUMING, failing)
    assert state(tmp_path, RESUMING) == "partial"

    def goes_on(out: Path) -> None:
        assert (out / "begun.txt").read_text() == "half"

    assert set(build(tmp_path, World(), RESUMING, goes_on).manifest.files) == {"begun.txt"}
    assert state(tmp_path, RESUMING) == "hit"


def test_a_step_that_does_not_resume_begins_again(tmp_path: Path) -> None:
    """What kill -9 leaves: a partial directory, here with a file that the work does not write."""
    partial = partial_of(tmp_path, ALONE)
    partial.mkdir(parents=True)
    (partial / "stale.txt").write_text("old")
    assert state(tmp_path, ALONE) == "miss"
    assert set(build(tmp_path, World(), ALONE, write_two).manifest.files) == {"a.txt", "deep/b.bin"}


@pytest.mark.parametrize("stale", ["manifest.json", ".b.txt.123.tmp", "manifest.json and .manifest.json.123.tmp"])
def test_a_resumed_artifact_holds_no_leftovers_of_the_store_itself(tmp_path: Path, stale: str) -> None:
    """A kill between the manifest and the rename, or inside `aside`, leaves files that are not the stage's."""
    partial = partial_of(tmp_path, RESUMING)
    partial.mkdir(parents=True)
    for name in stale.split(" and "):
        (partial / name).write_text("{}")
    built = build(tmp_path, World(), RESUMING, write_two)
    assert set(built.manifest.files) == {"a.txt", "deep/b.bin"}
    verify(open_artifact(built.path))


HOLD = """
import sys
from pathlib import Path
from recdistill.store import Step, build
from recdistill.world import World

def work(out):
    print("holding", flush=True)
    sys.stdin.readline()

build(Path(sys.argv[1]), World(), Step("split", 1, {"k": 1}, {"ingest": "aa"}), work)
"""


def test_a_second_writer_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "holding\n"
            with pytest.raises(ArtifactError, match="another process is building") as refused:
                build(tmp_path, World(), ALONE, write_two)
            assert refused.value.exit_code == 5
            assert partial_of(tmp_path, ALONE).is_dir()  # the holder's work was not touched
        finally:
            holder.kill()  # as kill -9: the system frees the lock
            holder.wait(timeout=60)
    assert not build(tmp_path, World(), ALONE, write_two).hit


def test_aside_renames_a_whole_file_and_removes_a_half_one(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    write_text(file, "one")

    def fail() -> None:
        with aside(file) as temporary:
            temporary.write_text("tw")
            assert file.read_text() == "one"
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert file.read_text() == "one"
    assert list(tmp_path.iterdir()) == [file]
    write_text(file, "two")
    assert file.read_text() == "two"
