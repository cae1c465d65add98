"""From what a user wrote to a model: the one place that knows both, so that no model sees a configuration."""

from __future__ import annotations

import numpy as np
from torch import nn

from recdistill.errors import ConfigError
from recdistill.models.clock import Clock
from recdistill.models.encoders import MF, TwoTower
from recdistill.models.folding import fold_rows
from recdistill.models.lightgcn import LightGCN
from recdistill.models.ranker import Ranker
from recdistill.models.sequence import SequenceEncoder
from recdistill.models.spec import LightGCNSpec, MFSpec, ModelSpec, SequenceSpec, TwoTowerSpec
from recdistill.models.tables import Table, TableFactory
from recdistill.types import Dataset

BITS = {"fp32": 0, "int8": 8, "int4": 4}
Model = MF | TwoTower | LightGCN | SequenceEncoder | Ranker


def build(spec: ModelSpec, dataset: Dataset, table: TableFactory, *, seed: int) -> Model:
    """Return the model `spec` describes over the users, items and features of `dataset`, its dense part from `seed`."""
    import torch

    table = _bounded(table, spec, dataset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # every rank builds the same dense part; the tables are filled when distributed
        sizes = {"num_users": dataset.num_users, "num_items": dataset.num_items}
        if isinstance(spec, MFSpec):
            return MF(table, **sizes, **spec.model_dump(exclude={"kind", "rows", "rounding"}), bits=BITS[spec.rounding])
        if isinstance(spec, LightGCNSpec):
            return LightGCN(table, **sizes, train=dataset.train, **spec.model_dump(exclude={"kind"}))
        if isinstance(spec, TwoTowerSpec):
            settings = spec.model_dump(exclude={"kind", "history", "rows", "rounding"})
            return TwoTower(table, **sizes, **settings, bits=BITS[spec.rounding])
        if isinstance(spec, SequenceSpec):
            return SequenceEncoder(table, **sizes, **spec.model_dump(exclude={"kind", "item_dropout"}))
        return Ranker(
            table,
            **sizes,
            user_features=dataset.user_features,
            item_features=dataset.item_features,
            clock=Clock.of(dataset.train) if spec.time else None,
            tasks=[task.score for task in spec.tasks.values()],
            **spec.model_dump(exclude={"kind", "time", "tasks"}),
        )


def _bounded(table: TableFactory, spec: ModelSpec, dataset: Dataset) -> TableFactory:
    """Return what makes the tables of a training within the rows that `spec` allows; plain ones have one an id.

    Raises ConfigError if it allows as many rows as there are ids, which would be no bound.
    """
    said = spec.rows if isinstance(spec, MFSpec | TwoTowerSpec) else None
    if said is None or table is not Table:
        return table

    def make(name: str, rows: int, dim: int) -> Table:
        most = said.users if name == "user" else said.items
        if most is None:
            return Table(name, rows, dim)
        if most >= rows:
            what = f"{name}s may have {most} rows, and there are {rows}, so that has no effect"
            raise ConfigError(what, where=f"model.rows.{name}s", fix="lower it, or leave it out")
        train = dataset.train
        counts = np.diff(train.indptr) if name == "user" else np.bincount(train.items, minlength=rows)
        return Table(name, most, dim, ids=fold_rows(counts, most))

    return make


def history_length(spec: ModelSpec) -> int:
    """Return how many past items the model reads."""
    return 0 if isinstance(spec, MFSpec | LightGCNSpec) else spec.history


def widths(model: Model) -> tuple[int, int]:
    """Return how long a student's vectors are, and what its head reads; (0, 0) of a model that no head follows."""
    if not isinstance(model, MF | TwoTower):
        return 0, 0
    last = model.layers[-1] if isinstance(model, TwoTower) and len(model.layers) else None
    return model.dim, last.in_features if isinstance(last, nn.Linear) else model.dim
