"""What a person can do about a failure of the machine, where the failure says it: a full disk, a read-only one."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

AGAIN = "and run the same command again: it goes on from what is done"
SHORT = re.compile(r"\d+ requested and \d+ written")  # what numpy says where it could write no more
FIXES = {
    errno.ENOSPC: f"free space on that disk, {AGAIN}",
    errno.EDQUOT: f"free space within the quota, or have it raised, {AGAIN}",
    errno.EFBIG: f"raise the limit on the size of a file (ulimit -f), {AGAIN}",
    errno.EROFS: f"mount that file system so that it can be written to, or set exec.store to another, {AGAIN}",
    errno.EACCES: f"let this user read and write there, {AGAIN}",
    errno.EPERM: f"let this user write there, {AGAIN}",
    errno.EIO: f"have the disk looked at, {AGAIN}",
    errno.EMFILE: f"raise the limit on open files (ulimit -n), {AGAIN}",
    errno.ENOMEM: f"give it more memory, or run less beside it, {AGAIN}",
}


def errno_of(error: BaseException) -> int | None:
    """Return the number of the machine's failure behind `error`, or behind what caused it; None where it is none.

    Libraries in other languages pass on what the system said as words.
    """
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in FIXES:
            return cause.errno
        if isinstance(cause, MemoryError):
            return errno.ENOMEM
        said = str(cause)
        if SHORT.search(said):
            return errno.ENOSPC
        for number in FIXES:
            if f"os error {number})" in said or os.strerror(number) in said:
                return number
    return None


def fix_of(error: BaseException) -> str | None:
    """Return what to do about `error` where it is the machine's failure, else None."""
    number = errno_of(error)
    return None if number is None else FIXES[number]


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen = set[int]()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        yield found
        seen.add(id(found))
        found = found.__cause__ or found.__context__
