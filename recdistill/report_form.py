"""The form of report.json: what every reader may count on, as a pydantic model and the JSON schema made from it.

A number that could not be measured is null. A writer may add keys; one that changes the meaning of a key raises
`SCHEMA_VERSION`, and older readers then refuse the file instead of misreading it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from recdistill.diagnosis.form import Diagnosis, plain
from recdistill.errors import ArtifactError
from recdistill.report_daily import Daily
from recdistill.report_refresh import Refresh
from recdistill.surface_form import Surface

SCHEMA_VERSION = 1
Number = float | None


class Part(BaseModel):
    """The base of every part of a report."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class Verdict(Part):
    """What the registry decided; `promoted` is null where nobody judged."""

    promoted: bool | None = None
    text: str = ""
    reasons: list[str] = []
    model: str | None = None
    version: int | None = None


class Headline(Part):
    """The metric that the head line and the slices speak of."""

    metric: str = "ndcg"
    k: int = 10


class Quality(Part):
    """One measured quality with its bootstrap interval; the fields of `MetricRow`."""

    model: str
    metric: str
    k: int
    slice: str = "all"
    value: Number
    low: Number = None
    high: Number = None
    seed_spread: Number = None


class Gap(Part):
    """The share (student - scratch) / (teacher - scratch); null where the teacher does not beat the scratch model."""

    metric: str
    k: int
    share: Number
    low: Number = None
    high: Number = None


class Kept(Part):
    """The share of the teacher's value that a model keeps, by paired bootstrap."""

    model: str
    metric: str
    k: int
    share: Number
    low: Number = None
    high: Number = None


class Difference(Part):
    """Student minus scratch by paired bootstrap."""

    metric: str
    k: int
    difference: Number
    low: Number = None
    high: Number = None
    seeds: int = 1


class Latency(Part):
    """Service times in milliseconds; the fields of `LatencyRow`."""

    model: str
    part: str = "total"
    p50_ms: Number
    p95_ms: Number
    p99_ms: Number
    max_ms: Number
    queries: int | None = None
    size_bytes: int | None = None
    spread: Number = None


class Throughput(Part):
    """Queries a second of one way to ask: as many at once, on as many threads."""

    model: str
    batch: int
    threads: int
    qps: Number
    spread: Number = None


class Gate(Part):
    """One gate's verdict; the fields of `GateResult`."""

    gate: str
    passed: bool
    measured: Number = None
    required: str = ""
    reason: str = ""
    excused: bool = Field(default=False, exclude_if=lambda excused: not excused)
    margin: Number = Field(default=None, exclude_if=lambda margin: margin is None)


class Point(Part):
    """One point of a learning curve."""

    step: int
    loss: Number = None
    valid: Number = None


class StageRow(Part):
    """One stage of the run that made the report; `hit` if its artifact was found, not built."""

    stage: str
    fingerprint: str = ""
    seconds: Number = None
    hit: bool = False


class Measured(Part):
    """A mean over users, with its bootstrap interval."""

    value: Number
    low: Number = None
    high: Number = None


class Asking(Part):
    """What asking the teacher for a share of the users gains, a mean over all of them; `rate` is the share asked."""

    budget: Number
    rate: Number
    gain: Number
    random: Number
    entropy: Number
    oracle: Number


class Deferral(Part):
    """The gate that asks the teacher at serving; what is gained is of `metric` at `k`, at the `rate` it asks."""

    budget: Number
    k: int
    depth: int
    metric: str
    users: int
    fitted_users: int
    known: Number = None
    rate: Number
    drift: Number = None
    gate: Measured
    random: Measured
    lead: Measured  # of the gate over as many users by chance
    cascade: Measured  # everybody asked about
    student: Measured  # quality of the student alone
    entropy: Number
    oracle: Number
    share: Number = None
    weights: dict[str, Number] = {}
    curve: list[Asking] = []


