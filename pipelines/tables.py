"""The command that lays tables over ranks of which none need be here: plan-tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pipelines.commands import File, Method, Sets
from pipelines.console import Json, say, table
from recdistill.errors import ConfigError

if TYPE_CHECKING:
    from recdistill.config import Config
    from recdistill.types import Dataset

GB = 10**9
SHARDS = ("table", "layout", "rank", "rows", "columns", "weights MB", "optimizer MB")
RANKS = ("rank", "weights GB", "optimizer GB", "planned GPU GB", "planned host GB")
Positive = Annotated[int | None, Parameter(show_default=False)]


def plan_tables(
    config: File,
    /,
    *,
    world: int = 1,
    local: Positive = None,
    hbm_gb: float | None = None,
    ddr_gb: float | None = None,
    users: Positive = None,
    items: Positive = None,
    method: Method = None,
    sets: Sets = (),
    json: Json = False,
) -> int:
    """Show where the tables of a run would lie on so many processes, and their bytes on each; nothing is trained.

    No GPU and no further process need be here. Rows are counted in the log that the run has split, or stated.

    Parameters
    ----------
    world
        Processes; one for each GPU.
    local
        Processes of one host; all of them if left out.
    hbm_gb
        Memory of one GPU, in 10^9 bytes. Left out, exec.topology.hbm_gb; without either the plan is of CPUs.
    ddr_gb
        Memory of one host. Left out, exec.topology.ddr_gb, and without that, what this machine has.
    users
        Rows of the users' table, with `items`, where there is no log yet; features are then not counted.
    items
        Rows of the items' table.
    """
    from recdistill.config import load_config
    from recdistill.placing import plan_model, rank_rows, shard_rows

    found = load_config(config, sets, method)
    host = local or world
    if world < 1 or host < 1 or world % host:
        raise ConfigError(f"--world {world} is not a number of hosts with --local {host} each", where="usage")
    dataset = _dataset(found, users, items)
    where = {"size": world, "local": host, "device": "cpu"}
    plans: dict[str, Any] = {}
    for name, (model, train) in _models(found).items():
        place = found.exec.placement(train.batch)
        hbm = place.hbm if hbm_gb is None else int(hbm_gb * GB)
        place = replace(place, hbm=hbm, ddr=place.ddr if ddr_gb is None else int(ddr_gb * GB))
        where["device"] = "cpu" if hbm is None else "cuda"
        plans[name] = plan_model(model, train.optimizer, dataset, place, **where)
    lines: list[str] = []
    for name, plan in plans.items():
        lines += [f"{name}:", table(shard_rows(plan), SHARDS), "", table(rank_rows(plan), RANKS), ""]
    say({"models": plans}, "\n".join(lines[:-1]), as_json=json)
    return 0


def _models(config: Config) -> dict[str, tuple[Any, Any]]:
    """Return each model that a run trains, by where the file says it."""
    from recdistill.yamlfile import dotted

    trained = {dotted(("teacher", *at)): (model, train) for at, model, train in config.teacher.trained()}
    return trained | {"student": (config.student.model, config.student.train)}


def _dataset(config: Config, users: int | None, items: int | None) -> Dataset:
    from pipelines import distill
    from recdistill.data.dataset import read_dataset
    from recdistill.placing import nobody

    if (users is None) != (items is None):
        raise ConfigError("--users and --items are given together, or both left out", where="usage")
    if users is not None and items is not None:
        return nobody(users, items)
    made = {row["stage"]: row for row in distill.plan(config)}
    if any(made[stage]["state"] != "hit" for stage in ("ingest", "split")):
        fix = "recdistill run FILE --until split, or state --users and --items"
        raise ConfigError("the log is not split yet, so nobody knows how many rows the tables have", fix=fix)
    return read_dataset(Path(made["ingest"]["path"]), Path(made["split"]["path"]))
