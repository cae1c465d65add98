"""Gumbel noise is bounded, so what is far down a list need not be looked at: the draw is the same one."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill.draws import LIKELIEST, without_replacement


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("weights", ["falling", "flat", "rising", "of each row"])
@pytest.mark.parametrize("missing", [0, 150, 290])
def test_what_is_not_looked_at_could_not_have_been_drawn(weights, missing):
    rows, depth, k = 40, 300, 12
    given = torch.arange(depth).expand(rows, depth).clone()
    given[::2, depth - missing :] = -1
    falling = -torch.arange(depth) / 4.0
    log_weights = {
        "falling": falling,
        "flat": falling * 0,
        "rising": falling.flip(0),
        "of each row": torch.randn(rows, depth, generator=seeded(9)) * 20,
    }[weights]
    chance = torch.rand(rows, depth, generator=seeded(5)).clamp(1e-20, LIKELIEST)
    keys = (-torch.log(-torch.log(chance)) + log_weights).masked_fill(given < 0, -torch.inf)
    expected = keys.topk(k, dim=1).indices.sort(dim=1).values
    found = without_replacement(log_weights, given, k, seeded(5))
    known = given.gather(1, expected) >= 0  # which of the places without an item come last is nobody's concern
    assert torch.equal(found[known.all(1)], expected[known.all(1)])
    assert torch.equal((given.gather(1, found) >= 0).sum(1), known.sum(1))
