"""Where tables lie: TorchRec's planner, asked once for all of them, and its answer as a plain value for a file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from recdistill.errors import StageError
from recdistill.models.placement import Placement
from recdistill.models.sharding import Optimizer, sharder

SHARDING = {"grid": "grid_shard"}  # where TorchRec has another word
HELD_BACK = 0.1  # of a device's memory, for what is no table
GB = 10**9
STATE = {"sgd": 0.0, "adagrad": 1.0, "adam": 2.0}  # numbers an optimizer keeps for each weight; row-wise, for each row


def plan_tables(
    module: nn.Module,
    tables: Mapping[str, nn.Module],
    *,
    optimizer: Optimizer,
    place: Placement,
    size: int,
    local: int,
    device: str,
) -> dict[str, Any]:
    """Return where the tables of `module` lie in a world of `size` ranks, `local` to a host, as JSON-able values.

    `tables` are its EmbeddingBagCollections by path, already fused with `optimizer`; they may be on the meta device,
    and no rank and no GPU need be there. Bytes are of weights and of the optimizer, and under `planned` all that the
    planner reckons with, inputs and outputs included. Raises StageError if the tables do not fit, or cannot lie so.
    """
    from torchrec.distributed.planner import EmbeddingShardingPlanner
    from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
    from torchrec.distributed.planner.types import KernelConfig, PlannerError, TopologyFactory, TrainerConfig

    kind = device.partition(":")[0]
    _possible(place, size, local, kind)
    hbm, ddr = _memory(place, kind)
    limits = TrainerConfig(
        world_size=size, local_world_size=local, hbm_cap_bytes=hbm or None, ddr_cap_bytes=ddr // local
    )
    names = {config.name: config for ebc in tables.values() for config in ebc.embedding_bag_configs()}  # pyrefly: ignore
    best: list[Any] = []
    with _quiet():
        planner = EmbeddingShardingPlanner(
            topology=TopologyFactory.create_topology(limits, kernel_config=KernelConfig(compute_device=kind)),
            batch_size=max(1, place.batch // size),
            constraints={n: _constraint(c, optimizer, place, size, local, kind) for n, c in names.items()},
            storage_reservation=FixedPercentageStorageReservation(HELD_BACK),
            callbacks=[lambda options: best.extend(options) or options],
            debug=False,
        )
        try:
            planner.plan(module, [sharder()])  # pyrefly: ignore
        except (PlannerError, RuntimeError) as cause:
            world = f"a world of {size}, {local} to a host of {ddr / GB:.3g} GB" + f", {hbm / GB:.3g} GB a GPU" * (
                hbm > 0
            )
            raise _refused(cause, names, place, world) from cause
    rows = [_row(option, optimizer) for option in sorted(best, key=lambda o: o.path)]
    return {
        "world": size,
        "local": local,
        "device": kind,
        "optimizer": optimizer,
        "hbm_bytes": hbm,
        "ddr_bytes": ddr,
        "tables": rows,
        "ranks": [_load(rows, rank) for rank in range(size)],
    }


def _constraint(config: Any, optimizer: Optimizer, place: Placement, size: int, local: int, device: str) -> Any:
    """Return what the planner may choose from for one table: nothing that would be another algorithm."""
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import CacheAlgorithm
    from torchrec.distributed.planner.types import ParameterConstraints
    from torchrec.distributed.types import CacheParams

    said = place.of(config.name)
    layout = "data_parallel" if said == "auto" and optimizer == "adam" else said
    if layout == "auto":
        types = ["table_wise"] if size == 1 else ["table_wise", "row_wise"]
        types += ["table_row_wise"] if size > local else []
        types += ["column_wise"] if size > 1 and optimizer != "rowwise_adagrad" else []
    else:
        types = [SHARDING.get(layout, layout)]
    kernels, cached = ["fused"], None
    if layout == "data_parallel":
        kernels = ["dense"]
    elif place.cache is not None:
        kernels = ["fused_uvm_caching" if place.cache else "fused_uvm"]
        cached = CacheParams(algorithm=CacheAlgorithm.LRU, load_factor=place.cache) if place.cache else None
    elif device == "cuda":
        kernels.append("fused_uvm_caching")
    shares = size // local if layout == "grid" else size
    narrow = config.embedding_dim // shares // 4 * 4  # the kernels read four columns at a time
    return ParameterConstraints(
        sharding_types=types, compute_kernels=kernels, cache_params=cached, min_partition=max(4, narrow)
    )


def _row(option: Any, optimizer: Optimizer) -> dict[str, Any]:
    """Return what is kept of a table's place: its shards, with the bytes of each."""
    rows, dim = option.tensor.shape
    shards = []
    for shard in option.shards:
        (height, width), (row, column) = shard.size, shard.offset
        state = height if optimizer == "rowwise_adagrad" else int(STATE[optimizer] * height * width)
        shards.append(
            {
                "rank": shard.rank,
                "rows": [row, row + height],
                "columns": [column, column + width],
                "weight_bytes": 4 * height * width,
                "optimizer_bytes": 4 * state,
                "planned": {"hbm_bytes": shard.storage.hbm, "ddr_bytes": shard.storage.ddr},
            }
        )
    cached = option.cache_params.load_factor if option.cache_params is not None else None
    return {
        "path": option.path,
        "table": option.name,
        "rows": rows,
        "dim": dim,
        "sharding": option.sharding_type,
        "kernel": option.compute_kernel,
        "cache": cached,
        "shards": shards,
    }


