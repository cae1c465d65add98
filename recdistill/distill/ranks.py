"""Numbers of a step that every process must agree on: sums, and the values of everybody. Collective, no gradient.

Only what is `sampled` of everybody's rows has one, to each process's own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed import all_gather, all_reduce, get_rank, get_world_size, is_initialized
from torch.nn.functional import pad

from recdistill.models.gradients import scaled_gradient


def summed(values: Tensor) -> Tensor:
    """Return the sum of `values`, of any shape, over the processes."""
    values = values.detach()
    if is_initialized() and get_world_size() > 1:
        values = values.clone()
        all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """Return the mean of all processes' `values` [n], of which each may have another number."""
    total = summed(torch.stack([values.sum(), torch.full_like(values.sum(), len(values))]))
    return total[0] / total[1].clamp(min=1)


def everyone(values: Tensor) -> Tensor:
    """Return the `values` [n] of all processes, one after the other, of which each may have another number."""
    values = values.detach()
    if not (is_initialized() and get_world_size() > 1):
        return values
    own = torch.tensor([len(values)], device=values.device)
    counts = [torch.zeros_like(own) for _ in range(get_world_size())]
    all_gather(counts, own)
    most = max(int(count) for count in counts)
    padded = pad(values, (0, most - len(values)))
    parts = [torch.empty_like(padded) for _ in counts]
    all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def sampled(rows: Tensor, most: int) -> Tensor:
    """Return at most `most` of all processes' `rows` [B,...], of which each has as many, evenly apart: [n,...].

    They are those that one process with all rows would take. Each process's own carry its gradient, once for every
    process: a loss of all of them that every process computes has, averaged over the processes, the gradient of one.
    """
    size = get_world_size() if is_initialized() else 1
    wanted = torch.arange(0, size * len(rows), -(-size * len(rows) // most), device=rows.device)
    if size == 1:
        return rows[wanted]
    first = get_rank() * len(rows)
    place = ((wanted >= first) & (wanted < first + len(rows))).nonzero()[:, 0]
    own = rows[wanted[place] - first]
    whole = rows.new_zeros(len(wanted), *rows.shape[1:]).index_copy(0, place, own.detach())
    all_reduce(whole)
    return whole.index_copy(0, place, scaled_gradient(own, float(size)))
