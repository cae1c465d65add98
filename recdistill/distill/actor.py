"""Which terms to learn from now: a policy that keeps those after which the student's own loss falls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recdistill.distill.ranks import summed

FORGET = 0.95  # of the running mean of rewards, from one turn to the next


class Actor(nn.Module):
    """Each term is on or off for a turn of `every` steps, by a chance of its own (Wang et al., Findings of EMNLP 2022).

    The reward of a turn is by which share the mean task loss fell, beside the turn before; chances move by the
    score-function gradient: theta += rate (reward - baseline) (action - chance). What is drawn is a function of `seed`
    and the turn, and what is learned is saved with the weights.
    """

    def __init__(self, names: Sequence[str], *, every: int, rate: float, seed: int) -> None:
        super().__init__()
        self.names, self.every, self.rate, self.seed = list(names), every, rate, seed
        self.register_buffer("theta", torch.zeros(len(names), dtype=torch.float64))
        self.register_buffer("on", torch.ones(len(names), dtype=torch.float64))
        # The sum of this turn's losses and its steps; the mean of the last turn, the running reward, the turns so far.
        self.register_buffer("said", torch.zeros(5, dtype=torch.float64))

    @property
    def chances(self) -> Tensor:
        """Return with which chance each term is on, [n]."""
        return torch.sigmoid(self.get_buffer("theta"))

    def scale(self, name: str) -> Tensor:
        """Return 1 where the term `name` is on, else 0."""
        return self.get_buffer("on")[self.names.index(name)].float()

    def hear(self, task: Tensor, step: int) -> None:
        """Take in the task loss of a step, and act anew where a turn ends; collective."""
        said, on, theta = (self.get_buffer(name) for name in ("said", "on", "theta"))
        both = summed(torch.stack([task.double(), torch.ones_like(task, dtype=torch.float64)]))
        said[:2] += torch.stack([both[0] / both[1], torch.ones_like(both[0])])
        if (step + 1) % self.every:
            return
        now, before = said[0] / said[1], said[2].clone()
        if said[4] > 0:
            reward = (before - now) / before.abs().clamp(min=1e-12)
            first = said[4] == 1
            theta += self.rate * learned(theta, on, reward, torch.where(first, reward, said[3]))
            said[3] = torch.where(first, reward, FORGET * said[3] + (1 - FORGET) * reward)
        said[4] += 1
        said[2], said[0], said[1] = now, 0.0, 0.0
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        drawn = torch.rand(len(on), generator=generator, dtype=torch.float64).to(on.device)
        on.copy_((drawn < self.chances).double())


def learned(theta: Tensor, action: Tensor, reward: Tensor, baseline: Tensor) -> Tensor:
    """Return (reward - baseline) (action - sigmoid(theta)): in the mean, the gradient of the reward at theta; [n]."""
    return (reward - baseline) * (action - torch.sigmoid(theta))
