"""A run on a Ray cluster, by the same stage functions: Ray Data spreads ingest and label shards, Ray Train trains.

What is left, index, evaluation, report and registration, this process does, which finds the rest in the store.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.commands import File, Method, Sets
from pipelines.console import Json, say
from recdistill import errors
from recdistill.errors import ArtifactError, ConfigError, RecdistillError, StageError

if TYPE_CHECKING:
    from recdistill.config import Config

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_TRAIN_V2_ENABLED": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is run, and from which directory: relative paths mean the same on every machine."""

    config: Config
    home: str
    workers: int  # processes that train together
    shards: int  # shares of the labels


def on_ray(
    config: File,
    /,
    *,
    workers: int = 1,
    shards: int | None = None,
    method: Method = None,
    sets: Sets = (),
    json: Json = False,
) -> int:
    """Run every stage as `run` does, on the Ray cluster of RAY_ADDRESS, or the one that runs here, or one of its own.

    Every machine has recdistill installed, and sees this directory, the data and exec.store by the same paths.

    Parameters
    ----------
    workers
        Processes that train together, each with a GPU of its own where the cluster has as many.
    shards
        Into how many shares the labels are cut; left out, one a worker.
    """
    from pipelines.distill import distill
    from pipelines.models import prepare_mlflow
    from pipelines.progress import progress
    from recdistill.config import load_config
    from recdistill.stages import Run
    from recdistill.world import world

    if min(workers, 1 if shards is None else shards) < 1:
        raise ConfigError("--workers and --shards are at least 1", where="usage", fix="leave them out for one process")
    found = load_config(config, sets, method)
    prepare_mlflow()
    asked = Asked(config=found, home=str(Path.cwd()), workers=workers, shards=shards or workers)
    with connected(quiet=json):
        for made in parts(asked):
            unseen = [path for path in made if not Path(path).exists()]
            if unseen:
                fix = "set exec.store to a directory that all machines of the cluster and this one share"
                raise ArtifactError("a machine of the cluster wrote it, and it is not here", where=unseen[0], fix=fix)
    command = shlex.join(["recdistill", *sys.argv[1:]])
    with progress(json=json) as log, world(device=found.exec.device, threads=found.exec.threads) as joined:
        outcome = distill(found, Run(store=Path(found.exec.store), world=joined, log=log), command=command)
    say(outcome.summary(), outcome.text(), as_json=json)
    return 0


def parts(asked: Asked) -> Iterator[Sequence[str]]:
    """Yield the paths of what each part of a run has made on the cluster, as it is done."""
    config = asked.config
    external = config.teacher.model.kind == "external"
    yield spread(asked, "split", ["1/1"])
    yield train(asked, "scratch" if external else "teacher")
    flips = config.labels.transfer is not None and config.labels.transfer.kind == "flips"  # which one machine makes
    if (config.distill or external) and not flips:
        yield spread(asked, "labels", [f"{i + 1}/{asked.shards}" for i in range(asked.shards)])
    yield train(asked, "student")


def spread(asked: Asked, until: str, shares: Sequence[str]) -> list[str]:
    """Run the stages to `until` once a share, each in a task of Ray Data's; return the paths of what they made."""
    cpus = asked.config.exec.threads or 1
    rows = _module("ray.data").from_items([{"share": share} for share in shares], override_num_blocks=len(shares))
    made = rows.map(partial(_row, asked, until), num_cpus=cpus)
    found = made.take_all()
    for row in found:
        if row["kind"]:
            raise getattr(errors, row["kind"])(row["text"])
    return [path for row in found for path in row["paths"]]


def train(asked: Asked, until: str) -> list[str]:
    """Run the stages to `until` in processes of Ray Train's, which train together; return the paths of what they made.

    torch's process group is Ray's: gloo for what is on the CPU, NCCL for what is on a GPU.
    """
    from recdistill.world import HUNG, backend

    how, ray_train, ray_torch = asked.config.exec, _module("ray.train"), _module("ray.train.torch")
    gpus = how.device != "cpu" and _module("ray").cluster_resources().get("GPU", 0) >= asked.workers
    group, patience = backend("cuda" if gpus else "cpu"), int(HUNG.total_seconds())
    each = {"CPU": how.threads or 1} | ({"GPU": 1} if gpus else {})
    trainer = ray_torch.TorchTrainer(
        partial(work, asked, until),
        scaling_config=ray_train.ScalingConfig(num_workers=asked.workers, use_gpu=gpus, resources_per_worker=each),
        run_config=ray_train.RunConfig(name=until, storage_path=str(Path(how.store).absolute().parent / "ray")),
        torch_config=ray_torch.TorchConfig(backend=group, timeout_s=patience),
    )
    try:
        return trainer.fit().return_value or []
    except ray_train.WorkerGroupError as error:
        failed = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
        ours = next((cause for cause in failed if isinstance(cause, RecdistillError)), None)
        if ours is None:
            raise
        raise ours from None


def work(asked: Asked, until: str, share: str | None = None) -> list[str]:
    """Run the stages to `until` in this process, alone or among its peers; return the paths of what they made."""
    from pipelines.distill import distill
    from recdistill.shards import Share
    from recdistill.stages import Run
    from recdistill.world import world

    how = asked.config.exec
    try:
        os.chdir(asked.home)
    except OSError as cause:
        fix = "start from a directory that all machines of the cluster share"
        raise ArtifactError(f"a machine of the cluster does not see it: {cause}", where=asked.home, fix=fix) from None
    with world(device=how.device, threads=how.threads) as joined:
        part = None if share is None or until != "labels" else Share.parse(share)
        outcome = distill(asked.config, Run(store=Path(how.store), world=joined, share=part), until=until)
    return [str(artifact.path.absolute()) for made in outcome.made for artifact in made.artifacts]


def _row(asked: Asked, until: str, row: Mapping[str, str]) -> dict[str, Any]:
    """Return the paths, or an error as text: of one that is raised Ray Data keeps the words and loses the kind."""
    try:
        return {"paths": work(asked, until, row["share"]), "kind": "", "text": ""}
    except RecdistillError as error:
        return {"paths": [], "kind": type(error).__name__, "text": str(error)}


@contextmanager
def connected(*, quiet: bool) -> Iterator[None]:
    """Be connected to a Ray cluster inside the block; raises StageError where Ray is not installed."""
    for name, value in QUIET.items():  # before Ray is imported, which reads them then
        os.environ.setdefault(name, value)
    ray, _, _ = (_module(name) for name in ("ray", "ray.data", "ray.train.torch"))
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.WARNING)
    ray.init(log_to_driver=not quiet, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def _module(name: str) -> Any:
    """Return a module of Ray's, which is an extra."""
    try:
        return import_module(name)
    except ImportError as cause:
        fix = "pip install 'recdistill[ray]', here and on every machine of the cluster"
        raise StageError(f"Ray is not installed ({cause})", where="ray", fix=fix) from cause
