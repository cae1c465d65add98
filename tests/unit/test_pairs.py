"""The fast scorer against the ranker's own forward pass: the same function, whatever is asked for and in what tiles."""

from __future__ import annotations

import pytest
import torch

from recdistill.models import pairs
from recdistill.models.clock import Clock
from recdistill.models.encoders import Group
from recdistill.models.pairs import PairScorer
from recdistill.models.ranker import Ranker
from recdistill.models.tables import PlainTable
from recdistill.types import Features, Past

USERS, ITEMS, DIM, LENGTH = 9, 23, 8, 5
ITEM_FEATURES = Features(sizes={"brand": 4}, categorical={"brand": torch.arange(ITEMS).remainder(4).numpy()})
PEOPLE = torch.tensor([3, 0, 6, 8])
PAST = Past(
    items=torch.tensor([[-1, -1, 2, 5, 5], [-1] * 5, [1, 2, 3, 4, 22], [-1, -1, -1, -1, 0]]),
    times=torch.tensor([[0, 0, 5, 60, 4000], [0] * 5, [1, 2, 3, 400, 500], [0, 0, 0, 0, 9]]) * 1_000_000,
)


def ranker(**settings):
    shape = {"cross_layers": 2, "cross_rank": 3, "hidden": (16, 8), "clock": Clock(10.0, 100.0)} | settings
    sizes = {"num_users": USERS, "num_items": ITEMS, "dim": DIM, "heads": 2, "history": LENGTH}
    model = Ranker(PlainTable, **sizes, user_features=Features(), item_features=ITEM_FEATURES, **shape)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def slowly(model, items):
    with torch.no_grad():
        return model.score(PEOPLE, PAST, [Group(items)])[0]


@pytest.mark.parametrize("tile", [1, 7, 64, 4096])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cross_layers": 0},
        {"cross_layers": 1},
        {"cross_layers": 3},
        {"hidden": (16,)},
        {"clock": None},
        {"tasks": (0.0, 0.7)},
        {"tasks": (0.5,), "cross_layers": 1},
        {"tasks": (0.5,), "cross_layers": 0},
    ],
    ids=str,
)
def test_it_is_the_forward_pass(settings, tile, monkeypatch):
    monkeypatch.setattr(pairs, "PAIRS", tile)
    monkeypatch.setattr(pairs, "ROWS", 10)
    model = ranker(**settings)
    scorer = PairScorer(model, ITEMS)
    wanted = slowly(model, torch.arange(ITEMS))
    torch.testing.assert_close(scorer(PEOPLE, PAST, None), wanted, rtol=1e-4, atol=1e-4)
    some = torch.randint(ITEMS, (4, 11), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scorer(PEOPLE, PAST, some), wanted.gather(1, some), rtol=1e-4, atol=1e-4)


def test_no_candidate_disturbs_no_other():
    scorer = PairScorer(ranker(), ITEMS)
    items = torch.tensor([[4, -1, 9, -1]] * 4)
    whole = scorer(PEOPLE, PAST, None)
    torch.testing.assert_close(scorer(PEOPLE, PAST, items)[:, [0, 2]], whole[:, [4, 9]])


def test_bfloat16_is_within_its_rounding():
    """Eight bits of a number are kept at each of some ten roundings on the way: 1 % of the scores' size, measured."""
    model = ranker()
    exact = slowly(model, torch.arange(ITEMS))
    found = PairScorer(model, ITEMS, torch.bfloat16)(PEOPLE, PAST, None)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 0.02 * exact.abs().max()
    assert (found - exact).abs().max() > 0  # it is another arithmetic


def test_a_log_without_times_is_read():
    model = ranker()
    past = Past(items=PAST.items)
    with torch.no_grad():
        wanted = model.score(PEOPLE, past, [Group(torch.arange(ITEMS))])[0]
    torch.testing.assert_close(PairScorer(model, ITEMS)(PEOPLE, past, None), wanted, rtol=1e-4, atol=1e-4)
