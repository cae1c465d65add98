"""A trained student turned to the axes of the day before: its scores stay, and its vectors can meet cached ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recdistill.data.sequences import Sequences
from recdistill.gains.paired import Real
from recdistill.gains.rotate import rotation
from recdistill.models.build import Model, ModelSpec, build, history_length
from recdistill.models.tables import PlainTable
from recdistill.scoring import vectors
from recdistill.types import Dataset, Vectors
from recdistill.yesterday import Yesterday

Weights = dict[str, Tensor]
Served = Callable[[Weights], Vectors]
"""Gathered weights of a student -> the vectors that it serves."""


def served(weights: Weights, *, spec: ModelSpec, dataset: Dataset, sequences: Sequences) -> Vectors:
    """Return the vectors of the encoder `spec` with these weights: zeros of whoever it was not taught."""
    model: Model = build(spec, dataset, PlainTable, seed=0)
    model.load_state_dict(weights)
    return vectors(model, dataset, sequences, history_length(spec))


def toward(weights: Weights, yesterday: Yesterday, look: Served) -> Weights:
    """Return the weights of an mf or a two_tower in the axes in which its vectors are nearest to yesterday's.

    Nearest in squares over the users and items of both days (Schoenemann, 1966). DataError if they are fewer than the
    dimensions.
    """
    return turned_weights(weights, nearest(look(weights), yesterday))


def nearest(now: Vectors, yesterday: Yesterday) -> Real:
    """Return R [D,D] that brings today's vectors nearest to yesterday's, of users and items taught on both days."""
    users, items = yesterday.both
    sides = [np.concatenate([v.users[users], v.items[items]]) for v in (now, yesterday.student)]
    return rotation(sides[0], sides[1])


def turned_weights(weights: Weights, turn: Real) -> Weights:
    """Return weights whose vectors are those of `weights` times the rotation `turn` [D,D].

    A user side with hidden layers reads the item table, so its first layer is turned back, and its last one turned.
    """
    r = torch.from_numpy(np.ascontiguousarray(turn))
    layers = sorted({int(name.split(".")[1]) for name in weights if name.startswith("layers.")})
    dim, found = len(r), dict(weights)

    def put(name: str, value: Tensor) -> None:
        found[name] = value.to(weights[name].dtype).contiguous()

    for name in ("item.weight", *(() if layers else ("user.weight",))):
        put(name, weights[name].double() @ r)
    if layers:
        first, last = f"layers.{layers[0]}", f"layers.{layers[-1]}"
        enter = weights[f"{first}.weight"].double()
        put(f"{first}.weight", torch.cat([enter[:, :dim], enter[:, dim:] @ r], dim=1))
        put(f"{last}.weight", r.T @ found[f"{last}.weight"].double())
        put(f"{last}.bias", weights[f"{last}.bias"].double() @ r)
    return found
