"""Signed versions: which bundle a key has vouched for, and the verdict on a version under the keys that are trusted."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from recdistill import registry, signing
from recdistill import registry_versions as held
from recdistill.bundle import manifest_sha256
from recdistill.registry_verdict import record
from recdistill.results import GateResult, Release
from recdistill.tracking import store


def endorse(uri: str, model: str, version: int, key: Path, bundle: Path | None = None) -> None:
    """Sign `version` by the private key in the PEM file `key`.

    What is signed is the bundle at `bundle`, which is on this machine; None signs what the registry holds now, after
    checking every file of it. Raises ArtifactError if that is not whole, ConfigError if there is no such key.
    """
    with tempfile.TemporaryDirectory() as folder:
        digest = manifest_sha256(bundle or registry.fetch(uri, model, version, Path(folder)))
    with store(uri) as client:
        held.tag(client, model, version, {held.SIGNATURE: signing.sign(key, model, digest)})


def decide(
    uri: str,
    spec: registry.RegistrySpec,
    version: int,
    bundle: Path,
    gates: Sequence[GateResult] | None,
    *,
    serve: bool = True,
) -> Release:
    """Sign `version`, made of `bundle`, if `spec` names a key, and promote it, or without `serve` record its verdict.

    Raises as `registry.promote` does.
    """
    if spec.sign is not None:
        endorse(uri, spec.model, version, Path(spec.sign), bundle)
    if not serve:
        return record(uri, spec.model, version, gates=gates)
    return registry.promote(uri, spec.model, version, gates=gates, trust=spec.trust)
