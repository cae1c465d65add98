"""The manifest of an artifact as it is read: text that anybody may have written, until every part of it was checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from recdistill.errors import ArtifactError
from recdistill.types import FileEntry, Manifest

FORMAT = 1
NAME = "manifest.json"
DIGEST = "digest"
REBUILD = "delete the directory and run the same command again"
LARGEST = 1 << 28  # bytes of a manifest; one with a line for each of a million files has half of them


def manifest_text(manifest: Manifest) -> str:
    """Return a manifest as it is written: JSON, with the hash of all that it says."""
    raw = json.loads(json.dumps(dataclasses.asdict(manifest)))  # as it will be read
    return json.dumps(raw | {DIGEST: _digest(raw)}, indent=1, sort_keys=True)


def _digest(raw: Mapping[str, Any]) -> str:
    """Return the hash of what a manifest says, but for that hash."""
    told = json.dumps({name: value for name, value in raw.items() if name != DIGEST}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the artifact at `path`, every field of the type it must have.

    Raises ArtifactError if it is missing, malformed, changed, written by a newer version, or names a file outside the
    artifact.
    """
    where = str(path)
    try:
        with (path / NAME).open("rb") as file:
            text = file.read(LARGEST)
        raw = from_json(text)
        if isinstance(raw, dict) and isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
            what = f"written in format {raw['format']}; this version reads up to {FORMAT}"
            raise ArtifactError(what, where=where, fix="upgrade recdistill, or delete the directory and run again")
        manifest = _form().validate_json(text, strict=True)
    except FileNotFoundError:
        what = f"no {NAME}: not a whole artifact"
        raise (damaged(what, path) if path.is_dir() else ArtifactError(what, where=where, fix=REBUILD)) from None
    except ValidationError as cause:
        first = cause.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        what = f"{NAME} cannot be read ({first['msg']}{f': {place}' if place else ''})"
        raise damaged(what, path) from cause
    except (OSError, ValueError) as cause:
        raise damaged(f"{NAME} cannot be read ({cause})", path) from cause
    for name, entry in manifest.files.items():
        _check(path, name, entry)
    said = raw.get(DIGEST)  # manifests of before it was written have none
    if said is not None and said != _digest(raw):
        raise damaged(f"{NAME} is not what was written", path)
    return manifest


def _check(path: Path, name: str, entry: FileEntry) -> None:
    """Raise ArtifactError unless `name` is a file of the artifact at `path`, of the size that `entry` says."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise damaged(f"the manifest names {name!r}, outside the artifact", path)
    file = path / name
    try:
        inside = file.resolve().is_relative_to(path.resolve())
        size = file.stat().st_size if file.is_file() else None
    except (OSError, RuntimeError):  # a name that is too long, a circle of links
        inside, size = True, None
    if not inside:
        raise damaged(f"the manifest names {name!r}, outside the artifact", path)
    if size is None:
        raise damaged("the file is missing", file)
    if size != entry.size:
        raise damaged(f"{size} bytes where the manifest says {entry.size}", file)


def damaged(what: str, where: Path) -> ArtifactError:
    """Return the error that says what of an artifact is not what was written."""
    error = ArtifactError(what, where=str(where), fix=REBUILD)
    error.damaged = True
    return error


@cache
def _form() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)
