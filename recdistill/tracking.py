"""MLflow runs: one parent per pipeline execution, one child per stage. `recdistill.registry` holds the versions."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from recdistill.serve import Bundle
from recdistill.tracking_store import MLFLOW_ENV, fluent, initialise, insist, shown, sqlite_file, store

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "MLFLOW_ENV",
    "DatasetFacts",
    "StageRun",
    "flatten",
    "fluent",
    "initialise",
    "insist",
    "log_report",
    "record",
    "run_report",
    "shown",
    "signature",
    "sqlite_file",
    "store",
]
CHUNK = 100  # MLflow takes no more parameters in one request
LONGEST = 6000  # characters of a parameter's value
REPORT = "report/report.json"


class StageRun(TypedDict):
    """What one stage leaves in its child run."""

    stage: str
    fingerprint: str
    seconds: float
    params: NotRequired[Mapping[str, Any]]
    metrics: NotRequired[Mapping[str, float]]
    artifacts: NotRequired[Sequence[Path]]


class DatasetFacts(TypedDict):
    """What the parent run says of the data."""

    name: str
    digest: str
    rows: int


def run_report(uri: str, run_id: str) -> dict[str, Any] | None:
    """Return report.json of a run; None if it has none."""
    with store(uri) as client, tempfile.TemporaryDirectory() as folder:
        if not any(file.path == REPORT for file in client.list_artifacts(run_id, "report")):
            return None
        return json.loads(Path(client.download_artifacts(run_id, REPORT, folder)).read_text(encoding="utf-8"))


def record(
    uri: str,
    experiment: str,
    run_name: str,
    stages: Sequence[StageRun],
    dataset: DatasetFacts,
    report_dir: Path,
    artifact_root: Path | None = None,
) -> str:
    """Record one execution and return its parent run's id; the report's files go under `report` of the parent.

    A stage's metrics are also the parent's, as `<stage>.<metric>`, so that executions compare in one table.
    `artifact_root` is where a new experiment keeps its files; None is `mlartifacts` beside an SQLite file, or the
    server's own choice.
    """
    with store(uri) as client:
        experiment_id = _experiment(client, uri, experiment, artifact_root)
        end = int(time.time() * 1000)
        start = end - int(1000 * sum(s["seconds"] for s in stages))
        parent = client.create_run(experiment_id, start_time=start, run_name=run_name).info.run_id
        try:
            _log_dataset(client, parent, dataset)
            for stage in stages:
                start = _child(client, experiment_id, parent, stage, start)
            metrics = {f"{s['stage']}.{name}": v for s in stages for name, v in s.get("metrics", {}).items()}
            _log(client, parent, {}, metrics)
            if report_dir.is_dir():
                client.log_artifacts(parent, str(report_dir), "report")
        except BaseException:
            client.set_terminated(parent, "FAILED")
            raise
        client.set_terminated(parent, "FINISHED", end_time=end)
    return parent


def log_report(uri: str, run: str, report_dir: Path) -> None:
    """Put the report's files under `report` of a run, in place of what is there."""
    with store(uri) as client:
        client.log_artifacts(run, str(report_dir), "report")


def signature(bundle: Bundle) -> Any:
    """Return the MLflow signature of the served model: what it answers has the bundle's types, also that of a gate.

    What it is asked has any, for the model checks it: of a column of whole numbers MLflow makes whole numbers, 1000 of
    1000.5 and 1 of true, so that another user would be answered for; and it refuses lists beside rows that have none.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array

    item = DataType.string if isinstance(bundle.item_ids[0], str) else DataType.long
    asked = Schema([ColSpec(AnyType(), "user_id"), ColSpec(AnyType(), "history", required=False)])
    given = [("item_ids", Array(item)), ("scores", Array(DataType.double)), ("source", DataType.string)]
    given += [("defer", DataType.boolean)] if bundle.deferral is not None else []
    answer = Schema([ColSpec(kind, name) for name, kind in given])
    params = [ParamSpec("k", DataType.long, 10), ParamSpec("exclude_seen", DataType.boolean, False)]
    return ModelSignature(asked, answer, ParamSchema(params))


def _child(client: MlflowClient, experiment_id: str, parent: str, stage: StageRun, start: int) -> int:
    """Record one stage under its parent and return when it ended, in milliseconds since 1970."""
    tags = {
        "mlflow.parentRunId": parent,
        "recdistill.stage": stage["stage"],
        "recdistill.fingerprint": stage["fingerprint"],
    }
    run = client.create_run(experiment_id, start_time=start, tags=tags, run_name=stage["stage"]).info.run_id
    end = start + int(1000 * stage["seconds"])
    try:
        _log(client, run, stage.get("params", {}), {**stage.get("metrics", {}), "seconds": stage["seconds"]})
        for path in stage.get("artifacts", ()):
            (client.log_artifacts if path.is_dir() else client.log_artifact)(run, str(path))
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run, "FINISHED", end_time=end)
    return end


def _log(client: MlflowClient, run: str, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    values = [Metric(_key(name), float(v), now, 0) for name, v in metrics.items()]
    texts = [Param(_key(name), str(v)[:LONGEST]) for name, v in flatten(params).items()]
    for i in range(0, max(len(values), len(texts)), CHUNK):
        client.log_batch(run, values[i : i + CHUNK], texts[i : i + CHUNK])


def _log_dataset(client: MlflowClient, run: str, dataset: DatasetFacts) -> None:
    from mlflow.entities import Dataset, DatasetInput

    source = json.dumps({"name": dataset["name"]})
    profile = json.dumps({"rows": dataset["rows"]})
    # MLflow keeps 36 characters of a digest.
    logged = Dataset(dataset["name"], dataset["digest"][:36], "recdistill", source, profile=profile)
    insist(lambda: client.log_inputs(run, [DatasetInput(logged)]))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested sections as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _key(name: str) -> str:
    """Return `name` with what MLflow refuses in a key replaced: recall@10 becomes recall_at_10."""
    return re.sub(r"[^\w\-. /:]", "_", name.replace("@", "_at_"), flags=re.ASCII)


def _experiment(client: MlflowClient, uri: str, name: str, artifact_root: Path | None) -> str:
    from mlflow import MlflowException

    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    file = sqlite_file(uri)
    root = artifact_root or (file.parent / "mlartifacts" if file else None)
    try:
        return client.create_experiment(name, artifact_location=root.resolve().as_uri() if root else None)
    except MlflowException as cause:
        found = client.get_experiment_by_name(name)
        if cause.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return found.experiment_id  # another process made it between our two lines
