"""The one training loop: teacher, scratch and student differ only in what they are given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from recdistill.finite import Totals, added
from recdistill.models.tables import Distributed
from recdistill.types import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Everything the loop must remember to go on as if it had never stopped."""

    step: int = 0
    best_step: int = 0
    best: float = -1.0
    waited: int = 0  # validations since the best
    sums: Mapping[str, float] | None = None  # of each loss since the last validation
    curve: tuple[Mapping[str, float | None], ...] = ()


def constant(share: float) -> float:  # noqa: ARG001
    """Return 1, whatever share of the steps is done."""
    return 1.0


def cosine(share: float) -> float:
    """Return what half a wave from 1 to 0 has come to when a share of the steps is done."""
    return 0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))


RATES = {"none": constant, "cosine": cosine}


class Stopwatch:
    """Seconds since it was made, without those in which it was stopped."""

    def __init__(self) -> None:
        self.start, self.lost = time.perf_counter(), 0.0

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Do not count what happens inside."""
        since = time.perf_counter()
        try:
            yield
        finally:
            self.lost += time.perf_counter() - since

    def read(self) -> float:
        """Return the seconds that were counted."""
        return time.perf_counter() - self.start - self.lost


def train(
    model: Distributed,
    batch: Callable[[int], Batch],
    at: Progress,
    *,
    steps: int,
    until: int,
    every: int,
    patience: int,
    rate: Callable[[float], float],
    mean: Callable[[Totals], dict[str, float]],
    log: Callable[[int, Mapping[str, float]], None],
    save: Callable[[Progress, Totals | None], None],
    evaluate: Callable[[int], float | None],
    leave: Callable[[Progress, Totals | None], None] | None = None,
) -> Progress:
    """Advance from `at` to step `until` of `steps`, or until `patience` validations bring no gain.

    `rate` gives by what learning rates are multiplied when a share of all steps is done; `leave` is told where it ends.
    Collective: every rank makes the same calls in the same order. What is given raises StageError at what is no number.
    """
    totals = None
    model.module.train()
    if at.step:  # a table's step is as long as was said before its forward pass, which is in the step before
        model.set_rate(rate((at.step - 1) / steps))
        model.optimizer.zero_grad()
    while at.step < until and not (patience and at.waited >= patience):
        losses = model.module(batch(at.step))
        model.set_rate(rate(at.step / steps))
        model.optimizer.zero_grad()  # which hands the rate to the tables, whose update runs in the backward pass
        each = torch.stack(list(losses.values()))
        each.sum().backward()
        model.optimizer.step()
        model.shrink(rate(at.step / steps))
        totals = added(totals, losses, each.detach(), step=at.step, before=at.sums or {})
        at = replace(at, step=at.step + 1, sums=None)
        if at.step % every == 0 or at.step == steps:
            since = every if at.step % every == 0 else at.step % every
            means = {name: value / since for name, value in mean(totals).items()}
            valid = evaluate(at.step)
            better = valid is None or valid > at.best  # with nothing to validate on, the latest is the one to keep
            at = replace(
                at,
                best=at.best if valid is None or not better else valid,
                best_step=at.step if better else at.best_step,
                waited=0 if better else at.waited + 1,
                curve=(*at.curve, {"step": at.step, **means, "valid": valid}),
            )
            totals = None
            log(at.step, {"loss": sum(means.values())} | ({} if valid is None else {"valid": valid}))
            model.module.train()
        else:
            log(at.step, {})
        save(at, totals)
    if leave is not None:
        leave(at, totals)
    return at
