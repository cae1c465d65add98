"""The MLflow registry: versions of the bundle, their gates, and the aliases that say which one serves.

Facts are tags of a version, pointers are aliases. Aliases have no compare-and-set, so promotion converges instead: a
promoter writes its own tags first, then points `champion` at the best of all passed versions until it reads that back;
whoever writes last has seen everybody's tags. A version leaves the choice by being withdrawn (rollback, --force).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import Field, StringConstraints

from recdistill import registry_versions as held
from recdistill import signing
from recdistill.bundle import code_sha256, manifest_sha256, open_bundle
from recdistill.errors import ArtifactError, GateRejected, StageError
from recdistill.gates import GatesSpec
from recdistill.pyfunc import model_parts
from recdistill.registry_versions import (
    BETWEEN,
    CODE_SHA256,
    DATA_END,
    FAILED,
    FINGERPRINT,
    GATE,
    LONGEST,
    MANIFEST,
    PASSED,
    PROMOTED_AT,
    PROMOTED_FROM,
    REASONS,
    WITHDRAWN,
    Version,
)
from recdistill.results import GateResult, Release
from recdistill.spec import Spec
from recdistill.tracking import fluent, shown, store
from recdistill.whole import flush

if TYPE_CHECKING:
    from mlflow import MlflowClient

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
BACK = "rolled back to version "  # in the reasons of what was
ROUNDS = 50


class RegistrySpec(Spec):
    """Where the student is registered, and what it must measure to serve."""

    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]
    """Name of the registered model."""
    gates: GatesSpec = Field(default_factory=dict)
    """What decides the alias `champion`: metric name -> bounds."""
    sign: str | None = Field(default=None, exclude_if=lambda key: key is None)
    """A PEM file with an ed25519 private key, by which a registered bundle is signed; left out, it is not."""
    trust: tuple[str, ...] = Field(default=(), exclude_if=lambda keys: not keys)
    """PEM files with ed25519 public keys: only a bundle that one of them signed is promoted, compared with or begun
    from; left out, none need be signed."""


def find_version(uri: str, model: str, manifest: str) -> int | None:
    """Return the latest version whose bundle's manifest has this sha256, None if there is none."""
    with store(uri) as client:
        same = [v.number for v in held.versions(client, model) if v.tags.get(MANIFEST) == manifest]
    return max(same, default=None)


def register(uri: str, model: str, bundle: Path, run_id: str, tags: Mapping[str, str | None]) -> int:
    """Register the bundle directory as a version of `model`, alias `candidate`, and return its number.

    A bundle that is already registered keeps its version. `tags` are added to it, None left out; a `data_end` in the
    bundle's manifest orders the versions. Raises ArtifactError if the bundle is not whole.
    """
    opened, digest = open_bundle(bundle), manifest_sha256(bundle)
    if (known := find_version(uri, model, digest)) is not None:
        return known
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    facts = {MANIFEST: digest, DATA_END: manifest.get("data_end"), FINGERPRINT: manifest.get("fingerprint")}
    facts |= {CODE_SHA256: code_sha256()}
    with store(uri) as client, fluent(uri), tempfile.TemporaryDirectory() as folder:
        import mlflow
        import pandas as pd

        example = pd.DataFrame({"user_id": [next(iter(opened.user_row))], "history": [opened.item_ids[:1]]})
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.pyfunc.log_model(
                name="student",
                input_example=example,
                **model_parts(opened, Path(folder)),
            )
        _flush(client.get_logged_model(logged.model_id).artifact_location)
        held.create_model(client, model)
        kept = {k: str(v)[:LONGEST] for k, v in {**tags, **facts}.items() if v is not None}
        made = client.create_model_version(model, logged.model_uri, run_id, kept, model_id=logged.model_id)
        held.point(client, model, CANDIDATE, int(made.version))
    return int(made.version)


def _flush(location: str) -> None:
    """Have what was copied to a local store on the disk before a version names it; a server sees to its own."""
    if location.startswith("file://"):
        flush(Path(url2pathname(urlsplit(location).path)))


