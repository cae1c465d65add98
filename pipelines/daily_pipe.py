"""What a process of `pipelines.daily` does: one part of a night, told through Dagster Pipes.

    python -m pipelines.daily_pipe CONFIG DAY UNTIL

It ends with exit code 0 once it has said how the night stands, whatever that is: the scheduler decides by what is
said. Any other end is one that nothing was said of, such as that of a process which was killed.
"""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.console import speaks
from pipelines.daily_commands import day_named, ready
from recdistill.errors import ConfigError, DataError, GateRejected, RecdistillError

if TYPE_CHECKING:
    from pipelines.daily_run import Ended
    from recdistill.config import Config

TEACH_PIPES = "pip install dagster-pipes where the stages run; it needs nothing else"
INGESTED = ("rows", "rows_read", "outside", "users", "items")  # facts of the log that are worth a curve over the days


def main(words: list[str]) -> int:
    """Run the night of a day up to a stage, and say through Pipes what came of it."""
    config, partition, until = words
    warnings.simplefilter("ignore")
    try:
        from dagster_pipes import open_dagster_pipes
    except ImportError as cause:
        print(f"error: dagster_pipes is not installed ({cause})\n  fix: {TEACH_PIPES}", file=sys.stderr)
        return 1
    with open_dagster_pipes() if speaks() else nullcontext() as pipes:  # of several ranks the first speaks
        error: RecdistillError | None
        try:
            found, ended = _night(Path(config), partition, until)
            error = ended.error
            if pipes is not None:
                tell(pipes, found, ended.summary, until)
        except RecdistillError as wrong:  # the file, or the day
            error, code = wrong, wrong.exit_code
        else:
            code = ended.code
        if pipes is not None:
            kind = None if error is None else type(error).__name__
            pipes.report_custom_message({"exit_code": code, "error": str(error or ""), "kind": str(kind or "")})
    return 0


def _night(config: Path, partition: str, until: str) -> tuple[Config, Ended]:
    day = day_named(partition, "the partition")
    with ready(config, (), None, as_json=False) as (found, run, _):
        from pipelines.daily_run import nightly

        if found.registry is None:
            fix = "add a section, as in registry: {model: retrieval}, or schedule the command itself"
            raise ConfigError("there is no section registry, and so nothing to promote", where=str(config), fix=fix)
        command = shlex.join(["recdistill", "run", str(config), "--partition", partition])
        return found, nightly(found, day, run, until=until, command=command)


def tell(pipes: Any, config: Config, summary: Mapping[str, Any], until: str) -> None:
    """Report the asset and its checks, as far as the night came."""
    for row in summary["stages"]:
        done = "found done" if row["hit"] else f"built in {row['seconds']:.1f} s"
        pipes.log.info(f"{row['stage']}: {done} ({row['fingerprint']})")
    code = summary["exit_code"]
    if until == "split" and code in (0, DataError.exit_code):
        about = {"error": summary["error"]} if code else _lint(config, summary)
        pipes.report_asset_check("contract", passed=not code, metadata=about)
    gates = summary.get("gates", [])
    refused = code == GateRejected.exit_code and not all(gate["passed"] for gate in gates)
    if code not in (0, 6) and not (until == "judge" and refused):
        return
    last = summary["stages"][-1]["fingerprint"] if summary["stages"] else None
    pipes.report_asset_materialization(metadata=metadata(config, summary, until), data_version=last)
    for warning in summary["warnings"]:
        pipes.log.warning(warning)
    if until == "judge":
        for name, mine in by_kind(gates).items():
            pipes.report_asset_check(
                name, passed=all(gate["passed"] for gate in mine), metadata={"gates": _markdown(table_of(mine))}
            )
        told = "; ".join(alarm["text"] for alarm in summary["alarms"])
        pipes.report_asset_check("alarms", passed=not told, severity="WARN", metadata={"alarms": told or "none"})


def metadata(config: Config, summary: Mapping[str, Any], until: str) -> dict[str, Any]:
    """Return what Dagster shows of an asset: what was done, the size of the data, what a verdict stands on."""
    rows = [[r["stage"], r["fingerprint"], f"{r['seconds']:.1f}", "yes" if r["hit"] else ""] for r in summary["stages"]]
    found: dict[str, Any] = {
        "start": summary["start"],
        "why": summary["why"] or "begins where the champion ended",
        "stages": _markdown(_table(("stage", "fingerprint", "seconds", "found done"), rows)),
    }
    if until == "split":
        facts = _facts(config, summary, "ingest")
        found |= {name: facts[name] for name in INGESTED if facts.get(name) is not None}
        found |= {name: value for name, value in summary["drift"].items() if value is not None}
    if summary.get("report"):
        report = Path(summary["report"])
        found |= {
            "report": {"raw_value": str(report.absolute()), "type": "path"},
            "registry": _registry(config, summary),
        }
        found |= {"verdict": _markdown(report.with_name("report.md").read_text(encoding="utf-8"))}
        found |= {"version": summary["version"], "promoted": summary["promoted"]}
        head = summary["quality"]
        name = f"{head['metric']}@{head['k']}"
        found |= {f"{model} {name}": head[model][0] for model in ("student", "scratch", "teacher") if head[model]}
        found |= {gate["gate"]: gate["measured"] for gate in summary["gates"] if gate["measured"] is not None}
    return found


def by_kind(gates: list[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the verdicts of the gates that a check is about: those of times, and all others."""
    times = [gate for gate in gates if gate["gate"].endswith("_ms")]
    return {"quality_gates": [gate for gate in gates if gate not in times], "latency_gates": times}


def table_of(gates: list[Mapping[str, Any]]) -> str:
    """Return verdicts as a table in Markdown."""
    rows = [[gate["gate"], "passed" if gate["passed"] else "FAILED", gate["reason"]] for gate in gates]
    return _table(("gate", "verdict", "why"), rows) if rows else "none are configured"


def _registry(config: Config, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the version is in the registry: the page of a server, else what to call it there."""
    uri, model, version = config.exec.tracking_uri, summary["model"], summary["version"]
    if uri.startswith(("http://", "https://")) and "@" not in uri:
        return {"raw_value": f"{uri.rstrip('/')}/#/models/{model}/versions/{version}", "type": "url"}
    return {"raw_value": f"recdistill show {model}: version {version}", "type": "text"}


def _lint(config: Config, summary: Mapping[str, Any]) -> dict[str, Any]:
    findings = _facts(config, summary, "split").get("lint", [])
    texts = [each["text"] for each in findings if isinstance(each, Mapping)]
    return {"split": _markdown("\n".join(f"* {text}" for text in texts) or "nothing was found")}


def _facts(config: Config, summary: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    from recdistill.store import open_artifact

    return open_artifact(Path(config.exec.store) / stage / summary["fingerprints"][stage]).manifest.facts


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    cells = [list(head), ["---"] * len(head), *([str(cell).replace("|", "/") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _markdown(text: str) -> dict[str, str]:
    return {"raw_value": text, "type": "md"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
