"""What the commands say: results on stdout, problems on stderr, one JSON object for a scheduler."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Annotated, Any, TextIO

from cyclopts import Parameter

from recdistill.causes import fix_of
from recdistill.errors import ConfigError, RecdistillError
from recdistill.masking import masked, printable

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object.")]
INTERRUPTED = 130  # what shells report for control-C
_kept: ContextVar[TextIO | None] = ContextVar("stdout", default=None)


def speaks() -> bool:
    """Say whether this process is the one of its peers that talks to the user."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def only_results() -> Iterator[None]:
    """Keep stdout for `say` inside the block; what libraries print there goes to stderr."""
    token = _kept.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.reset(token)


def say(data: Any, text: str, *, as_json: bool) -> None:
    """Print a command's result: `data` as the only JSON object on stdout, or `text`; no password of an address."""
    if speaks():
        said = masked(json.dumps(data, indent=2, default=str) if as_json else text)
        print(said, file=_kept.get() or sys.stdout, flush=True)


def complain(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """Print what went wrong, once, and return the exit code that names its kind."""
    known = isinstance(error, RecdistillError)
    code = error.exit_code if isinstance(error, RecdistillError) else 1
    if isinstance(error, KeyboardInterrupt):
        code, text = INTERRUPTED, "interrupted; the same command goes on from what is done"
    elif known:
        text = str(error)
    else:
        fix = fix_of(error) or "add --debug to see where, and report it"
        text = f"unexpected {type(error).__name__}: {error}\n  fix: {fix}"
    text = printable(masked(text))
    if debug and speaks():
        print(printable(masked("".join(traceback.format_exception(error)))), end="", file=sys.stderr)
    if as_json:
        say({"error": text, "kind": type(error).__name__, "exit_code": code, **_details(error)}, "", as_json=True)
    elif speaks():
        print(f"error: {text}" if "\n" not in text or not isinstance(error, ConfigError) else text, file=sys.stderr)
    if not speaks() and code == 1 and not getattr(error, "shared", False):
        # What befell this rank alone, which may be all that is ever heard of it: rank 0 only sees it go.
        print(f"rank {os.environ['RANK']}: error: {text}", file=sys.stderr)
    return code


def table(rows: Iterable[Sequence[Any]], head: Sequence[str]) -> str:
    """Return `rows` under `head` as columns of text that line up; a tab or newline in a cell becomes a space."""
    cells = [list(map(str, head)), *([" ".join(printable(str(cell)).split()) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _details(error: BaseException) -> dict[str, Any]:
    if isinstance(error, ConfigError):
        return {"problems": [{"where": p.where, "path": p.path, "reason": p.reason} for p in error.problems]}
    return {"reasons": reasons} if (reasons := getattr(error, "reasons", None)) else {}
