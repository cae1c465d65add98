"""The commands over what runs leave behind: show, report, verify."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pipelines.console import Json, say, table
from pipelines.models import Uri, registry_uri
from recdistill.errors import ArtifactError

if TYPE_CHECKING:
    from recdistill.types import Manifest

Directory = Annotated[Path, Parameter(help="A stage's directory in the store, as `plan` names it.")]


def show(target: str, /, *, mlflow: Uri = None, json: Json = False) -> int:
    """Show what an artifact is and came from, or the versions of a registered model.

    Parameters
    ----------
    target
        An artifact's directory, or a registered model's name.
    """
    if Path(target).is_dir():
        from recdistill.store import open_artifact

        manifest = open_artifact(Path(target)).manifest
        say(dataclasses.asdict(manifest), _manifest(manifest), as_json=json)
        return 0
    if "/" in target:
        fix = "name an artifact's directory, as `recdistill plan CONFIG` lists them, or a registered model"
        raise ArtifactError("no such directory", where=target, fix=fix)
    from recdistill import registry
    from recdistill.tracking import shown

    uri = registry_uri(mlflow)
    versions = registry.history(uri, target)
    if not versions:
        raise ArtifactError(f"no artifact directory and no registered model {target!r}", where=shown(uri))
    night = ("partition", "start") if any("partition" in v for v in versions) else ()
    head = ("version", "aliases", *night, "gate", "data_end", "created_at", "reasons")
    rows = [[", ".join(v["aliases"]), *(v.get(h, "").replace("\n", "; ") for h in head[2:])] for v in versions]
    text = table([[v["version"], *row] for v, row in zip(versions, rows, strict=True)], head)
    say({"model": target, "uri": shown(uri), "versions": versions}, text, as_json=json)
    return 0


def verify(artifact: Directory, /, *, json: Json = False) -> int:
    """Hash every file of an artifact again and compare with its manifest."""
    from recdistill import store

    opened = store.open_artifact(artifact)
    store.verify(opened)
    count = len(opened.manifest.files)
    say(
        {"artifact": str(artifact), "files": count, "whole": True},
        f"{artifact}: {count} files, all whole",
        as_json=json,
    )
    return 0


def report(source: Path, /, *, out: Path | None = None, json: Json = False) -> int:
    """Print a report as Markdown, or with --out write all its forms (Markdown, HTML, model card) again.

    Parameters
    ----------
    source
        A report.json, or the directory that holds one.
    out
        Where to write; an artifact's own directory is refused, because artifacts do not change.
    """
    from recdistill.report import markdown, read_report, write_report

    found = read_report(source)
    if out is None:
        say(found, markdown(found), as_json=json)
        return 0
    if (out / "manifest.json").exists():
        raise ArtifactError("an artifact does not change", where=str(out), fix="name another directory with --out")
    write_report(found, out)
    say({"out": str(out)}, f"wrote {out / 'report.html'} and its other forms", as_json=json)
    return 0


def _manifest(manifest: Manifest) -> str:
    facts: dict[str, Any] = {
        "stage": manifest.stage,
        "fingerprint": manifest.fingerprint,
        "made": f"{manifest.created_at}, in {manifest.seconds:.1f} s",
        **{f"from {name}": value for name, value in manifest.inputs.items()},
        **{f"with {name}": value for name, value in manifest.env.items()},
        **{name: value for name, value in manifest.facts.items() if not isinstance(value, (dict, list))},
    }
    files = [(name, f"{entry.size:,}", entry.sha256[:16]) for name, entry in sorted(manifest.files.items())]
    text = f"{table(facts.items(), ('what', 'value'))}\n\n{table(files, ('file', 'bytes', 'sha256'))}"
    for finding in manifest.facts.get("lint", ()):  # what the linter says of a split is half of what it is
        text += f"\n{finding['severity']}: {finding['name']}: {finding['text']}"
    return text
