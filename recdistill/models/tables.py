"""Embedding tables: ids -> vectors, on TorchRec while training, plain wherever the model serves or is measured."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from recdistill.models.alone import Kernel, kernel_of
from recdistill.models.folding import representatives
from recdistill.models.gradients import scaled_gradient, windowed
from recdistill.models.placement import Layout, Placement
from recdistill.models.plan import plan_tables
from recdistill.models.sharding import EPS, Optimizer, fuse, sharder, sharding_plan
from recdistill.world import World, backend

INIT_BLOCK = 65_536  # rows that share a generator: any shard can make just the blocks it holds
Rows = Callable[[int, int], Tensor]
"""The rows [start, stop) that a table begins with, in its first dimensions: [n, at most D]."""


class TableFactory(Protocol):
    """Makes the table a model asks for: `Table` to train, `PlainTable` to serve."""

    def __call__(self, name: str, rows: int, dim: int) -> nn.Module: ...


class PlainTable(nn.Module):
    """A table in this process's memory, read-only in practice: what an exported model runs on."""

    def __init__(self, name: str, rows: int, dim: int) -> None:  # noqa: ARG002
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, dim), requires_grad=False)

    def forward(self, rows: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the sum of each bag, [bags,D]; `lengths` [bags] cuts `rows` into bags (each of one row if None)."""
        if lengths is None:
            return nn.functional.embedding(rows, self.weight)
        return nn.functional.embedding_bag(rows, self.weight, bounds(lengths), mode="sum", include_last_offset=True)


class Table(nn.Module):
    """A table that `distribute` shards: one TorchRec EmbeddingBagCollection, created without memory."""

    still = False  # whether it learns nothing; it is looked up, and exchanged between ranks, as ever
    kernel: Kernel | None = None  # looks up what this process holds alone
    columns: tuple[int, int] | None = None  # which learn: those before stand still, those after are not there yet

    def __init__(self, name: str, rows: int, dim: int, ids: Tensor | None = None) -> None:
        super().__init__()
        from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, PoolingType

        _hush()
        config = EmbeddingBagConfig(
            name=name, embedding_dim=dim, num_embeddings=rows, feature_names=[name], pooling=PoolingType.SUM
        )
        self.name, self.rows, self.dim = name, rows, dim
        self.register_buffer("ids", ids, persistent=False)  # [n] the row of each id, where there are fewer rows
        self.ebc = EmbeddingBagCollection(tables=[config], device=torch.device("meta"))

    def forward(self, rows: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the sum of each bag, [bags,D]: one lookup, and one exchange between ranks, however many bags."""
        rows = rows if self.ids is None else self.ids[rows].long()
        if self.kernel is not None:
            offsets = torch.arange(len(rows) + 1, device=rows.device) if lengths is None else bounds(lengths)
            found = self.kernel(rows, offsets)
        else:
            from torchrec import KeyedJaggedTensor

            lengths = torch.ones_like(rows) if lengths is None else lengths
            found = self.ebc(KeyedJaggedTensor.from_lengths_sync([self.name], rows, lengths)).values()
        return scaled_gradient(found, 0.0) if self.still else windowed(found, self.columns)


def bounds(lengths: Tensor) -> Tensor:
    """Return where bags of `lengths` [bags] begin and end, [bags+1]."""
    return nn.functional.pad(lengths.cumsum(0), (1, 0))


@dataclass(frozen=True, slots=True)
class Distributed:
    """A module whose tables are spread over the world's ranks, and the one optimizer of all its parameters."""

    module: nn.Module
    device: torch.device
    optimizer: Any  # torchrec's CombinedOptimizer: tables fused in backward, the rest Adam

    rates: tuple[float, ...]  # the learning rate of each of its groups of parameters, as the run begins
    plan: Mapping[str, Any]  # where the tables lie, as `plan_tables` gives it
    decay: float = 0.0  # share of every row of a table that a step takes away at the full rate
    folds: Mapping[str, Tensor] = field(default_factory=dict)  # of plain weights of more ids than rows: each id's row

    def set_rate(self, factor: float) -> None:
        """Multiply every learning rate, as it was at the beginning, by `factor`, from the next zero_grad on."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def shrink(self, factor: float) -> None:
        """Take `factor` times the decay from every row: the fused optimizers read no weight decay, whatever is set."""
        if self.decay:
            with torch.no_grad():
                for _, _, _, shard in _shards(self.module):
                    shard.mul_(1 - factor * self.decay)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds, in torch.distributed.checkpoint's form."""
        return {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state()` returned, on any number of ranks."""
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def gather(self) -> dict[str, Tensor]:
        """Return the plain weights, named as `PlainTable` names them, on rank 0 (empty elsewhere); collective."""
        from torch.distributed._shard.sharded_tensor import ShardedTensor

        plain: dict[str, Tensor] = {}
        for name, value in self.module.state_dict().items():
            full: Tensor | None
            if isinstance(value, ShardedTensor):
                full = torch.zeros(value.metadata().size, device=self.device) if _rank() == 0 else None
                value.gather(dst=0, out=full)
            else:
                full = value.detach().cpu().clone()
            if full is not None:
                called, full = _plain_name(name), full.cpu()
                plain[called] = full[self.folds[called].long()] if called in self.folds else full
        return plain if _rank() == 0 else {}


def distribute(
    module: nn.Module,
    world: World,
    *,
    layout: Layout | Placement = "auto",
    optimizer: Optimizer,
    lr: float,
    dense_lr: float,
    weight_decay: float,
    init_std: float,
    seed: int,
    starts: Mapping[str, Rows] = MappingProxyType({}),
) -> Distributed:
    """Shard the tables of `module` over the world, fill them from `seed`, and give everything an optimizer.

    `starts` says by the name of a table's module what it begins with in the place of random rows. One process and many
    run the same lines: a world of one is a process group of one. The initial rows depend on the seed and their number
    alone, so that every layout and world size starts from the same model.
    """
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
    from torchrec.optim.optimizers import in_backward_optimizer_filter

    _join_alone(world.device)
    device = torch.device(world.device)
    found = {name: child for name, child in module.named_modules() if isinstance(child, Table)}
    tables = {f"{name}.ebc": child.ebc for name, child in found.items()}
    folds = {f"{name}.weight": child.ids.cpu() for name, child in found.items() if child.ids is not None}
    fuse(tables, optimizer, lr)
    place = layout if isinstance(layout, Placement) else Placement(layout)
    shape = {"size": world.size, "local": world.local or world.size, "device": world.device}
    plan = world.share(lambda: plan_tables(module, tables, optimizer=optimizer, place=place, **shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        whole = sharding_plan(plan)
        sharded = DistributedModelParallel(module, device=device, plan=whole, sharders=[sharder()])
    for child in found.values() if world.size == 1 else ():
        child.kernel = kernel_of(child.ebc, child.rows, child.dim)
    _fill(sharded, init_std, seed, starts, folds)
    dense = dict(in_backward_optimizer_filter(sharded.named_parameters()))
    parts: list[Any] = [sharded.fused_optimizer]
    slow = {n: p for n, p in dense.items() if ".ebc." not in n}
    if slow:
        parts.append(KeyedOptimizerWrapper(slow, lambda p: torch.optim.Adam(p, lr=dense_lr, fused=True)))
        parts[-1].init_state()  # otherwise loading a checkpoint skips the moments in silence
    # Data-parallel tables ignore the fused optimizer without a word, so an ordinary one owns them.
    replicated = {n: p for n, p in dense.items() if ".ebc." in n}
    if replicated:
        parts.append(KeyedOptimizerWrapper(replicated, partial(_plain, optimizer, lr, weight_decay)))
        _ready(parts[-1])
    combined = CombinedOptimizer(parts)
    rates = tuple(float(group["lr"]) for group in combined.param_groups)
    decay = 0.0 if optimizer == "adam" else lr * weight_decay
    told = {"rates": rates, "plan": plan, "decay": decay, "folds": folds}
    return Distributed(module=sharded, device=device, optimizer=combined, **told)


def _ready(part: Any) -> None:
    """Make the moments, without which loading a checkpoint skips them in silence: by a step that then never was."""
    decays = [group.get("weight_decay", 0.0) for group in part.param_groups]
    for group in part.param_groups:
        group["weight_decay"] = 0.0
    part.init_state()
    for group, decay in zip(part.param_groups, decays, strict=True):
        group["weight_decay"] = decay
    for moments in part.state.values():
        moments["step"].zero_()


def _plain(optimizer: Optimizer, lr: float, decay: float, parameters: Any) -> torch.optim.Optimizer:
    """Return the ordinary optimizer of tables that every rank holds whole; Adam's decay is a part of its gradient."""
    if optimizer == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=decay, fused=True)
    if optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr)
    return torch.optim.Adagrad(parameters, lr=lr, eps=EPS)


def init_rows(name: str, start: int, stop: int, dim: int, *, std: float, seed: int) -> Tensor:
    """Return the initial rows [start, stop) of table `name`: normal, the same whoever asks for them."""
    parts = []
    key = sum(byte * 257**i for i, byte in enumerate(name.encode())) % 2**31
    for block in range(start // INIT_BLOCK, (stop - 1) // INIT_BLOCK + 1 if stop > start else 0):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + key) % 2**31 * 2**31 + block)
        rows = torch.randn(INIT_BLOCK, dim, generator=generator) * std
        parts.append(rows[max(start - block * INIT_BLOCK, 0) : stop - block * INIT_BLOCK])
    return torch.cat(parts) if parts else torch.zeros(0, dim)


def _fill(sharded: nn.Module, std: float, seed: int, starts: Mapping[str, Rows], folds: Mapping[str, Tensor]) -> None:
    """Write the first rows of every shard, a block at a time: those of a whole table would be as large as it is."""
    for name, (row, column), dim, target in _shards(sharded):
        module, _, inner = name.partition(".ebc.")
        stop, columns = row + target.shape[0], slice(column, column + target.shape[1])
        known = _known(starts[module], folds.get(f"{module}.weight"), stop) if module in starts else None
        bounds = [row, *range((row // INIT_BLOCK + 1) * INIT_BLOCK, stop, INIT_BLOCK), stop]
        for at, end in pairwise(bounds):
            full = init_rows(inner.split(".")[1], at, end, dim, std=std, seed=seed)
            if known is not None:
                there, rows = known(at, end)
                full[there, : rows.shape[1]] = rows
            with torch.no_grad():
                target[at - row : end - row] = full[:, columns]


def _known(start: Rows, ids: Tensor | None, stop: int) -> Callable[[int, int], tuple[Tensor | slice, Tensor]]:
    """Return what says, of rows [a, b) up to `stop`, which begin with something known, and with what."""
    if ids is None:
        return lambda a, b: (slice(None), start(a, b))
    whole, first = start(0, len(ids)), representatives(ids, max(stop, int(ids.max()) + 1))

    def folded(a: int, b: int) -> tuple[Tensor, Tensor]:
        there = first[a:b] >= 0
        return there, whole[first[a:b][there]]

    return folded


def _shards(sharded: nn.Module) -> Iterator[tuple[str, tuple[int, int], int, Tensor]]:
    """Yield what this rank holds of each table: its weights' name, the first row and column, its width, the numbers."""
    from torch.distributed._shard.sharded_tensor import ShardedTensor

    for name, value in sharded.state_dict().items():
        if ".ebc." not in name:
            continue
        if not isinstance(value, ShardedTensor):
            yield name, (0, 0), value.shape[1], value
            continue
        for shard in value.local_shards():
            row, column = shard.metadata.shard_offsets
            yield name, (row, column), value.metadata().size[1], shard.tensor


def _join_alone(device: str) -> None:
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group(backend(device), store=dist.HashStore(), rank=0, world_size=1)


def _rank() -> int:
    import torch.distributed as dist

    return dist.get_rank()


def _plain_name(name: str) -> str:
    head, _, tail = name.partition(".ebc.")
    return f"{head}.weight" if tail else name


def _hush() -> None:
    """Silence lines of TorchRec that no user can act on."""
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    logging.getLogger("torchrec").setLevel(logging.ERROR)
