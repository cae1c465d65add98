"""The base of every configuration value, and the canonical JSON its fingerprint is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen section of the configuration; an unknown key is an error, because ignoring it would be a lie."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def canonical(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces: equal values give equal text.

    >>> canonical({"k": [10, 20], "depth": 100}) == canonical({"depth": 100, "k": (10, 20)})
    True
    """

    def plain(v: Any) -> Any:
        if isinstance(v, BaseModel):
            return v.model_dump(mode="json")
        raise TypeError(f"not JSON: {type(v).__name__}")

    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=plain)


def fingerprint(stage: str, version: int, config: Mapping[str, Any] | Spec, inputs: Mapping[str, str]) -> str:
    """Return 32 hex digits that name the result of `stage` run with `config` on `inputs` (BLAKE2b).

    >>> fingerprint("split", 2, {"kind": "leave_last"}, {"ingest": "0" * 32})
    '6c169a608af3a337c2d18832525ee5b6'
    """
    text = canonical({"stage": stage, "version": version, "config": config, "inputs": dict(inputs)})
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
