"""A failure of the machine says what to do about it, whatever library met it."""

from __future__ import annotations

import errno
import os

import pytest

from recdistill.causes import fix_of
from recdistill.data.files import reading
from recdistill.errors import DataError


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free space on that disk"),
        (PermissionError(errno.EACCES, "Permission denied"), "let this user read and write there"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "free space on that disk"),
        (RuntimeError("IoError(Os { code: 30, message: Read-only file system (os error 30) })"), "mount that file"),
        (OSError("988 requested and 0 written"), "free space on that disk"),
        (MemoryError(), "more memory"),
        (ValueError("a shape"), None),
    ],
)
def test_what_the_system_said_has_a_fix(error: Exception, says: str | None) -> None:
    found = fix_of(error)
    assert found is None if says is None else says in (found or "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EROFS])
def test_what_cannot_be_written_is_no_fault_of_the_log(number: int) -> None:
    """Rows that are read are written aside: polars says of both with the same words."""
    said = OSError(f"{os.strerror(number)} (os error {number})")
    with pytest.raises(OSError, match=os.strerror(number)), reading("log.parquet"):
        raise said
    with pytest.raises(DataError, match=r"log\.parquet: cannot be read: .*Permission"), reading("log.parquet"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_the_cause_of_an_error_counts() -> None:
    outer = RuntimeError("cannot write")
    outer.__cause__ = OSError(errno.EROFS, "Read-only file system")
    assert "can be written to" in (fix_of(outer) or "")
