"""How flat the loss is where a training ended: what noise in the parameters costs.

Self-distilled models sit in flatter minima than their teachers (Pham et al., 2022). The noise is filter-normalised (Li
et al., NeurIPS 2018), each row of a table a filter, so that the measure does not change with the scale of the vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recdistill.metrics import Values

Parameters = Mapping[str, Tensor]


class Flatness(NamedTuple):
    """The rise of the loss at each size of noise, [r]: the smaller, the flatter."""

    rhos: Values
    rise: Values  # mean over draws
    error: Values  # standard error of that mean; NaN of a single draw
    loss: float  # without noise


@torch.no_grad()
def flatness(
    parameters: Parameters,
    loss: Callable[[Parameters], Tensor | float],
    *,
    rhos: Sequence[float],
    draws: int,
    seed: int,
) -> Flatness:
    """Return E[L(theta + rho |theta_row| n) - L(theta)] for each of `rhos`, n of length 1 in each row.

    `loss` is called with mappings like `parameters`, which stay as they are: 1 + 2 len(rhos) draws times. Each draw is
    taken with both signs, so that the slope of the loss, which is no flatness, cancels; all rhos share the draws. A
    tensor of one dimension is one row; what is not floating is not changed. ValueError without a draw.
    """
    if draws < 1:
        raise ValueError("flatness is a mean over draws: ask for 1 or more")
    base = float(loss(parameters))
    rises = np.empty((draws, len(rhos)))
    generator = torch.Generator().manual_seed(seed)
    for draw in range(draws):
        noise = _noise(parameters, generator)
        for column, rho in enumerate(rhos):
            both = [float(loss(_moved(parameters, noise, sign * rho))) for sign in (1, -1)]
            rises[draw, column] = sum(both) / 2 - base
    error = rises.std(0, ddof=1) / draws**0.5 if draws > 1 else np.full(len(rhos), np.nan)
    return Flatness(np.asarray(rhos, np.float64), rises.mean(0), error, base)


def _noise(parameters: Parameters, generator: torch.Generator) -> dict[str, Tensor]:
    """Return a direction of each tensor whose rows are as long as the tensor's, drawn by name, whatever their order."""
    found = {}
    for name in sorted(parameters):
        tensor = parameters[name]
        if not tensor.is_floating_point():
            continue
        rows = tensor.reshape(1, -1) if tensor.ndim < 2 else tensor.flatten(1)
        drawn = torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows)
        length = drawn.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
        found[name] = (drawn / length * rows.norm(dim=1, keepdim=True)).reshape(tensor.shape)
    return found


def _moved(parameters: Parameters, noise: Parameters, size: float) -> dict[str, Tensor]:
    return {name: tensor + size * noise[name] if name in noise else tensor for name, tensor in parameters.items()}
