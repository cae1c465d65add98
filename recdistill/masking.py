"""What may be printed, stored or sent of a text that users or their data wrote: no password, nothing that steers."""

from __future__ import annotations

import re
import unicodedata

# Greedy up to the last @ of a word: a password may hold @ and / that its owner did not escape.
_USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/?#@'\"<>]*):[^\s'\"<>]*@")
_NAMED = re.compile(r"(?i)([?&;](?:[a-z0-9_]*(?:password|passwd|pwd|token|secret)|api_?key)=)[^\s&;'\"<>]*")
_KEPT = "\n\t"


def masked(text: str) -> str:
    """Return `text` without the passwords of the addresses in it, in the place of a user's or of a query's.

    >>> masked("recdistill run a.yaml --set exec.mlflow=postgresql://me:s3cr@t@db/m")
    'recdistill run a.yaml --set exec.mlflow=postgresql://me:***@db/m'
    """
    return _NAMED.sub(r"\1***", _USER.sub(r"\1:***@", text))


def printable(text: str) -> str:
    r"""Return `text` with escapes for what would move a terminal's cursor or turn its lines round.

    >>> printable("user \x1b[2J")
    'user \\x1b[2J'
    """
    odd = {c for c in text if c not in _KEPT and unicodedata.category(c) in ("Cc", "Cf", "Cs")}
    return "".join(c.encode("unicode_escape").decode() if c in odd else c for c in text) if odd else text
