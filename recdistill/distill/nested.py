"""Prefixes of a student's vectors that are students themselves: each has every loss, of its own scores and vectors.

Kusupati et al. (Matryoshka representation learning, NeurIPS 2022, eq. 1): the sum over the widths m of c_m L(first m
numbers). Here c_m is one over the number of widths, the whole one among them, so that a weight means what it meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def averaged(values: Sequence[Tensor]) -> Tensor:
    """Return the mean of `values`, one of each width and all of one shape; a single one as it is."""
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean(0)


def all_averaged(found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean over the widths of each value, by name."""
    return {name: averaged([values[name] for values in found]) for name in found[0]}


def named(name: str, width: int) -> str:
    """Return what the module `name` of a term is called that reads the first `width` numbers alone."""
    return f"{name}_at{width}"


def own_of(own: nn.ModuleDict, widths: Sequence[int]) -> list[dict[str, nn.Module]]:
    """Return the terms' modules by name for each of `widths`, and last for the whole width.

    A module that no width has one of its own of, since it reads no vector, serves them all.
    """
    whole = dict(own.items())
    return [*(whole | {n: own[named(n, width)] for n in whole if named(n, width) in own} for width in widths), whole]
