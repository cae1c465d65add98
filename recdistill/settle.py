"""Where a student's item table ends that is not learned: the teacher's own items, folded to the student's width."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from recdistill.gains.fold import fold, solve
from recdistill.models.spec import MFSpec, ModelSpec
from recdistill.teaching import Teaching
from recdistill.types import Vectors

Settle = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def settler(spec: ModelSpec, teaching: Teaching | None) -> Settle | None:
    """Return what makes of learned weights those that serve; None where they are the same."""
    if teaching is None or teaching.items == "learned":
        return None
    assert isinstance(spec, MFSpec)
    assert teaching.labels is not None
    assert teaching.labels.vectors is not None
    return partial(folded, teacher=teaching.labels.vectors, temperature=spec.temperature)


def folded(weights: dict[str, Tensor], teacher: Vectors, *, temperature: float) -> dict[str, Tensor]:
    """Return the weights of a factorisation in dot space with the teacher's items, folded, in the place of its own.

    The projector is that of least squares from the users as they are to the teacher's, so an item that nobody taught
    has a vector too. Scores are products over `temperature`. SimKD (Chen et al., CVPR 2022).
    """
    users = weights["user.weight"]
    given = (users / temperature).numpy()
    found = fold(given, np.asarray(teacher.items), solve(given, np.asarray(teacher.users), shift=False))
    items = torch.from_numpy(np.ascontiguousarray(found.items)).to(users.dtype)
    return weights | {"item.weight": items[:, : users.shape[1]].contiguous()}
