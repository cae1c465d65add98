"""Tables decay with every optimizer and in every layout: what their fused kernels are told of it they do not read."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recdistill.models.tables import Table, distribute
from recdistill.world import World

pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore::FutureWarning"),
    pytest.mark.filterwarnings(r"ignore::UserWarning"),
]


class One(nn.Module):
    """A table whose every row of a bag is pushed alike."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table("item", 6, 4)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.table(rows).sum()


@pytest.mark.parametrize("layout", ["table_wise", "row_wise", "data_parallel"])
@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "sgd"])
def test_a_step_takes_the_rate_times_the_decay_from_every_row(optimizer, layout) -> None:
    settings = {"optimizer": optimizer, "layout": layout, "lr": 0.5, "dense_lr": 0.1, "init_std": 1.0, "seed": 3}
    plain, decayed = (distribute(One(), World(), weight_decay=decay, **settings) for decay in (0.0, 0.2))
    for model in (plain, decayed):
        model.set_rate(0.5)
        model.optimizer.zero_grad()
        model.module(torch.tensor([1, 4])).backward()
        model.optimizer.step()
    [before], [after] = plain.gather().values(), decayed.gather().values()
    torch.testing.assert_close(after, before)
    for model in (plain, decayed):
        model.shrink(0.5)
    [same], [smaller] = plain.gather().values(), decayed.gather().values()
    torch.testing.assert_close(same, before)
    torch.testing.assert_close(smaller, before * (1 - 0.5 * 0.5 * 0.2))


def test_adam_is_torchs_own_on_the_whole_table_with_its_decay_in_the_gradient() -> None:
    settings = {"layout": "auto", "lr": 0.1, "dense_lr": 0.5, "init_std": 1.0, "seed": 3, "weight_decay": 0.2}
    model = distribute(One(), World(), optimizer="adam", **settings)
    [begun] = model.gather().values()
    reference = nn.Parameter(begun.double())
    adam = torch.optim.Adam([reference], lr=0.1, weight_decay=0.2)
    for step, rows in enumerate([[1, 4], [4, 4], [0, 2], [5, 1]]):
        rate = 1.0 / (1 + step)
        model.set_rate(rate)
        model.optimizer.zero_grad()
        model.module(torch.tensor(rows)).backward()
        model.optimizer.step()
        model.shrink(rate)
        adam.param_groups[0]["lr"] = 0.1 * rate
        adam.zero_grad()
        reference[rows].sum().backward()
        adam.step()
    [found] = model.gather().values()
    torch.testing.assert_close(found, reference.detach().float(), rtol=1e-4, atol=1e-5)
    assert (found[3] - begun[3]).abs().min() > 0.01  # which was never looked up
