"""How far a teacher's chances can be relied on: what it expected beside what was observed, on what is held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recdistill.calibrate import Line, pairs_of
from recdistill.heldout import Sheet, rows_at_once
from recdistill.topk import blocks

EDGES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)  # of the table's chances


@torch.inference_mode()
def pointwise(sheets: Sequence[Sheet], line: Line) -> dict[str, Any]:
    """Return how well sigmoid(scale t + shift) tells what was taken: NLL a candidate, and its reliability."""
    nll, count, table = 0.0, 0, _Table()
    for scores, taken in pairs_of(sheets):
        t, y = scores.double(), taken.double()
        z = line.scale * t + line.shift
        nll += float((torch.nn.functional.softplus(z) - y * z).sum())
        count += len(t)
        table.add(torch.sigmoid(z), y, 1.0)
    return {"nll": nll / max(count, 1)} | table.read()


@torch.inference_mode()
def listwise(sheets: Sequence[Sheet], temperature: float) -> dict[str, Any]:
    """Return how well a softmax at `temperature` tells what was taken: list NLL, and its reliability.

    Every user counts as much: the chances of a list, and the shares of what its user took, both sum to 1.
    """
    nll, told, table = 0.0, 0.0, _Table()
    for scores, held in sheets:
        rows, items = torch.from_numpy(held.rows), torch.from_numpy(held.items)
        weight = torch.from_numpy(held.weight) * torch.isfinite(scores[rows, items])  # what has no score, has no chance
        taken = torch.zeros(scores.shape)
        taken.index_put_((rows, items), weight.float(), accumulate=True)
        each = torch.zeros(len(scores), dtype=torch.float64).index_add(0, rows, weight)
        for start, stop in blocks(len(scores), rows_at_once(scores)):
            logs = (scores[start:stop].double() / temperature).log_softmax(1).nan_to_num(nan=-torch.inf)
            y = taken[start:stop].double()
            nll -= float((y * logs.masked_fill(~torch.isfinite(logs), 0.0)).sum())
            told += float(y.sum())
            table.add(logs.exp(), y, each[start:stop, None])
    return {"nll": nll / told if told else math.nan, "share_scored": told} | table.read()


class _Table:
    """Reliability: what was expected and what was observed where the chance given lay between two edges."""

    def __init__(self) -> None:
        self.edges = torch.tensor(EDGES, dtype=torch.float64)
        self.expected, self.observed, self.pairs = (torch.zeros(len(EDGES) + 1, dtype=torch.float64) for _ in range(3))

    def add(self, chance: Tensor, observed: Tensor, count: Tensor | float) -> None:
        """Count candidates with the `chance` they were given; each stands for `count` draws."""
        at = torch.bucketize(chance, self.edges).reshape(-1)
        self.expected.index_add_(0, at, (chance * count).reshape(-1))
        self.observed.index_add_(0, at, observed.reshape(-1))
        self.pairs += torch.bincount(at, minlength=len(self.pairs))

    def read(self) -> dict[str, Any]:
        """Return the rows, and the expected calibration error: what they differ by, as a share of what was taken."""
        columns = (0.0, *EDGES), (*EDGES, 1.0), self.expected, self.observed, self.pairs
        rows = [
            {"from": low, "to": high, "expected": float(e), "observed": float(o), "pairs": int(n)}
            for low, high, e, o, n in zip(*columns, strict=True)
            if n
        ]
        total = float(self.observed.sum())
        return {"ece": float((self.expected - self.observed).abs().sum()) / total if total else math.nan, "table": rows}
