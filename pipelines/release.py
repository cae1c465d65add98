"""The end of the path: what was measured becomes a report, a registered version, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from pipelines.assembled import Everything, assemble
from pipelines.daily_told import night_tags, of_night, superseded
from pipelines.judging import judged_beside
from recdistill import registry, tracking
from recdistill.bundle import manifest_sha256
from recdistill.config import Config
from recdistill.diagnosis.stages import found
from recdistill.errors import GateRejected
from recdistill.measure import read_json
from recdistill.registry_signed import decide
from recdistill.registry_verdict import call_candidate, decided
from recdistill.report import read_report, write_report
from recdistill.results import Release
from recdistill.stages import Run


@dataclass(frozen=True, slots=True)
class Released:
    """Where the report is, what the registry did, and the report as terminal tables."""

    report: Path
    release: Release | None
    shown: str


def release(
    config: Config,
    run: Run,
    all_: Everything,
    stages: Sequence[Mapping[str, Any]],
    command: str,
    night: Mapping[str, Any] | None = None,
    *,
    serve: bool = True,
) -> Released:
    """Write the report; register the bundle, judge it by the gates and promote it, if the config names a registry.

    A bundle that is registered already keeps its version and its verdict. Of a `night` the report says what was decided
    of it. Without `serve` nothing is promoted. Raises GateRejected, after the report is written, if the student may not
    serve.
    """
    out = report_directory(config, run, all_)
    report = assemble(config, all_, stages, command) | {"diagnosis": found(all_.data, all_.judged, run.store)}
    if night is not None:
        report["daily"] = of_night(config, night, all_.data, all_.judged)
        report["warnings"] += [alarm["text"] for alarm in report["daily"]["alarms"]]
    if config.registry is None:
        write_report(report, out)
        return Released(out, None, show(report))
    uri, model = config.exec.tracking_uri, config.registry.model
    tracking.initialise(uri, run.store)
    bundle = all_.bundle
    version = registry.find_version(uri, model, manifest_sha256(bundle))
    if decided(uri, model, version):  # show what it was decided by
        report, gates = _earlier(out, report), None
    else:  # new, or registered by a run that was killed before it came to a verdict
        gates = judged_beside(config, report, bundle, uri, all_.data.read)
        _verdict(report, gates)
        write_report(report, out)
    report["verdict"]["model"] = model
    try:
        if version is None:
            run_id = _record(config, all_, stages, out, uri)
            version = registry.register(uri, model, bundle, run_id, _tags(config, all_, report))
        elif gates is not None:
            call_candidate(uri, model, version)
        if night is not None and (stood := superseded(uri, model, version)) is not None:
            write_report(report, out)
            return Released(out, stood, show(report))
        released = decide(uri, config.registry, version, bundle, gates, serve=serve)
        text = "passed its gates, and is not promoted" if released.alias is None else f"serves as {released.alias}"
        report["verdict"] |= {"promoted": released.alias is not None, "version": version, "text": text}
    except GateRejected as refusal:
        text = "registered, but not promoted"
        reasons = refusal.reasons or report["verdict"]["reasons"]
        report["verdict"] |= {"promoted": False, "version": version, "text": text, "reasons": reasons}
        write_report(report, out)
        what = f"{model} version {version} is registered, but its gates refuse it"
        raise GateRejected(what, reasons=reasons, fix=f"read {out / 'report.html'}", report=str(out)) from refusal
    write_report(report, out)
    tracking.log_report(uri, released.run_id, out)
    return Released(out, released, show(report))


def report_directory(config: Config, run: Run, all_: Everything) -> Path:
    """Return where the report of a run is."""
    gate = "" if all_.deferred is None else f"-{all_.deferred.fingerprint[:6]}"
    return run.store.parent / "reports" / f"{config.name}-{all_.evaluated.fingerprint[:12]}{gate}"


def show(report: Mapping[str, Any]) -> str:
    """Return the report as tables for a terminal, in colour where it has any."""
    import sys

    from rich.console import Console

    from pipelines.show import print_report

    text = StringIO()
    seen = sys.stdout.isatty()
    print_report(report, Console(file=text, force_terminal=seen, width=None if seen else 120))
    return text.getvalue()


def _verdict(report: dict[str, Any], gates: Sequence[Any]) -> None:
    failed = [g.reason for g in gates if not g.passed]
    text = "passed its gates" if not failed else "registered, but not promoted"
    report["verdict"] = {"promoted": not failed, "text": text, "reasons": failed, "version": None}


def _earlier(out: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Return `report` with the verdict, gates and latency that an earlier run of the same bundle left in `out`."""
    if not (out / "report.json").is_file():
        return report
    before = read_report(out)
    kept = ("verdict", "gates", "latency", "latency_environment")
    return report | {name: before[name] for name in (*kept, "champion", "bundle") if name in before}


def _tags(config: Config, all_: Everything, report: Mapping[str, Any]) -> dict[str, str | None]:
    judged, window = all_.judged, config.log.window
    last = all_.data.ingested.manifest.facts.get("last")
    return night_tags(report) | {
        "recdistill.log_end": last if window is None else f"{window.last}T23:59:59+00:00",
        "recdistill.teacher": judged.inputs().get("teacher") or judged.inputs().get("labels"),
        "recdistill.data": all_.data.divided.fingerprint,
        "recdistill.evaluated": all_.evaluated.fingerprint,
    }


def _record(config: Config, all_: Everything, stages: Sequence[Mapping[str, Any]], out: Path, uri: str) -> str:
    ingest = all_.data.ingested.manifest.facts
    return tracking.record(
        uri,
        f"recdistill/{config.name}",
        config.name,
        _stage_runs(config, all_, stages),
        {"name": config.name, "digest": all_.data.divided.fingerprint, "rows": int(ingest["rows"])},
        out,
    )


def _stage_runs(config: Config, all_: Everything, stages: Sequence[Mapping[str, Any]]) -> list[tracking.StageRun]:
    """Return a child run for each stage, with the part of the config it read and the numbers it left."""
    sections = {
        "ingest": config.log,
        "split": config.split,
        "teacher": config.teacher,
        "scratch": config.student,
        "student": config.student,
        "labels": config.labels,
        "index": config.index,
        "surface": config.surface,
        "defer": config.defer,
        "evaluate": config.report,
    }
    quality = read_json(all_.evaluated, "quality.json")["quality"]
    latency = read_json(all_.timed, "latency.json")["latency"]
    metrics: dict[str, dict[str, float]] = {
        "evaluate": {
            f"{r['model'].replace('@', '_')}_{r['metric']}_at_{r['k']}": r["value"]
            for r in quality
            if r["slice"] == "all"
        },
        "latency": {
            f"{r['model'].replace('@', '_')}_{name}": r[name]
            for r in latency
            if r["part"] == "total"
            for name in ("p50_ms", "p95_ms", "p99_ms")
        },
    }
    runs: list[tracking.StageRun] = []
    for row in stages:
        kind = str(row["stage"]).split("-")[0]
        section = sections.get(kind)
        runs.append(
            {
                "stage": str(row["stage"]),
                "fingerprint": str(row["fingerprint"]),
                "seconds": float(row["seconds"]),
                "params": {} if section is None else section.model_dump(mode="json"),
                "metrics": metrics.get(kind, {}),
            }
        )
    return runs
