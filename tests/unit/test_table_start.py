"""What a table begins with: the same rows however many blocks they are written in, and whatever is known of some."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recdistill.models import tables
from recdistill.models.tables import Table, distribute, init_rows
from recdistill.world import World

pytestmark = [
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore::FutureWarning"),
    pytest.mark.filterwarnings(r"ignore::UserWarning"),
]
ROWS, DIM = 29, 4
HOW = {"optimizer": "sgd", "layout": "table_wise", "lr": 0.5, "dense_lr": 0.1, "init_std": 1.0, "seed": 3}


class One(nn.Module):
    """A table, and nothing else."""

    def __init__(self, rows: int, ids: Tensor | None = None) -> None:
        super().__init__()
        self.table = Table("item", rows, DIM, ids)

    def forward(self, rows: Tensor) -> Tensor:
        return self.table(rows).sum()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "INIT_BLOCK", 8)


def known(start: int, stop: int) -> Tensor:
    """Tell rows by their numbers, in the first two dimensions."""
    return torch.arange(start, stop).float().unsqueeze(1).expand(-1, 2) + 100


def test_a_table_of_several_blocks_begins_as_its_rows_are_drawn() -> None:
    [weight] = distribute(One(ROWS), World(), weight_decay=0.0, **HOW).gather().values()
    assert torch.equal(weight, init_rows("item", 0, ROWS, DIM, std=1.0, seed=3))


def test_what_is_known_of_rows_is_written_in_every_block_and_the_rest_is_drawn() -> None:
    made = distribute(One(ROWS), World(), weight_decay=0.0, starts={"table": known}, **HOW)
    [weight] = made.gather().values()
    assert torch.equal(weight[:, :2], known(0, ROWS))
    assert torch.equal(weight[:, 2:], init_rows("item", 0, ROWS, DIM, std=1.0, seed=3)[:, 2:])


def test_a_row_that_ids_share_begins_with_what_is_known_of_the_first() -> None:
    ids = torch.arange(40) % 18  # rows 18 to 28 are nobody's
    made = distribute(One(ROWS, ids.int()), World(), weight_decay=0.0, starts={"table": known}, **HOW)
    [weight] = made.gather().values()
    assert torch.equal(weight[:, :2], known(0, 18)[ids])
    assert torch.equal(weight[:, 2:], init_rows("item", 0, 18, DIM, std=1.0, seed=3)[ids][:, 2:])
