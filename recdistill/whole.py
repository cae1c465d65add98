"""Files that are whole or not there: written aside, flushed, then renamed; and whether one is still what it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STAMP, SIGNED = ".stat", ".sha256"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` whole or not at all: aside, flushed, then renamed."""
    with aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        fsync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sign(path: Path, written: Path) -> None:
    """Leave the hash of what was `written` aside beside `path`, before it gets that name."""
    write_text(signature(path), sha256(written))


def signature(path: Path) -> Path:
    """Return where the hash of a file lies while its directory is not whole; its manifest has it then."""
    return path.with_name(f".{path.name}{SIGNED}")


def fsync(path: Path) -> None:
    """Return when a file's bytes, or a directory's names, are on the disk, as far as the disk tells the truth."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(partial: Path, path: Path) -> None:
    """Give the directory `partial` the name `path` once all that it holds is on the disk.

    A name that outlives a power cut before the bytes behind it do would be an empty file with a whole one's name.
    """
    flush(partial)
    os.replace(partial, path)
    fsync(path.parent)


def flush(folder: Path) -> None:
    """Return when all that a directory holds is on the disk, and all names in it."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync(Path(place) / name)
        fsync(Path(place))


def note(path: Path) -> None:
    """Remember of the directory `path`, whose files were just hashed, what the file system says of each of them."""
    with suppress(OSError):  # a store that cannot be written to is hashed again each time
        write_text(path.with_suffix(STAMP), _told(path))


def untouched(path: Path) -> bool:
    """Say whether nothing was written to the directory `path` since `note`.

    Every write changes a file's time of change, which nobody can set. What the medium loses by itself changes nothing:
    that is found where everything is hashed again.
    """
    try:
        return path.with_suffix(STAMP).read_text(encoding="utf-8") == _told(path)
    except (OSError, ValueError):
        return False


def _told(path: Path) -> str:
    lines = []
    for file in sorted(path.rglob("*")):
        if file.is_file():
            s = file.stat()
            lines.append(f"{file.relative_to(path)} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}")
    return "\n".join(lines)
