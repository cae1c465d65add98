"""How much each item of a history moves a trained model's confidence in its list: what labels.gates keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recdistill.data.sequences import Sequences
from recdistill.labels import GATES, Layout, open_shard
from recdistill.models.build import Model
from recdistill.models.encoders import TwoTower, single, unit
from recdistill.models.gates import confidence, gate_gradients, of_first, pool
from recdistill.models.ranker import Ranker
from recdistill.models.recipe import Teacher
from recdistill.models.sequence import SequenceEncoder
from recdistill.store import aside
from recdistill.topk import blocks
from recdistill.transfer.store import one_model
from recdistill.types import Dataset, Float, Int, Log, Past

PLACES = 2**18  # of a block of users: of their lists, and of what their histories are compared with

Scores = Callable[[Tensor], Tensor]
"""Gates [B,L] -> the scores of each row's list, [B,K]."""


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
    model's scores times `scale`. An item's vector is multiplied by its gate, 1, as it is read. In blocks of rows.
    """
    width = history * history if isinstance(model, SequenceEncoder) else history
    found = [np.zeros((0, history), np.float32)]
    for start, stop in blocks(len(users), max(1, PLACES // max(1, width + lists.shape[1]))):
        listed, rows = torch.from_numpy(lists[start:stop]), torch.from_numpy(users[start:stop])
        past = sequences.latest(rows, history)
        score = scores(model.eval(), dataset, rows, past, listed)
        sure = _sure(score, listed, scale)
        found.append(gate_gradients(sure, past.items >= 0).numpy())
    return np.concatenate(found)


def _sure(score: Scores, listed: Tensor, scale: float) -> Callable[[Tensor], Tensor]:
    return lambda gates: confidence(scale * score(gates), **of_first(listed))


def scores(model: Model, dataset: Dataset, users: Tensor, past: Past, listed: Tensor) -> Scores:
    """Return the scores of the items `listed` [B,K] for `users` [B], as a function of gates on their `past`.

    An encoder knows nothing of an item that was never taken, as when lists are made. The model reads a history.
    """
    if isinstance(model, Ranker):
        return lambda gates: model.blend(model(users, past, listed, gates))
    assert isinstance(model, TwoTower | SequenceEncoder)
    taken = torch.zeros(dataset.num_items, dtype=torch.bool)
    taken[torch.from_numpy(np.array(dataset.train.items))] = True
    trained = torch.where((listed >= 0) & taken[listed.clamp(min=0)], listed, -1)
    items = unit(model.item(*single(trained.reshape(-1))), model.space).view(*listed.shape, -1)
    if isinstance(model, SequenceEncoder):
        nothing = torch.zeros(0, dtype=torch.int64)
        return lambda gates: _each(items, model.vectors(users, past, nothing, gates)[0], model)
    identity, known = model.user(*single(users)), past.items >= 0
    vectors = model.item(*single(past.items.reshape(-1))).view(*past.items.shape, -1)
    return lambda gates: _each(items, model.head(model.tower(identity, pool(vectors, known, gates))), model)


def _each(items: Tensor, users: Tensor, model: TwoTower | SequenceEncoder) -> Tensor:
    """Return the scores of each row's items [B,K,D] for its user [B,D]: [B,K]."""
    return (items @ unit(users, model.space).unsqueeze(2)).squeeze(2) / model.temperature
