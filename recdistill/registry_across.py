"""Promotion from one registry to another: the same bundle, hashed on both sides, under the rule that holds there."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from recdistill import registry
from recdistill import registry_versions as held
from recdistill.bundle import manifest_sha256
from recdistill.errors import ArtifactError, ConfigError, GateRejected
from recdistill.registry_versions import DATA_END, FINGERPRINT, GATE, MANIFEST, PASSED, REASONS, SIGNATURE, Version
from recdistill.results import Release
from recdistill.tracking import DatasetFacts, initialise, record, shown, sqlite_file, store

FROM, FROM_VERSION, FROM_RUN = "recdistill.from", "recdistill.from_version", "recdistill.from_run"
OWN = "recdistill."  # tags of ours, of which these say what happened in one registry alone
STAY = (GATE, REASONS, held.PROMOTED_AT, held.PROMOTED_FROM, MANIFEST, DATA_END, FINGERPRINT)


def promote_across(
    uri: str, to: str, model: str, version: int, *, force: bool = False, trust: Sequence[str | Path] = ()
) -> Release:
    """Copy `version` of the registry at `uri` to the one at `to`, promote it there, and return the release there.

    Its gates are not judged again: it must have passed them here, and there meets the versions that passed, of which
    that with the newest data serves. The bundle's manifest must have the sha256 that was registered, here before it is
    copied and there before it is promoted. A bundle that is there already keeps its version, so it is safe to repeat.
    `force` and `trust` are those of `promote`; a signature goes with its bundle. Raises ArtifactError if a bundle is
    not whole, GateRejected if it does not serve.
    """
    if _same(uri, to):
        what = "a version is promoted to another registry than it is in"
        raise ConfigError(what, where=shown(to), fix="leave --to out")
    with store(uri) as client:
        asked = held.version(client, model, version)
    if asked.tags.get(GATE) != PASSED and not force:
        reasons = asked.tags.get(REASONS) or "its gates were never judged"
        fix = "promote it here first, or override with --force"
        what = f"{model} version {version} may not serve at {shown(uri)}"
        raise GateRejected(what, reasons=reasons.split(held.BETWEEN), fix=fix)
    with tempfile.TemporaryDirectory() as folder:
        bundle = registry.fetch(uri, model, version, Path(folder) / "here", trust)
        initialise(to)
        digest = manifest_sha256(bundle)
        there = registry.find_version(to, model, digest)
        if there is None:
            there = registry.register(to, model, bundle, _run(uri, to, asked, Path(folder)), _tags(uri, asked))
        copy = registry.fetch(to, model, there, Path(folder) / "there")
        if manifest_sha256(copy) != digest:
            what = f"version {there} of {model!r} is not the bundle that was copied"
            raise ArtifactError(what, where=shown(to), fix="delete that version, and run the same command again")
    _carry(to, model, there, asked)
    try:
        return registry.promote(to, model, there, force=force, trust=trust)
    except GateRejected:
        twin = registry.find_version(to, model, digest)
        if twin is None or twin == there:
            raise
        return registry.promote(to, model, twin, trust=trust)  # somebody copied the same bundle at the same time


def _same(uri: str, to: str) -> bool:
    files = sqlite_file(uri), sqlite_file(to)
    return files[0] == files[1] if all(files) else uri.rstrip("/") == to.rstrip("/")


def _tags(uri: str, version: Version) -> dict[str, str | None]:
    """Return what is known of the bundle, and where this copy of it comes from."""
    known = {name: text for name, text in version.tags.items() if name.startswith(OWN) and name not in STAY}
    return {**known, FROM: shown(uri), FROM_VERSION: str(version.number), FROM_RUN: version.run_id}


def _carry(to: str, model: str, there: int, asked: Version) -> None:
    """Give the copy the verdict of its gates and its signature; what was decided of it there since stays decided."""
    with store(to) as client:
        known = held.version(client, model, there).tags
        if SIGNATURE not in known and (signature := asked.tags.get(SIGNATURE)):
            held.tag(client, model, there, {SIGNATURE: signature})
        if GATE not in known and asked.tags.get(GATE) == PASSED:
            held.tag(client, model, there, {REASONS: asked.tags.get(REASONS, ""), GATE: PASSED})


def _run(uri: str, to: str, asked: Version, folder: Path) -> str:
    """Record a run in the registry at `to` with the report of the run that made the version, and return its id."""
    with store(uri) as client:
        run = client.get_run(asked.run_id)
        experiment = client.get_experiment(run.info.experiment_id).name
        reports = folder / "report"
        if client.list_artifacts(asked.run_id, "report"):
            client.download_artifacts(asked.run_id, "report", str(folder))
    data: DatasetFacts = {"name": experiment, "digest": "", "rows": 0}
    for given in run.inputs.dataset_inputs if run.inputs else ():
        rows = json.loads(given.dataset.profile or "{}").get("rows", 0)
        data = {"name": given.dataset.name, "digest": given.dataset.digest, "rows": rows}
    made = record(to, experiment, run.info.run_name or experiment, [], data, reports)
    with store(to) as client:
        for name, text in ((FROM, shown(uri)), (FROM_VERSION, str(asked.number)), (FROM_RUN, asked.run_id)):
            client.set_tag(made, name, text)
    return made
