"""How much each item of a history moves a trained model's confidence in its list: what labels.gates keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recdistill.data.sequences import Sequences
from recdistill.labels import GATES, Layout, open_shard
from recdistill.models.build import Model
from recdistill.models.encoders import Group
from recdistill.models.gates import confidence, gate_gradients, of_first
from recdistill.models.ranker import Ranker
from recdistill.models.recipe import Teacher
from recdistill.models.sequence import SequenceEncoder
from recdistill.store import aside
from recdistill.topk import blocks
from recdistill.transfer.store import one_model
from recdistill.types import Dataset, Float, Int, Log, Past

PLACES = 2**18  # of a block of users: of their lists, and of what their histories are compared with


def write_gates(out: Path, dataset: Dataset, teacher: Teacher, layout: Layout, log: Log) -> None:
    """Write the gradients by gates [U,L] of the one model of `teacher` beside the lists in `out`, in blocks.

    Raises ConfigError unless it is one model that reads a history.
    """
    told = one_model(dataset, teacher, "labels.gates")
    sequences = Sequences.of(dataset.train)
    with aside(out / GATES) as file:
        shape = layout.num_users, told.history
        found = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        for shard in range(layout.shards):
            users, lists = layout.users(shard), open_shard(out, layout, shard)["items"].astype(np.int64)
            found[users] = gates(told.model, dataset, users, lists, sequences, told.history, scale=told.line[0])
            log("gates", int(users[-1]) + 1, layout.num_users, {})
        found.flush()


def gates(
    model: Model, dataset: Dataset, users: Int, lists: Int, sequences: Sequences, history: int, *, scale: float = 1.0
) -> Float:
    """Return d confidence / d gates of the latest `history` items of `users` [n], 0 where there are fewer: [n,L].

    The confidence is the chance of the first item of each list [n,K], -1 where shorter, in a softmax over it of the
    model's scores times `scale`. An item's vector is multiplied by its gate, 1, as it is read. An encoder knows nothing
    of an item that was never taken, as when lists are made. In blocks of rows.
    """
    width = history * history if isinstance(model, SequenceEncoder) else history
    known = np.isin(lists, dataset.train.items) if not isinstance(model, Ranker) else lists >= 0
    found = [np.zeros((0, history), np.float32)]
    for start, stop in blocks(len(users), max(1, PLACES // max(1, width + lists.shape[1]))):
        listed, rows = torch.from_numpy(lists[start:stop]), torch.from_numpy(users[start:stop])
        past = sequences.latest(rows, history)
        items = torch.where(torch.from_numpy(known[start:stop]), listed, -1)
        found.append(gate_gradients(_sure(model.eval(), rows, past, listed, items, scale), past.items >= 0).numpy())
    return np.concatenate(found)


def _sure(
    model: Model, users: Tensor, past: Past, listed: Tensor, items: Tensor, scale: float
) -> Callable[[Tensor], Tensor]:
    """Return the chance of the first of `listed` [B,K], as a function of gates [B,L], by scores of `items` [B,K]."""

    def sure(gates: Tensor) -> Tensor:
        scores = model.score(users, replace(past, gates=gates), [Group(items)])[0]
        return confidence(scale * scores, **of_first(listed))

    return sure
