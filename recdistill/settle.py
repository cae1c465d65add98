"""Where a student's item table ends that is not learned: the teacher's own items, folded to the student's width."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from recdistill.gains.fold import fold, solve
from recdistill.models.spec import MFSpec, ModelSpec
from recdistill.start import principal
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
    """Return the weights of a factorisation in dot space whose items are the teacher's, folded, and none of its own.

    The projector P u + c is that of least squares from the users as they are to the teacher's, so an item that nobody
    taught has a vector too. c, such as a popularity that all users share, would take one dimension more: of both
    together are kept, turned, as many dimensions as there are, those that order most. Scores are products over
    `temperature`, each user's up to one number. SimKD (Chen et al., CVPR 2022).
    """
    users = weights["user.weight"]
    given = (users / temperature).numpy()
    whole = fold(given, np.asarray(teacher.items), solve(given, np.asarray(teacher.users)))
    sides = principal(whole, users.shape[1], scale=temperature)
    return weights | {
        f"{name}.weight": pad(side(0, len(rows)).to(users.dtype), (0, users.shape[1] - side.turn.shape[1]))
        for name, side, rows in zip(("user", "item"), sides, (whole.users, whole.items), strict=True)
    }
