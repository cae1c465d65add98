"""The gates of a candidate, with the champion timed beside it in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recdistill import registry
from recdistill.config import Config
from recdistill.gates import BESIDE, CHAMPION, judge
from recdistill.gates_measured import bundle_facts
from recdistill.latency_spec import LatencySpec
from recdistill.latency_stats import warning
from recdistill.results import GateResult
from recdistill.types import Dataset


def judged_beside(
    config: Config,
    report: dict[str, Any],
    bundle: Path,
    uri: str,
    dataset: Callable[[], Dataset],
    now: datetime | None = None,
) -> tuple[GateResult, ...]:
    """Return the gates' verdicts on `report`, to which what was measured for them is added.

    Candidate and champion are asked for the same held-out users of `dataset`, the candidate's. Their times stand beside
    those of the run, whose teacher was measured in turns with the student; each has an environment of its own. The age
    of the data is as of `now`, by default this moment.
    """
    assert config.registry is not None
    from recdistill.contest import contest
    from recdistill.latency import Target, measure

    model, now = config.registry.model, now or datetime.now(UTC)
    report["bundle"] = bundle_facts(bundle, now)
    serving = registry.champion(uri, model, trust=config.registry.trust)
    theirs = registry.champion_report(uri, model) if serving else None
    if serving:
        bundles = {BESIDE: bundle, CHAMPION: serving[1]}
        both = all((each / "histories.parquet").is_file() for each in bundles.values())
        targets = [Target(label=label, bundle=each, exclude=both) for label, each in bundles.items()]
        how = config.latency or LatencySpec()
        rows, environment = measure(targets, k=config.report.k[0], queries=how.queries, repeats=how.repeats)
        report["latency"] = [*report["latency"], *rows]
        report["latency_environment"] = report["latency_environment"] | {"beside_champion": environment}
        report["warnings"] += [f"beside the champion: {noisy}"] if (noisy := warning(environment)) else []
        asked = config.report
        told = {"version": serving[0], "bundle": bundle_facts(serving[1], now)}
        report["champion"] = told | contest(
            dataset(),
            bundle,
            serving[1],
            k=asked.k,
            metrics=asked.metrics,
            slices=asked.slices,
            times=asked.bootstrap,
            seed=asked.seed,
        )
    gates = judge(config.registry.gates, report, theirs)
    report["gates"] = [asdict(gate) for gate in gates]
    report["warnings"] += [gate.reason for gate in gates if gate.excused]
    return gates
