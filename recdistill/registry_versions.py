"""What the registry holds of a model: versions with their tags, and aliases; each read and each write once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recdistill import signing
from recdistill.tracking import insist, shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

GATE, REASONS, DATA_END = "recdistill.gate", "recdistill.reasons", "recdistill.data_end"
MANIFEST, FINGERPRINT = "recdistill.manifest_sha256", "recdistill.fingerprint"
CODE_SHA256 = "recdistill.code_sha256"  # of the code that serves it, as it was registered
SIGNATURE = "recdistill.signature"  # of the manifest, see recdistill.signing
PROMOTED_AT, PROMOTED_FROM = "recdistill.promoted_at", "recdistill.promoted_from"
PASSED, FAILED, WITHDRAWN = "passed", "failed", "withdrawn"
LONGEST = 5000  # characters of a tag
BETWEEN = "\n"  # reasons in their tag: each is a sentence, which may have semicolons of its own


class Version(NamedTuple):
    """One registered version, its number always an int (a server sends text)."""

    number: int
    tags: Mapping[str, str]
    run_id: str
    created_ms: int

    @property
    def rank(self) -> tuple[str, int]:
        """Newer data serves before older, then the later version."""
        return self.tags.get(DATA_END, ""), self.number


def versions(client: MlflowClient, model: str) -> list[Version]:
    """Return every version of a model; without it, none."""
    found: list[Version] = []
    token = None
    while True:
        page = client.search_model_versions(f"name='{model}'", max_results=200, page_token=token)
        found += [_plain(v) for v in page]
        token = page.token
        if not token:
            return found


def version(client: MlflowClient, model: str, number: int) -> Version:
    """Return one version; MLflow raises where there is none of that number."""
    return _plain(client.get_model_version(model, str(number)))


def vouched(uri: str, model: str, version: Version, trust: Sequence[str | Path]) -> None:
    """Raise ArtifactError unless one of the public keys in the PEM files `trust` signed `version`, if there are any."""
    where = f"{shown(uri)}: {model} version {version.number}"
    signing.check(version.tags.get(SIGNATURE), model, version.tags.get(MANIFEST, ""), trust, where)


def _plain(found: Any) -> Version:
    return Version(int(found.version), dict(found.tags), found.run_id or "", int(found.creation_timestamp or 0))


def aliases(client: MlflowClient, model: str) -> dict[str, int]:
    """Return the aliases from the model itself: a search of its versions leaves them out."""
    from mlflow import MlflowException

    try:
        return {name: int(number) for name, number in client.get_registered_model(model).aliases.items()}
    except MlflowException as cause:
        if cause.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def tag(client: MlflowClient, model: str, version: int, tags: Mapping[str, str]) -> None:
    """Set tags of a version, one after the other in their order."""
    for name, text in tags.items():
        insist(partial(client.set_model_version_tag, model, str(version), name, text[:LONGEST]))


def point(client: MlflowClient, model: str, alias: str, version: int) -> None:
    """Point an alias at a version."""
    insist(lambda: client.set_registered_model_alias(model, alias, str(version)))


def create_model(client: MlflowClient, model: str) -> None:
    """Create a model, unless somebody has."""
    from mlflow import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as cause:
        if cause.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def now() -> str:
    """Return the time as tags have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