def promote(
    uri: str,
    model: str,
    version: int,
    *,
    gates: Sequence[GateResult] | None = None,
    force: bool = False,
    trust: Sequence[str | Path] = (),
) -> Release:
    """Make `version` the champion and return its release, or raise GateRejected and leave it registered.

    `gates` are the verdicts to decide by; None decides by those recorded. `force` overrides them, and withdraws the
    passed versions that would serve before this one. It is refused if a gate failed, if it was withdrawn, or if a
    passed version has newer data. Safe to repeat, and beside other promoters.

    With `trust`, PEM files of public keys, a version that none of them signed is no choice, forced or not: raises
    ArtifactError if it is the one that is asked for.
    """
    with store(uri) as client:
        asked = held.version(client, model, version)
        held.vouched(uri, model, asked, trust)
        decided = asked.tags.get(GATE) == WITHDRAWN or PROMOTED_AT in asked.tags
        if gates is not None and not decided:  # what once served or was withdrawn is not judged anew
            failed = [g.reason for g in gates if not g.passed]
            held.tag(client, model, version, {REASONS: BETWEEN.join(failed), GATE: FAILED if failed else PASSED})
        if force:
            _admit(client, model, version, f"version {version} was forced")
        asked = held.version(client, model, version)
        if asked.tags.get(GATE) != PASSED:
            _refuse(model, asked, asked.tags.get(REASONS) or "its gates were never judged")
        winner = _settle(client, model, trust)
        if winner.number != version:
            reason = f"version {winner.number} serves, with data up to {winner.rank[0] or 'an unknown time'}"
            held.tag(client, model, version, {REASONS: reason})
            _refuse(model, asked, reason)
        return _release(uri, model, winner, gates or ())


def rollback(uri: str, model: str, trust: Sequence[str | Path] = ()) -> Release:
    """Make the version that served before the champion serve again, and withdraw the champion.

    One that was interrupted is finished by the next, which then goes no further back. Raises ArtifactError if there is
    none to go back to, or none of the public keys in the PEM files `trust` signed it.
    """
    with store(uri) as client:
        aliases = held.aliases(client, model)
        bad, target = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if target is not None:
            held.vouched(uri, model, held.version(client, model, target), trust)
        begun = bad is not None and target is not None and _interrupted(client, model, bad, target)
        if bad is None or target is None or (bad == target and not begun):
            fix = "promote a version with `recdistill promote MODEL --version N --force`"
            raise ArtifactError(f"model {model!r} has no previous champion", where=shown(uri), fix=fix)
        if not begun:
            reason = f"{BACK}{target} at {held.now()}"
            held.tag(client, model, bad, {GATE: WITHDRAWN, REASONS: reason})
            _admit(client, model, target, reason)
        winner = _settle(client, model, trust)
        # What was rolled back must not be where the next rollback leads.
        earlier = [v for v in _passed(client, model, trust) if PROMOTED_AT in v.tags and v.rank < winner.rank]
        if earlier:
            held.point(client, model, PREVIOUS, max(earlier, key=lambda v: v.rank).number)
        else:
            client.delete_registered_model_alias(model, PREVIOUS)
        return _release(uri, model, winner, ())


def champion(
    uri: str, model: str, out: Path | None = None, trust: Sequence[str | Path] = ()
) -> tuple[int, Path] | None:
    """Return the champion's version and its bundle directory, every file checked; None if nothing serves.

    `out` is where the files are copied; None is where they lie in a local store, or a temporary directory. Raises
    ArtifactError if the bundle is not the one that was registered, or none of the public keys in the PEM files `trust`
    signed it. Nothing that is code in the registry is run.
    """
    with store(uri) as client:
        serving = held.aliases(client, model).get(CHAMPION)
    return None if serving is None else (serving, fetch(uri, model, serving, out, trust))


def fetch(uri: str, model: str, version: int, out: Path | None = None, trust: Sequence[str | Path] = ()) -> Path:
    """Return the bundle directory of `version`, every file checked, as `champion` does."""
    with store(uri) as client:
        from mlflow.artifacts import download_artifacts

        asked = held.version(client, model, version)
        held.vouched(uri, model, asked, trust)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        source = client.get_model_version_download_uri(model, str(version))
        where = download_artifacts(source, dst_path=None if out is None else str(out), tracking_uri=uri)
    bundle = next(Path(where).glob("artifacts/*/manifest.json"), Path(where) / "manifest.json").parent
    open_bundle(bundle, manifest=asked.tags.get(MANIFEST, "no sha256 was recorded"))
    return bundle