class Contested(Part):
    """Candidate minus champion by paired bootstrap over the same users."""

    metric: str
    k: int
    slice: str
    difference: Number
    low: Number = None
    high: Number = None
    users: int


class Churned(Part):
    """The mean share of a user's first k that the champion's list does not hold."""

    k: int
    mean: Number


class BundleFacts(Part):
    """What gates read of a bundle: its bytes, the last time in its data, and how long before the verdict that was."""

    bytes: int
    data_end: str | None = None
    data_age_hours: Number = None


class Champion(Part):
    """The candidate and the champion, asked for the same users as they serve: recdistill.contest."""

    version: int | None = Field(default=None, exclude_if=lambda version: version is None)
    users: int = 0
    quality: list[Quality] = []
    differences: list[Contested] = []
    churn: list[Churned] = []
    bundle: BundleFacts | None = Field(default=None, exclude_if=lambda found: found is None)


def _linted(data: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = data.get("split", {}).get("lint") or []
    if not isinstance(found, list) or not all(isinstance(finding, dict) for finding in found):
        raise ValueError("split.lint is no list of findings")
    for finding in found:
        value, severity = finding.get("value"), finding.get("severity")
        if not isinstance(value, int | float | None) or not isinstance(severity, str | None):
            raise ValueError("a finding of split.lint has a value that is no number, or a severity that is no word")
    return data


class Report(Part):
    """The whole report."""

    schema_version: int
    name: str
    created_at: str = ""
    verdict: Verdict = Verdict()
    headline: Headline = Headline()
    quality: list[Quality] = []
    gap_closed: list[Gap] = []
    kept_of_teacher: list[Kept] = Field(default_factory=list[Kept], exclude_if=lambda rows: not rows)
    student_minus_scratch: list[Difference] = []
    latency: list[Latency] = []
    latency_environment: dict[str, Any] = {}
    throughput: list[Throughput] = Field(
        default_factory=list[Throughput], exclude_if=lambda rows: not rows
    )  # where it was measured
    index: dict[str, Any] = {}
    gates: list[Gate] = []
    data: Annotated[dict[str, dict[str, Any]], AfterValidator(_linted)] = {}  # of ingest and split
    curves: dict[str, list[Point]] = {}
    environment: dict[str, Any] = {}
    command: str = ""
    config: dict[str, Any] = {}
    stages: list[StageRow] = []
    warnings: list[str] = []
    defer: Deferral | None = Field(default=None, exclude_if=lambda found: found is None)  # where the student may ask
    refresh: Refresh | None = Field(default=None, exclude_if=lambda found: found is None)  # of a day before
    daily: Daily | None = Field(default=None, exclude_if=lambda found: found is None)  # of a night
    surface: Surface | None = Field(default=None, exclude_if=lambda found: found is None)  # ways to serve, if measured
    champion: Champion | None = Field(default=None, exclude_if=lambda found: found is None)  # where one serves
    bundle: BundleFacts | None = Field(default=None, exclude_if=lambda found: found is None)  # where gates were judged
    diagnosis: Diagnosis | None = Field(default=None, exclude_if=lambda found: found is None)  # where one was made


def check(report: Mapping[str, Any], *, where: str = "report") -> dict[str, Any]:
    """Return `report` as plain JSON values: defaults filled in, non-finite numbers null.

    Raises ArtifactError if a key is missing or of the wrong type, or if a newer version wrote it.
    """
    version = report.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        what = f"written in report schema {version}; this version reads up to {SCHEMA_VERSION}"
        raise ArtifactError(what, where=where, fix="upgrade recdistill, or make the report again")
    try:
        return Report.model_validate(plain(report)).model_dump(mode="json")
    except ValidationError as cause:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in cause.errors()]
        what = "not a report: " + "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ArtifactError(what, where=where, fix="make the report again with `recdistill report`") from cause


def schema() -> dict[str, Any]:
    """Return the JSON schema of report.json."""
    return Report.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
