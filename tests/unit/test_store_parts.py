"""Several processes fill one partial directory: none builds the whole while they do, and none does another's part."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recdistill.errors import ArtifactError
from recdistill.store import Step, build, part, state
from recdistill.world import World

STEP = Step("labels", 1, {"k": 1}, {"ingest": "aa"}, resumes=True)
HOLD = """
import sys
from pathlib import Path
from recdistill.store import Step, part

with part(Path(sys.argv[1]), Step("labels", 1, {"k": 1}, {"ingest": "aa"}, resumes=True), sys.argv[2]) as out:
    (out / sys.argv[2]).write_text("mine")
    (out / ".half.77.tmp").write_text("in the works")
    print("holding", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held(root: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """Keep a process that fills part `name` until the block ends, or the caller ends it."""
    home = Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLD, str(root), name]
    with subprocess.Popen(command, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "holding\n"
            yield process
        finally:
            process.kill()  # as kill -9: the system frees the lock
            process.wait(timeout=60)


def partial_of(root: Path) -> Path:
    return root / "labels" / f"{STEP.fingerprint}.partial"


def test_parts_are_filled_side_by_side_and_then_built(tmp_path: Path) -> None:
    with held(tmp_path, "1-of-2"):
        with part(tmp_path, STEP, "2-of-2") as out:
            assert out == partial_of(tmp_path)
            (out / "2-of-2").write_text("mine too")
        assert state(tmp_path, STEP) == "partial"
        with (
            pytest.raises(ArtifactError, match="another process is filling part 1-of-2 of this artifact"),
            part(tmp_path, STEP, "1-of-2"),
        ):
            pass
        with pytest.raises(ArtifactError, match="another process is filling part 1-of-2") as refused:
            build(tmp_path, World(), STEP, lambda _: None)
        assert refused.value.exit_code == 5
        assert (partial_of(tmp_path) / ".half.77.tmp").is_file()  # of one who is still at work
    built = build(tmp_path, World(), STEP, lambda _: None)
    assert set(built.manifest.files) == {"1-of-2", "2-of-2"}
    assert [path.name for path in tmp_path.glob("labels/*.part")] == []
    with part(tmp_path, STEP, "1-of-2") as out:
        assert out is None
    assert not partial_of(tmp_path).exists()


def test_a_part_waits_for_no_one_who_builds_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recdistill.store.PATIENCE", 0)

    def work(_: Path) -> None:
        with (
            pytest.raises(ArtifactError, match="another process is building this artifact"),
            part(tmp_path, STEP, "1-of-2"),
        ):
            pass

    build(tmp_path, World(), STEP, work)
