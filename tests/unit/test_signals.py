"""Signals of rows: their ends, their invariances, and what they make of a step."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill import signals
from recdistill.types import Candidates

ROWS, ITEMS = 6, 8


def rows(seed):
    return torch.randn(ROWS, ITEMS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def candidates(teacher=None, items=None, taken=None):
    items = torch.arange(ITEMS).expand(ROWS, ITEMS) if items is None else items
    return Candidates(items=items, teacher=rows(2) if teacher is None else teacher, ranked=ITEMS, taken=taken)


@pytest.mark.parametrize("name", ["entropy", "doubt", "closeness"])
def test_an_even_list_is_uncertain_and_a_sure_one_is_not(name):
    even, sure = torch.zeros(ROWS, ITEMS).double(), torch.zeros(ROWS, ITEMS).double()
    sure[:, 3] = 1e3
    high, low = (signals.SIGNALS[name](scores, candidates()) for scores in (even, sure))
    expected = {"entropy": 1.0, "doubt": 1 - 1 / ITEMS, "closeness": 1.0}[name]
    torch.testing.assert_close(high, torch.full((ROWS,), expected).double())
    torch.testing.assert_close(low, torch.zeros(ROWS).double())


@pytest.mark.parametrize("name", list(signals.SIGNALS))
def test_padding_changes_nothing_and_an_empty_list_says_nothing(name):
    items = torch.arange(ITEMS).expand(ROWS, ITEMS).clone()
    items[:, 5:], items[4] = -1, -1
    student, teacher = rows(1), rows(2)
    found = signals.SIGNALS[name](student, candidates(teacher, items))
    cut = Candidates(items=items[:, :5], teacher=teacher[:, :5], ranked=5)
    torch.testing.assert_close(found, signals.SIGNALS[name](student[:, :5], cut))
    assert found[4] == 0


def test_confusion_is_zero_for_the_same_order_of_differences_and_blind_to_offset_and_scale():
    teacher = rows(2)
    torch.testing.assert_close(
        signals.confusion(3.0 * teacher + 7.0, candidates(teacher)), torch.zeros(ROWS).double(), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(signals.confusion(-teacher, candidates(teacher)), torch.full((ROWS,), 2.0).double())


def test_weights_are_one_on_average_and_a_row_without_signal_counts_for_nothing():
    signal = torch.tensor([0.0, 1.0, 2.0, 5.0]).double()
    found = signals.by_weight(signal)
    assert found.mean().item() == pytest.approx(1.0)
    assert found[0] == 0
    assert torch.isfinite(signals.by_weight(torch.zeros(3))).all()


def test_a_share_of_the_rows_counts_and_the_mean_stays():
    signal = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.2, 0.3, 0.4, 0.6, 0.8, 0.0]).double()
    found = signals.by_share(signal, 0.3)
    assert (found > 0).nonzero().flatten().tolist() == [1, 3, 8]
    assert found.mean().item() == pytest.approx(1.0)
    torch.testing.assert_close(signals.by_share(torch.ones(4), 0.5), torch.ones(4))


def test_the_mean_temperature_is_the_base_and_the_most_confused_row_is_taught_sharpest():
    signal = signals.confusion(rows(1), candidates())
    found = signals.temperatures(signal, base=4.0, slope=2.0)
    assert found.mean().item() == pytest.approx(4.0)
    assert found.argmin() == signal.argmax()
    assert signals.temperatures(signal * 100, base=1.0, slope=1.0).min() == 0.5


def test_rows_in_which_the_teacher_is_wrong_come_late():
    right = torch.tensor([True, False])
    assert signals.by_right(right, 0.0).tolist() == [1.0, 0.0]
    assert signals.by_right(right, 0.25).tolist() == [1.0, 0.25]
