"""Lookups in a world of one: the kernel itself gives, and learns, to the bit what the exchange around it does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recdistill.models.alone import kernel_of
from recdistill.models.tables import Table, distribute
from recdistill.world import World

ROWS, DIM = 41, 8
STEPS = 5


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.item = Table("item", ROWS, DIM)

    def forward(self, rows: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        return self.item(rows, lengths)


def made(layout: str, optimizer: str = "rowwise_adagrad"):
    how = {"optimizer": optimizer, "lr": 0.1, "dense_lr": 0.1, "weight_decay": 0.0, "init_std": 0.3, "seed": 4}
    return distribute(Bags(), World(), layout=layout, **how)


def trained(ready, *, alone: bool):
    """Return what every lookup gave, and the weights after the last."""
    table = ready.module.module.item
    if not alone:
        table.kernel = None
    generator, gave = torch.Generator().manual_seed(1), []
    for step in range(STEPS):
        rows = torch.randint(ROWS, (12,), generator=generator)
        lengths = torch.tensor([3, 0, 1, 8]) if step % 2 else None
        found = ready.module(rows, lengths)
        gave.append(found.detach().clone())
        ready.optimizer.zero_grad()
        (found * torch.randn(found.shape, generator=generator)).sum().backward()
        ready.optimizer.step()
    return gave, ready.gather()["item.weight"]


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "sgd", "adam"])
@pytest.mark.parametrize("layout", ["row_wise", "table_wise"])
def test_the_kernel_gives_and_learns_what_the_sharded_table_does(layout: str, optimizer: str) -> None:
    ready = made(layout, optimizer)
    assert ready.module.module.item.kernel is not None
    here, mine = trained(ready, alone=True)
    there, theirs = trained(made(layout, optimizer), alone=False)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert torch.equal(mine, theirs)
    assert not torch.equal(mine, made(layout, optimizer).gather()["item.weight"])


def test_a_table_that_an_ordinary_optimizer_owns_is_left_to_torchrec() -> None:
    ready = made("data_parallel")
    assert ready.module.module.item.kernel is None
    assert ready.module(torch.arange(3), None).shape == (3, DIM)


def test_a_part_of_a_table_is_not_the_table() -> None:
    sharded = made("row_wise").module.module.item.ebc
    assert kernel_of(sharded, ROWS, DIM) is not None
    assert kernel_of(sharded, ROWS, DIM - 4) is None
    assert kernel_of(sharded, ROWS + 1, DIM) is None
    assert kernel_of(nn.Linear(2, 2), ROWS, DIM) is None
