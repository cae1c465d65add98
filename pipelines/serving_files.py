"""What a plan to serve leaves in a directory: the index that was measured, and the configuration that makes it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.errors import ArtifactError

if TYPE_CHECKING:
    from recdistill.surface_form import Point
    from recdistill.types import Artifact

INDEX, FACTS, CONFIG, PLAN, MANIFEST = "index.faiss", "index.json", "config.yaml", "plan.json", "manifest.json"
KIND = "serving plan"


def write(out: Path, surface: Artifact, point: Point, data: Mapping[str, Any], config: str) -> list[str]:
    """Write the index of `point`, its facts, `config` and the plan to the directory `out`; returns the files' names.

    Without an index where the surface kept none. The directory is filled aside and renamed; an earlier plan gives way.
    Raises ArtifactError if `out` holds something else, or if the index is not what the surface measured.
    """
    from recdistill.store import sha256, write_text

    _ours(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    names = [FACTS, CONFIG, PLAN]
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp") as folder:
        made = Path(folder) / "plan"
        made.mkdir()
        digests: dict[str, str] = {}
        if point.file is not None:
            digests[INDEX] = _copied(surface, point, point.file, made / INDEX)
            names.insert(0, INDEX)
        facts = {key: getattr(point, key) for key in ("factory", "params", "width", "recall")}
        facts |= {"metric": "inner_product", "bytes": point.index_bytes, "files": digests}
        write_text(made / FACTS, _json(facts))
        write_text(made / CONFIG, config)
        write_text(made / PLAN, _json(data))
        listed = {name: sha256(made / name) for name in names}
        write_text(made / MANIFEST, _json({"kind": KIND, "surface": surface.fingerprint, "files": listed}))
        if out.exists():
            os.replace(out, Path(folder) / "before")
        os.replace(made, out)
    return [*names, MANIFEST]


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _copied(surface: Artifact, point: Point, name: str, to: Path) -> str:
    """Copy the index of a point and return its digest, which must be the one that the surface wrote down."""
    from recdistill.store import aside, sha256

    fix = "delete the directory and measure the surface again"
    entry, file = surface.manifest.files.get(name), surface.path / name
    if entry is None:
        raise ArtifactError(f"its manifest does not name {name!r}", where=str(surface.path), fix=fix)
    with aside(to) as temporary:
        shutil.copyfile(file, temporary)
        digest = sha256(temporary)
        if digest != (point.sha256 or entry.sha256):
            raise ArtifactError("contents differ from what the surface measured", where=str(file), fix=fix)
    return digest


def _ours(out: Path) -> None:
    """Raise ArtifactError unless `out` is absent, empty, or an earlier plan's."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        kind = json.loads((out / MANIFEST).read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None
    if kind != KIND:
        what = "something else is there, which a plan does not overwrite"
        raise ArtifactError(what, where=str(out), fix="name another directory with --out")