def _load(rows: list[dict[str, Any]], rank: int) -> dict[str, Any]:
    shards = [shard for row in rows for shard in row["shards"] if shard["rank"] == rank]
    names = ("weight_bytes", "optimizer_bytes")
    planned = {name: sum(s["planned"][name] for s in shards) for name in ("hbm_bytes", "ddr_bytes")}
    return {"rank": rank, **{name: sum(s[name] for s in shards) for name in names}, "planned": planned}


def _possible(place: Placement, size: int, local: int, device: str) -> None:
    """Raise StageError if the world has not what a layout needs."""
    said = [place.tables] if isinstance(place.tables, str) else list(place.tables.values())
    if "grid" in said and size <= local:
        what = (
            f"grid cuts a table's columns over hosts and its rows over each one's processes; here is one host of {size}"
        )
        raise StageError(
            what, where="exec.tables", fix="use column_wise or row_wise, or more hosts (torchrun --nnodes)"
        )
    if place.cache is not None and device != "cuda":
        what = "a cache on the GPU of tables in the host's memory needs a GPU, and this run is on the CPU"
        raise StageError(
            what, where="exec.cache", fix="leave exec.cache out: the tables are in the host's memory anyway"
        )


def _memory(place: Placement, device: str) -> tuple[int, int]:
    """Return the bytes of a GPU (0 without) and of a host: as said, else as measured here."""
    hbm, ddr = place.hbm or 0, place.ddr
    if device == "cuda" and place.hbm is None:
        import torch

        hbm = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    if ddr is None:
        import psutil

        limit = Path("/sys/fs/cgroup/memory.max")  # of a container, which may have less than its machine
        word = limit.read_text().strip() if limit.is_file() else "max"
        ddr = min(psutil.virtual_memory().total, int(word) if word.isdigit() else 2**63)
    return hbm, ddr


def _refused(cause: Exception, names: Mapping[str, Any], place: Placement, plan: str) -> StageError:
    """Return what the planner's refusal means to who asked."""
    kind = getattr(getattr(cause, "error_type", None), "value", "")
    weights = sum(4 * c.num_embeddings * c.embedding_dim for c in names.values()) / GB
    if kind in ("insufficient_storage", "partition", "strict_constraints"):
        what = f"the tables do not fit in {plan}: their weights alone are {weights:.3g} GB"
        fix = "more processes or hosts, a smaller dim, or state the memory in exec.topology if there is more"
        return StageError(what, where="exec.tables", fix=fix)
    what = f"the planner finds no place for the tables as {place.tables} in {plan}: {str(cause).splitlines()[0]}"
    return StageError(what, where="exec.tables", fix="use exec.tables: auto")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the planner says to those who write planners."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
