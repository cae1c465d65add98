"""Which items of a history move the student's confidence, in training: beside what moves the teacher's.

Gradient knowledge distillation (Wang, Li and Sun, ENLSP at NeurIPS 2022) by gates on a history's items, which any two
models have in common, where the paper's word embeddings must be the same ones. Both are asked how sure they are of the
item that the teacher ranks first, where in the paper each is of its own likeliest: the first of a list are nearly as
likely, so students have another one, and nothing that moves their confidence in it moves the teacher's in its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.models.encoders import Encoded, TwoTower
from recdistill.models.gates import along, confidence, direction, gate_distance, of_first


def look(model: TwoTower, encoded: Encoded, rows: slice, history: Tensor, listed: Tensor, teacher: Tensor) -> Tensor:
    """Return how far apart student and teacher look, 2 - 2 cos of their gradients by gates, of each row: [R].

    `rows` of what was encoded have this `history` [R,L]; `listed` [R,K] are lists, -1 where shorter, the chance of
    whose first item is the confidence. Their vectors are the last of `encoded.others`, those of the history the last
    of `encoded.plain`. teacher [R,L'] are its gradients, the latest item last as in the history: of the longer one
    only the latest items count. 0 for a history of fewer than two. All derivatives are there that learning needs: no
    lookup is differentiated twice, and a user's length has two derivatives, unlike that of encoders.unit.
    """
    assert encoded.pooled is not None
    known, length = history >= 0, min(history.shape[1], teacher.shape[1])
    with torch.autocast(history.device.type, enabled=False):
        users = model.head(encoded.shared[rows].to(encoded.pooled.dtype))[:, : encoded.left.shape[1]]
        users = (direction(users) if model.space == "cosine" else users) / model.temperature
        items = encoded.others[-1].view(*listed.shape, -1)
        sure = confidence((items @ users.unsqueeze(2)).squeeze(2), **of_first(listed))
        (slope,) = torch.autograd.grad(sure.sum(), encoded.pooled, create_graph=True)
        found = along(encoded.plain[-1].view(*history.shape, -1), known, slope[rows])
        apart = gate_distance(found[:, history.shape[1] - length :], teacher[:, teacher.shape[1] - length :])
        return apart * (known[:, history.shape[1] - length :].sum(1) > 1)
