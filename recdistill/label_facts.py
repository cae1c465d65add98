"""What labels.json says of a label store: text that anybody may have written, until every part of it was checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from recdistill.errors import ArtifactError

FACTS = "labels.json"
REBUILD = "delete the directory and run the same command again"
LONGEST = 1 << 31  # of a list, which Arrow counts in 32 bits
MOST = 1 << 53  # users or items


def read_facts(path: Path) -> Mapping[str, Any]:
    """Return what labels.json says; raises ArtifactError if it is missing or malformed."""
    file = path / FACTS
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        assert all(type(facts[name]) is int for name in ("num_users", "num_items", "depth", "per_shard", "rest"))
        assert 0 < facts["per_shard"] < MOST, "a shard of no length"
        assert 0 < facts["depth"] < LONGEST, "a list of no length"
        assert 0 <= facts["rest"] < LONGEST, "fewer than none"
        assert 0 <= facts["num_users"] < MOST, "fewer than none"
        assert 0 <= facts["num_items"] < MOST, "fewer than none"
        assert facts["precision"] in ("f32", "f16")
        assert len(facts["along"]) == 3
        assert all(type(n) is int and n >= 0 for n in facts["along"])
        assert prod(facts["along"]) < LONGEST
        assert all(isinstance(said, str) for said in facts["stamp"].values())
    except FileNotFoundError:
        raise ArtifactError(f"not a label store: there is no {FACTS}", where=str(path), fix=REBUILD) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as cause:
        raise ArtifactError(f"cannot be read ({cause!r})", where=str(file), fix=REBUILD) from cause
    return facts