def champion_report(uri: str, model: str) -> dict[str, Any] | None:
    """Return report.json of the run that made the champion, {} if it has none; None if nothing serves."""
    with store(uri) as client, tempfile.TemporaryDirectory() as folder:
        serving = held.aliases(client, model).get(CHAMPION)
        if serving is None:
            return None
        run = held.version(client, model, serving).run_id
        if not any(f.path == "report/report.json" for f in client.list_artifacts(run, "report")):
            return {}
        file = client.download_artifacts(run, "report/report.json", folder)
        return json.loads(Path(file).read_text(encoding="utf-8"))


def history(uri: str, model: str) -> list[dict[str, Any]]:
    """Return every version of `model`, the latest first, with its aliases and its `recdistill.` tags."""
    with store(uri) as client:
        aliases = held.aliases(client, model)
        return [
            {
                "version": v.number,
                "aliases": sorted(name for name, number in aliases.items() if number == v.number),
                "run_id": v.run_id,
                "created_at": datetime.fromtimestamp(v.created_ms / 1000, UTC).isoformat(timespec="seconds"),
                **{k.removeprefix("recdistill."): text for k, text in sorted(v.tags.items())},
            }
            for v in sorted(held.versions(client, model), reverse=True)
        ]


def _settle(client: MlflowClient, model: str, trust: Sequence[str | Path]) -> Version:
    """Point `champion` at the best passed version, again if others moved it or passed meanwhile; return it."""
    for _ in range(ROUNDS):
        best = max(_passed(client, model, trust), key=lambda v: v.rank, default=None)
        if best is None:
            raise StageError(
                f"every passed version of {model!r} was withdrawn meanwhile", fix="look at `recdistill show`"
            )
        current = held.aliases(client, model).get(CHAMPION)
        if current == best.number:
            return best
        if current is not None:
            held.point(client, model, PREVIOUS, current)
        held.tag(client, model, best.number, {PROMOTED_AT: held.now(), PROMOTED_FROM: str(current or "")})
        held.point(client, model, CHAMPION, best.number)
    raise StageError(f"other promoters kept moving the champion of {model!r}", fix="run the same command again")


def _admit(client: MlflowClient, model: str, version: int, reason: str) -> None:
    """Make `version` the best passed version: pass it, and withdraw those that would serve before it."""
    rank = held.version(client, model, version).rank
    held.tag(client, model, version, {GATE: PASSED, REASONS: reason})
    for other in _passed(client, model):
        if other.rank > rank:
            held.tag(client, model, other.number, {GATE: WITHDRAWN, REASONS: reason})


def _interrupted(client: MlflowClient, model: str, serving: int, previous: int) -> bool:
    """Say whether a rollback was interrupted once it had begun to move the aliases: what it withdrew is `previous`."""
    tags = held.version(client, model, previous).tags
    to = (BACK,) if serving == previous else (f"{BACK}{serving} at ",)
    return tags.get(GATE) == WITHDRAWN and tags.get(REASONS, "").startswith(to)


def _refuse(model: str, version: Version, reasons: str) -> None:
    what = f"{model} version {version.number} stays registered but does not serve"
    fix = "improve the student, or override with `recdistill promote --force`"
    raise GateRejected(what, reasons=reasons.split(BETWEEN), fix=fix)


def _release(uri: str, model: str, version: Version, gates: Sequence[GateResult]) -> Release:
    run, gates = version.run_id, tuple(gates)
    return Release(model=model, version=version.number, alias=CHAMPION, gates=gates, uri=shown(uri), run_id=run)


def _passed(client: MlflowClient, model: str, trust: Sequence[str | Path] = ()) -> list[Version]:
    """Return the versions that passed and that `trust` lets serve."""
    passed = [v for v in held.versions(client, model) if v.tags.get(GATE) == PASSED]
    return [v for v in passed if signing.holds(v.tags.get(held.SIGNATURE), model, v.tags.get(MANIFEST, ""), trust)]
