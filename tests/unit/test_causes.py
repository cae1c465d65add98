"""A failure of the machine says what to do about it, whatever library met it."""

from __future__ import annotations

import errno

import pytest

from pipelines.causes import fix_of


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free space on that disk"),
        (PermissionError(errno.EACCES, "Permission denied"), "let this user read and write there"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "free space on that disk"),
        (RuntimeError("IoError(Os { code: 30, message: Read-only file system (os error 30) })"), "mount that file"),
        (MemoryError(), "more memory"),
        (ValueError("a shape"), None),
    ],
)
def test_what_the_system_said_has_a_fix(error: Exception, says: str | None) -> None:
    found = fix_of(error)
    assert found is None if says is None else says in (found or "")


def test_the_cause_of_an_error_counts() -> None:
    outer = RuntimeError("cannot write")
    outer.__cause__ = OSError(errno.EROFS, "Read-only file system")
    assert "can be written to" in (fix_of(outer) or "")
