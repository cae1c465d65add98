"""What a student ends as: with the teacher's own items, folded to its width, or turned to the axes of yesterday."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from recdistill.axes import Served, toward
from recdistill.gains.fold import fold, solve
from recdistill.models.spec import MFSpec, ModelSpec
from recdistill.start import principal
from recdistill.teaching import Teaching
from recdistill.types import Vectors

Settle = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def settler(spec: ModelSpec, teaching: Teaching | None, look: Served | None = None) -> Settle | None:
    """Return what makes of learned weights those that serve, by how `look` sees them; None where they are the same."""
    if teaching is None:
        return None
    fold_them = turn_them = None
    if teaching.items == "folded":
        assert isinstance(spec, MFSpec)
        assert teaching.labels is not None
        assert teaching.labels.vectors is not None
        fold_them = partial(folded, teacher=teaching.labels.vectors, temperature=spec.temperature)
    if teaching.axes == "yesterday":
        assert teaching.yesterday is not None
        assert look is not None
        turn_them = partial(toward, yesterday=teaching.yesterday, look=look)
    if fold_them is None or turn_them is None:
        return fold_them or turn_them
    return lambda weights: turn_them(fold_them(weights))


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
