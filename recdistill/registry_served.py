"""What is served of the registry: which version a name means, and its bundle, checked before anything of it runs.

A model in the registry is code and data, and whoever can write to the artifact store can change both. What is served
is therefore the registered data alone, hashed against the version's tags, with the code of this package around it; that
the code there is not what was registered is a reason to serve nothing, for other servers would run it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from recdistill import registry
from recdistill import registry_versions as held
from recdistill.bundle import CODE, code_sha256, open_bundle
from recdistill.errors import ArtifactError
from recdistill.pyfunc import save_model
from recdistill.registry_versions import CODE_SHA256, DATA_END, GATE, MANIFEST
from recdistill.store import sha256
from recdistill.tracking import shown, store

FIX = "serve another version, as NAME@2, and find out who changed this one"


class Wanted(NamedTuple):
    """One version, and how it was asked for."""

    model: str
    version: int
    alias: str | None  # None where the version itself was named
    gate: str  # what its gates decided
    data_end: str
    manifest: str  # sha256


def wanted(uri: str, name: str) -> Wanted:
    """Return the version that `name` means: MODEL (its champion), MODEL@alias or MODEL@version.

    Raises ArtifactError if there is none.
    """
    model, _, which = name.partition("@")
    which = which or registry.CHAMPION
    with store(uri) as client:
        aliases = held.aliases(client, model)
        number = int(which) if which.isdecimal() else aliases.get(which)
        if number is None:
            known = ", ".join(f"{alias} (version {n})" for alias, n in sorted(aliases.items())) or "no aliases"
            what = f"model {model!r} has no {which}; it has {known}"
            fix = "promote a version, or name one that `recdistill show MODEL` lists"
            raise ArtifactError(what, where=shown(uri), fix=fix)
        tags = held.version(client, model, number).tags
    alias = None if which.isdecimal() else which
    gate, end = tags.get(GATE, "never judged"), tags.get(DATA_END, "an unknown time")
    return Wanted(model, number, alias, gate, end, tags.get(MANIFEST, ""))


def served_model(uri: str, asked: Wanted, out: Path, trust: Sequence[str | Path] = ()) -> Path:
    """Write the model of a version to the directory `out`, checked, and return it; nothing of the registry has run.

    Its manifest must have the sha256 that was registered, every file the one that the manifest says, and the code that
    was registered beside them the one of its tag, or of this package where the tag is older than that. Raises
    ArtifactError if one differs, or none of the public keys in the PEM files `trust` signed the manifest.
    """
    copy = out.with_name(f"{out.name}.registry")
    try:
        bundle = registry.fetch(uri, asked.model, asked.version, copy, trust)
        _check_code(uri, asked, bundle)
        made = save_model(open_bundle(bundle, manifest=asked.manifest), out)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    open_bundle(made, manifest=asked.manifest)
    return out


def _check_code(uri: str, asked: Wanted, bundle: Path) -> None:
    """Raise ArtifactError unless the code beside a registered bundle is what was registered, and all there is."""
    if bundle.parent.name != "artifacts":
        raise ArtifactError(f"{asked.model} version {asked.version} is no model that this package registered", fix=FIX)
    model = bundle.parent.parent
    with store(uri) as client:
        expected = held.version(client, asked.model, asked.version).tags.get(CODE_SHA256)
    code = model / CODE
    what = f"{asked.model} version {asked.version}: "
    if stray := sorted(f.relative_to(model).as_posix() for f in model.rglob("*.py") if f != code):
        raise ArtifactError(f"{what}code that nobody registered lies beside it: {', '.join(stray)}", fix=FIX)
    if not code.is_file() or sha256(code) != (expected or code_sha256()):
        says = "the code that was registered" if expected else "the code of this package, and no sha256 was recorded"
        fix = FIX if expected else f"{FIX}; if an older package registered it, register it again with this one"
        raise ArtifactError(f"{what}{CODE} is not {says}", fix=fix)
