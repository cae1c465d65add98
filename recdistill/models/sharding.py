"""How tables are handed to TorchRec: fused with their optimizer, laid out by a plan, on a CPU in every layout too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

Optimizer = Literal["rowwise_adagrad", "adagrad", "sgd", "adam"]
EPS = 1e-8  # of Adagrad, one in every layout: the gradients of a large batch are small enough for it to matter


def fuse(tables: Mapping[str, nn.Module], optimizer: Optimizer, lr: float) -> None:
    """Have the backward pass update `tables`, each an EmbeddingBagCollection; Adam's are updated after it."""
    import torch
    import torchrec
    from torch.distributed.optim import _apply_optimizer_in_backward as apply_in_backward

    fused = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "rowwise_adagrad": torchrec.optim.RowWiseAdagrad}
    settings = {"lr": lr} if optimizer == "sgd" else {"lr": lr, "eps": EPS}
    for table in tables.values() if optimizer in fused else ():
        apply_in_backward(fused[optimizer], table.parameters(), settings)


def sharding_plan(plan: Mapping[str, Any]) -> Any:
    """Return what `plan_tables` returned in TorchRec's form."""
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import CacheAlgorithm
    from torch.distributed._shard.metadata import ShardMetadata
    from torch.distributed._shard.sharding_spec import EnumerableShardingSpec
    from torchrec.distributed.planner.utils import placement
    from torchrec.distributed.types import CacheParams, EmbeddingModuleShardingPlan, ParameterSharding, ShardingPlan

    made: dict[str, Any] = {}
    for row in plan["tables"]:
        shards = [
            ShardMetadata(
                shard_offsets=[s["rows"][0], s["columns"][0]],
                shard_sizes=[s["rows"][1] - s["rows"][0], s["columns"][1] - s["columns"][0]],
                placement=placement(plan["device"], s["rank"], plan["local"]),
            )
            for s in row["shards"]
        ]
        cached = None
        if row["cache"] is not None:
            cached = CacheParams(algorithm=CacheAlgorithm.LRU, load_factor=row["cache"])
        sharding = ParameterSharding(
            sharding_type=row["sharding"],
            compute_kernel=row["kernel"],
            ranks=[s["rank"] for s in row["shards"]],
            sharding_spec=None if row["sharding"] == "data_parallel" else EnumerableShardingSpec(shards),
            cache_params=cached,
        )
        made[row["path"]] = EmbeddingModuleShardingPlan({row["table"]: sharding})
    return ShardingPlan(plan=made)


def sharder() -> Any:
    """Return a sharder that offers every layout on a CPU too, and stops at an id out of range.

    TorchRec leaves row-wise out there though its kernels have it, and maps a bad id to row 0 with one warning.
    """
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder

    class Sharder(EmbeddingBagCollectionSharder):
        def sharding_types(self, compute_device_type: str) -> list[str]:  # noqa: ARG002
            return ["data_parallel", "table_wise", "row_wise", "column_wise", "table_row_wise", "grid_shard"]

    return Sharder(fused_params={"bounds_check_mode": BoundsCheckMode.FATAL})
