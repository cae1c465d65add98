"""The stage that learns whom the served student should ask its teacher about, and measures what asking gains.

The gate is fitted to validation users, whom the models know by their training interactions, and judged on test users,
known by both parts, as at serving. Lists, features and queries are those of the bundle and its index: what is judged
is what serves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from recdistill.measure import Judged
from recdistill.report import ReportSpec
from recdistill.spec import Spec
from recdistill.store import Step, write_text
from recdistill.types import Artifact, Dataset

if TYPE_CHECKING:
    from recdistill.deferral_crowd import Crowd
    from recdistill.gains.paired import Real
    from recdistill.serve_gate import Gate
    from recdistill.stages import Data, Run

TENTHS = tuple(i / 10 for i in range(11))


class DeferSpec(Spec):
    """Whom the served student asks its teacher about, where it may for a share of the users."""

    budget: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the traffic that the teacher can answer."""
    k: PositiveInt = 10
    """Length of what is shown, by which quality is measured."""
    depth: Annotated[int, Field(ge=2)] = 50
    """Items of the student's list: those that the gate reads, and that the teacher re-ranks."""
    metric: Literal["recall", "ndcg", "mrr", "hit", "precision"] = "ndcg"
    """What asking is to gain."""


def defer(data: Data, judged: Judged, spec: DeferSpec, report: ReportSpec, run: Run) -> Artifact:
    """Student behind its index, and teacher -> defer.json, and the bundle with the gate that asks within the budget."""
    kept = {n: f for n, f in judged.inputs().items() if n in ("index", "teacher")}
    if judged.labels is not None and judged.teacher.external is not None:
        kept["labels"] = judged.labels.fingerprint
    config = {"defer": spec, "bootstrap": report.bootstrap, "seed": report.seed, "compute": judged.candidates.compute}
    step = Step("defer", 1, config, data.inputs | kept)

    def work(out: Path) -> Mapping[str, Any]:
        return _work(data.read(), judged, spec, report, out, step.fingerprint)

    return run.build(step, work)


def _work(
    dataset: Dataset, judged: Judged, spec: DeferSpec, report: ReportSpec, out: Path, fingerprint: str
) -> dict[str, Any]:
    from recdistill.bundle import gated_bundle
    from recdistill.data.sequences import Sequences
    from recdistill.deferral_crowd import crowd
    from recdistill.evaluate import merge
    from recdistill.gains.defer import FEATURES, fit_gate

    scale = 1.0 / float(getattr(judged.student[0].spec, "temperature", 1.0))
    popularity = np.log1p(np.bincount(dataset.train.items, minlength=dataset.num_items)).astype(np.float32)
    seen = merge(dataset.train, dataset.valid)
    how = {"k": spec.k, "depth": spec.depth, "metric": spec.metric, "scale": scale, "popularity": popularity}
    fitted = crowd(dataset, judged, dataset.train, dataset.valid, **how)
    tested = crowd(dataset, judged, seen, dataset.test, **how)
    gate = fit_gate(fitted.features, fitted.gains)
    eta = held(gate(tested.features), spec.budget)
    sides = {name: getattr(gate, name).tolist() for name in ("mean", "spread", "weights")}
    said = {"features": list(FEATURES), **sides, "shift": gate.shift, "threshold": eta, "scale": scale}
    told = spec.model_dump(mode="json") | said
    sequences = Sequences.of(seen)
    gated_bundle(
        judged.index.path / "bundle",
        out / "bundle",
        gate=told,
        popularity=popularity,
        offsets=sequences.indptr.numpy(),
        items=sequences.items.numpy(),
        fingerprint=fingerprint,
    )
    found = findings(gate, eta, fitted, tested, spec, times=report.bootstrap, seed=report.seed)
    write_text(out / "gate.json", json.dumps(told, indent=1, sort_keys=True) + "\n")
    write_text(out / "defer.json", json.dumps(found, indent=1) + "\n")
    return {"budget": spec.budget, "rate": found["rate"], "gain": found["gate"]["value"]}


def held(predicted: Real, budget: float) -> float:
    """Return the threshold that holds the budget over predictions [n], of users as they are served.

    It takes no truth to set. It lies halfway between two predictions, so that rounding moves nobody across it.
    """
    from recdistill.gains.defer import threshold

    eta = threshold(predicted, budget)
    above = predicted[predicted > eta].min(initial=np.inf)
    middle = (eta + above) / 2
    return float(middle) if eta < middle < above < np.inf else eta


def findings(
    gate: Gate, eta: float, fitted: Crowd, tested: Crowd, spec: DeferSpec, *, times: int, seed: int
) -> dict[str, Any]:
    """Return what a report says of `gate`, fitted to `fitted`, that asks about users of whom it predicts above `eta`.

    What `gate`, `random`, `entropy` and `oracle` gain, they gain at the rate at which the gate asks about `tested`: a
    gate that asks less than it may is not held against one that asks more. Intervals are over users, paired, by `times`
    resamples. The `share` is of what asking about everybody gains, None where that is not surely a gain. The `drift` is
    how often the gate would ask had its threshold been set on `fitted`, before histories grew by the validation part.
    """
    from recdistill.gains.defer import FEATURES, judge, threshold

    features = np.concatenate([fitted.features, tested.features])
    gains = np.concatenate([fitted.gains, tested.gains])
    part = np.arange(len(gains)) < len(fitted.gains)
    predicted = gate(tested.features)
    asked = predicted > eta
    rate = float(asked.mean())
    curve = judge(features, gains, part, budgets=sorted({*TENTHS, spec.budget}))
    here = judge(features, gains, part, budgets=[rate])
    columns = {
        "gate": tested.gains * asked,
        "random": tested.gains * rate,
        "lead": tested.gains * asked - tested.gains * rate,
        "cascade": tested.gains,
        "student": tested.quality,
    }
    rows = _intervals(columns, times, seed)
    whole = rows["cascade"]
    names = ("budget", "rate", "gain", "random", "entropy", "oracle")
    points = zip(*(getattr(curve, name).tolist() for name in names), strict=True)
    return {
        **spec.model_dump(mode="json"),
        "users": len(tested.gains),
        "fitted_users": len(fitted.gains),
        "known": min(fitted.known, tested.known),
        "rate": rate,
        "drift": float((predicted > threshold(gate(fitted.features), spec.budget)).mean()),
        **rows,
        "entropy": float(here.entropy[0]),
        "oracle": float(here.oracle[0]),
        "share": rows["gate"]["value"] / whole["value"] if whole["low"] > 0 else None,
        "weights": dict(zip(FEATURES, gate.weights.tolist(), strict=True)),
        "curve": [dict(zip(names, point, strict=True)) for point in points],
    }


def _intervals(columns: Mapping[str, Real], times: int, seed: int) -> dict[str, dict[str, float]]:
    from recdistill.metrics import bootstrap, interval

    resampled = bootstrap(np.stack(list(columns.values()), axis=1), times, seed).T
    found = {}
    for (name, values), means in zip(columns.items(), resampled, strict=True):
        low, high = interval(means)
        found[name] = {"value": float(values.mean()), "low": low, "high": high}
    return found
