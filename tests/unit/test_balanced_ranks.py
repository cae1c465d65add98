"""Gradients that are balanced have the length that they have of all processes together."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill import auxiliary
from recdistill.models import encoders
from recdistill.models.encoders import MF, Group, encode
from recdistill.models.tables import PlainTable
from recdistill.types import Past

ITEMS = 20


def test_a_gradient_of_two_processes_has_the_length_that_it_has_of_one(monkeypatch):
    generator, shared = torch.Generator().manual_seed(0), slice(0, 4)
    users, common, own = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (6, 4, 6))

    def length(rows, summed):
        here, there = users[rows].requires_grad_(), torch.cat([common, own[rows]]).requires_grad_()
        value = ((here @ there[shared].T).tanh().sum(1) + (here * there[4:]).sum(1) ** 2).mean()
        monkeypatch.setattr(auxiliary, "summed", summed)
        return auxiliary._length(value, (here, there), [shared])

    told: list[list] = [[], []]
    halves = slice(0, 3), slice(3, 6)
    for half, said in zip(halves, told, strict=True):
        length(half, lambda value, said=said: said.append(value) or value)
    assert len(told[0]) == len(told[1]) == 2
    both = iter([one + two for one, two in zip(*told, strict=True)])
    # Each process has the mean over half of the rows, so that its gradients are twice as long.
    torch.testing.assert_close(length(halves[0], lambda _: next(both)), 4 * length(slice(0, 6), lambda value: value))


@pytest.mark.parametrize(("processes", "rows", "whole"), [(1, 8, True), (1, 4, False), (2, 4, True)])
def test_whether_everything_is_scored_is_asked_of_all_processes_together(monkeypatch, processes, rows, whole):
    monkeypatch.setattr(encoders, "processes", lambda: processes)
    model = MF(PlainTable, num_users=rows, num_items=ITEMS, dim=4, space="dot", temperature=1.0)
    lists = torch.arange(3).expand(rows, 3)
    found = encode(model, torch.arange(rows), Past(items=torch.zeros(rows, 0)), [Group(lists)])
    assert (len(found.found) == ITEMS) == whole
    assert found.alike == ([slice(None)] if whole else [])
