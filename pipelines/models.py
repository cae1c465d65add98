"""The commands over the registry: promote, here or in another one, and rollback."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pipelines.console import Json, say
from recdistill.errors import ArtifactError

if TYPE_CHECKING:
    from recdistill.results import Release

Uri = Annotated[str | None, Parameter(name="--mlflow", help="Registry URI; the SQLite file beside runs/store.")]
To = Annotated[str | None, Parameter(name="--to", help="URI of another registry: copy it there, and promote it there.")]
Trust = Annotated[
    tuple[Path, ...],
    Parameter(name="--trust", negative="", help="A public key (PEM); what serves must be signed by one of them."),
]
Flag = Annotated[bool, Parameter(negative="")]


def promote(
    model: str,
    /,
    *,
    version: int | None = None,
    to: To = None,
    force: Flag = False,
    trust: Trust = (),
    mlflow: Uri = None,
    json: Json = False,
) -> int:
    """Make a registered version serve, if its gates passed.

    Parameters
    ----------
    model
        Name of the registered model.
    version
        The version to promote; left out, the latest candidate, or with --to the champion.
    force
        Override the gates and the order of data; the version is then recorded as forced.
    """
    from recdistill import registry

    uri = registry_uri(mlflow)
    chosen = version if version is not None else _with_alias(uri, model, "candidate" if to is None else "champion")
    if to is not None:
        from recdistill.registry_across import promote_across

        return _released(promote_across(uri, to, model, chosen, force=force, trust=trust), as_json=json)
    return _released(registry.promote(uri, model, chosen, force=force, trust=trust), as_json=json)


def rollback(model: str, /, *, trust: Trust = (), mlflow: Uri = None, json: Json = False) -> int:
    """Make the version that served before serve again, and withdraw the one that serves now."""
    from recdistill import registry

    return _released(registry.rollback(registry_uri(mlflow), model, trust), as_json=json)


def sign(model: str, /, *, version: int, key: Path, mlflow: Uri = None, json: Json = False) -> int:
    """Sign a registered version, after checking every file of its bundle.

    Parameters
    ----------
    model
        Name of the registered model.
    version
        The version to sign.
    key
        A PEM file with an ed25519 private key.
    """
    from recdistill.registry_signed import endorse

    endorse(registry_uri(mlflow), model, version, key)
    say({"model": model, "version": version, "signed": True}, f"{model} version {version} is signed", as_json=json)
    return 0


def prepare_mlflow() -> None:
    """Set MLflow's defaults, where the user has set none, before it is first imported."""
    from recdistill.tracking import MLFLOW_ENV

    for name, value in MLFLOW_ENV.items():
        os.environ.setdefault(name, value)


def registry_uri(given: str | None) -> str:
    """Return the registry to use; raises ArtifactError where it is an SQLite file that does not exist."""
    from recdistill.config import ExecSpec
    from recdistill.tracking import sqlite_file

    prepare_mlflow()
    uri = given or ExecSpec().tracking_uri
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        fix = "run a configuration with `registry:` first, or name the registry with --mlflow"
        raise ArtifactError("there is no registry here", where=str(file), fix=fix)
    return uri


def _with_alias(uri: str, model: str, alias: str) -> int:
    from recdistill import registry
    from recdistill.tracking import shown

    versions = registry.history(uri, model)
    for found in versions:
        if alias in found["aliases"]:
            return int(found["version"])
    known = f"versions {', '.join(str(v['version']) for v in versions)}" if versions else "no versions"
    what = f"model {model!r} has no {alias}, and {known}"
    raise ArtifactError(what, where=shown(uri), fix="name one with --version")


def _released(release: Release, *, as_json: bool) -> int:
    text = f"{release.model} version {release.version} serves as {release.alias} ({release.uri})"
    say(dataclasses.asdict(release), text, as_json=as_json)
    return 0
