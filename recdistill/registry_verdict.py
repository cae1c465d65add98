"""The verdict on a registered version, recorded before anything is promoted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recdistill import registry
from recdistill import registry_versions as held
from recdistill.errors import GateRejected
from recdistill.results import GateResult, Release
from recdistill.tracking import shown, store


def decided(uri: str, model: str, version: int | None) -> bool:
    """Say whether gates have been judged for `version`; its registration alone says nothing of them."""
    return version is not None and "gate" in _found(uri, model, version)


def call_candidate(uri: str, model: str, version: int) -> None:
    """Give `version` the alias of what was registered last, which a run that was killed may not have come to."""
    with store(uri) as client:
        held.point(client, model, registry.CANDIDATE, version)


def record(uri: str, model: str, version: int, *, gates: Sequence[GateResult] | None = None) -> Release:
    """Record the verdicts of `gates` for `version`, move no alias, and return the release, with the alias it has.

    None goes by what is recorded. A version that passed may serve: `registry.promote` is what makes it, and whoever
    promotes another one beside it may find that this one is newer. Raises GateRejected, as `registry.promote` does.
    """
    if gates is not None:
        failed = [gate.reason for gate in gates if not gate.passed]
        tags = {
            registry.REASONS: held.BETWEEN.join(failed),
            registry.GATE: registry.FAILED if failed else registry.PASSED,
        }
        with store(uri) as client:
            held.tag(client, model, version, tags)
    found = _found(uri, model, version)
    if found.get("gate") != registry.PASSED:
        reasons = (found.get("reasons") or "its gates were never judged").split(held.BETWEEN)
        what = f"{model} version {version} stays registered but may not serve"
        fix = "improve the student, or override with `recdistill promote --force`"
        raise GateRejected(what, reasons=reasons, fix=fix)
    alias = registry.CHAMPION if registry.CHAMPION in found["aliases"] else None
    verdicts, run = tuple(gates or ()), found["run_id"]
    return Release(model=model, version=version, alias=alias, gates=verdicts, uri=shown(uri), run_id=run)


def _found(uri: str, model: str, version: int) -> dict[str, Any]:
    return next((each for each in registry.history(uri, model) if each["version"] == version), {})
