"""Parts of one work at once: every part once and in order, each computed by one thread, no gradient of any."""

from __future__ import annotations

import threading

import pytest
import torch

from recdistill.threads import spread


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> int:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_part_is_done_once_and_given_back_in_order(threads: int) -> None:
    assert spread(lambda part: part * part, range(20)) == [part * part for part in range(20)]
    assert spread(lambda part: part, range(0)) == []
    assert torch.get_num_threads() == threads


def test_parts_are_done_by_as_many_threads_as_torch_has_each_computing_alone(threads: int) -> None:
    gate = threading.Barrier(threads)

    def work(_: int) -> tuple[int, int]:
        gate.wait(20)  # which opens when so many are at work at once, and breaks if they are not
        return threading.get_ident(), torch.get_num_threads()

    done = spread(work, range(threads))
    assert len({who for who, _ in done}) == threads
    assert {alone for _, alone in done} == {1}


def test_what_fails_is_raised_and_leaves_the_threads_as_they_were(threads: int) -> None:
    def work(part: int) -> float:
        return 1 / part

    with pytest.raises(ZeroDivisionError):
        spread(work, [1, 0, 2])
    assert torch.get_num_threads() == threads


def test_no_gradient_is_recorded_in_any_thread(threads: int) -> None:
    weight = torch.ones(3, requires_grad=True)
    assert not any(product.requires_grad for product in spread(lambda part: weight * part, range(4)))
    assert (weight * 2).requires_grad
