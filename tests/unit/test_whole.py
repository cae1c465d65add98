"""Files that are whole or not there: what is flushed before a name is given, and what tells of a write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recdistill import whole


def test_everything_is_on_the_disk_before_a_directory_gets_its_name(tmp_path: Path, monkeypatch) -> None:
    partial = tmp_path / "x.partial"
    (partial / "deep" / "er").mkdir(parents=True)
    for name in ("a", "deep/b", "deep/er/c"):
        (partial / name).write_text(name)
    events: list[str] = []
    flush, rename = os.fsync, os.replace

    def fsync(file: int) -> None:
        events.append(os.path.relpath(os.readlink(f"/proc/self/fd/{file}"), tmp_path))
        flush(file)

    def replace(source: Path, target: Path) -> None:
        events.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    whole.publish(partial, tmp_path / "x")
    at = events.index("renamed")
    files = {"a", "deep", "deep/b", "deep/er", "deep/er/c"}
    assert set(events[:at]) == {f"x.partial/{name}" for name in files} | {"x.partial"}
    assert events[at + 1 :] == ["."]  # and the name itself
    assert (tmp_path / "x" / "deep" / "er" / "c").read_text() == "deep/er/c"


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    path = tmp_path / "artifact"
    path.mkdir()
    (path / "a.bin").write_bytes(b"alpha")
    whole.note(path)
    return path


def test_what_nobody_wrote_to_is_untouched(noted: Path) -> None:
    assert whole.untouched(noted)
    (noted / "a.bin").read_bytes()
    assert whole.untouched(noted)


def test_a_byte_that_was_written_and_dated_back_is_a_touch(noted: Path) -> None:
    file = noted / "a.bin"
    before = file.stat()
    with file.open("r+b") as handle:
        handle.write(b"b")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert not whole.untouched(noted)


@pytest.mark.parametrize("text", [None, "", "\x00\xff", "a.bin 1 5 0 0"])
def test_a_note_that_is_gone_or_torn_says_nothing(noted: Path, text: str | None) -> None:
    file = noted.with_suffix(whole.STAMP)
    file.unlink()
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    assert not whole.untouched(noted)
