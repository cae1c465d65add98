"""All ways in, and the inputs that once ended as none before them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import targets_artifacts
import targets_config
import targets_tables
from drive import Target

Maker = Callable[[Path], Target]
MAKERS: tuple[Maker, ...] = (*targets_config.MAKERS, *targets_artifacts.MAKERS, *targets_tables.MAKERS)
CORPUS = Path(__file__).parent / "corpus"
CHEAP = ("manifest", "bundle_manifest", "label_facts", "checkpoint", "config_tree", "settings")
SHARES = dict.fromkeys(CHEAP, 4.0) | {"config_text": 3, "log_rows": 3, "requests": 2, "label_shard": 2, "words": 0.7}


def share(make: Maker) -> float:
    """Return how much of the time of the long run a target has."""
    return SHARES.get(make.__name__, 1.0)


def corpus(name: str) -> list[bytes]:
    """Return the kept inputs of a target."""
    file = CORPUS / f"{name}.json"
    return [decoded(text) for text in json.loads(file.read_text())] if file.is_file() else []


def write_corpus(name: str, inputs: Sequence[bytes], longest: int) -> None:
    """Keep `inputs` of a target, in the place of those that were kept; one of more than `longest` bytes is none."""
    CORPUS.mkdir(exist_ok=True)
    kept = sorted(encoded(data) for data in set(inputs) if len(data) <= longest)
    (CORPUS / f"{name}.json").write_text(json.dumps(kept, indent=0) + "\n")


def encoded(data: bytes) -> str:
    """Return bytes as text that can be read in a review where they are ASCII."""
    return f"text:{data.decode()}" if data.isascii() else f"base64:{base64.b64encode(data).decode()}"


def decoded(text: str) -> bytes:
    """Return what `encoded` was given."""
    kind, _, rest = text.partition(":")
    return rest.encode() if kind == "text" else base64.b64decode(rest)
