"""How many bytes a server must hold to answer: of a student and of its teacher, counted alike.

Arrays as they lie in memory (a table of fewer bits as it is kept), an index as its file, an id 8 bytes, and 8 more than
its letters where it is text. What a language or a library adds to that is left out on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recdistill import serve


def id_bytes(ids: Iterable[Any]) -> int:
    """Return the bytes of user_ids or item_ids."""
    return sum(8 + (len(i.encode()) if isinstance(i, str) else 0) for i in ids)


def bundle_held(bundle: serve.Bundle, index: Path) -> dict[str, int]:
    """Return the bytes of each part that a server of `bundle` over the file `index` holds."""
    found = {
        "query": (bundle.path / "query.safetensors").stat().st_size,
        "index": index.stat().st_size,
        "ids": id_bytes(bundle.user_row) + id_bytes(bundle.item_ids),
        "popular": bundle.popular.nbytes,
        "histories": 0 if bundle.offsets is None or bundle.past is None else bundle.offsets.nbytes + bundle.past.nbytes,
        "gate": 0 if bundle.deferral is None else bundle.deferral.popularity.nbytes,
    }
    return {part: size for part, size in found.items() if size}


def total(held: Mapping[str, int]) -> int:
    """Return the bytes of all parts."""
    return sum(held.values())
