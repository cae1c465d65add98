"""What stands between a term and the student: a head of its own, and the balance of gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from recdistill.distill.ranks import summed
from recdistill.models.gradients import scaled_gradient
from recdistill.models.lengths import unit
from recdistill.types import Candidates, Space

EVERY = 16  # steps between two measurements of gradients, each of which costs about half a backward pass
KEPT = 0.7  # of a measured ratio from one measurement to the next
LARGEST = 1e4  # of a ratio: a term without a gradient is not multiplied beyond all bounds


class Head(nn.Module):
    """A second head on the student's shared vectors (ExFM, 2502.17494; Rec-Distill): what serves does not see it.

    Its gradient reaches the shared vectors times `gradient`. It begins near the identity where the widths agree.
    """

    def __init__(self, shared: int, dim: int, gradient: float, space: Space = "dot") -> None:
        super().__init__()
        self.gradient, self.space = gradient, space
        self.user, self.item = nn.Linear(shared, dim), nn.Linear(dim, dim)
        with torch.no_grad():
            for layer in (self.user, self.item):
                if layer.in_features == layer.out_features:
                    layer.weight.copy_(torch.eye(layer.in_features))
                nn.init.zeros_(layer.bias)

    def user_side(self, shared: Tensor) -> Tensor:
        """Return the head's vectors of users from what they share with the head that serves: [n,D'] -> [n,D]."""
        return unit(self.user(scaled_gradient(shared, self.gradient)), self.space)

    def item_side(self, items: Tensor) -> Tensor:
        """Return the head's vectors of items, [n,D]."""
        return unit(self.item(scaled_gradient(items, self.gradient)), self.space)


class Exit(nn.Module):
    """The last hidden layer itself, against the item vectors that serve: a tower that ends a layer early."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space: Space = space

    def user_side(self, shared: Tensor) -> Tensor:
        """Return the hidden layer as a user's vector, [n,D]."""
        return unit(shared, self.space)

    def item_side(self, items: Tensor) -> Tensor:
        """Return the vectors of items as they serve, [n,D]."""
        return items


def adapt(network: nn.Module, candidates: Candidates) -> tuple[Tensor, Candidates]:
    """Return the loss of a network that adapts the teacher's logits to what users took, and what it makes of them.

    The first column of each row is what was taken, the others were not. What is returned to be taught is detached: the
    student's loss does not reach the network, nor its loss the student (ExFM's student adapter).
    """
    logits = network(candidates.teacher)
    known = torch.isfinite(logits) & (candidates.items >= 0)
    taken = torch.zeros_like(logits)
    taken[:, 0] = 1.0
    each = binary_cross_entropy_with_logits(logits.masked_fill(~known, 0.0), taken, reduction="none")
    loss = (each * known).sum(1) / known.sum(1).clamp(min=1)
    return loss.mean(), replace(candidates, teacher=logits.detach())


class Balance(nn.Module):
    """By what each balanced term is multiplied, so that its gradient is as long as the task's where both meet.

    They meet at the student's vectors. A ratio of lengths is measured every few steps and kept as a moving average, so
    a weight means the same for any loss, temperature, list length and model.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)
        self.register_buffer("ratio", torch.ones(len(names)))

    def scale(self, name: str) -> Tensor:
        """Return by what the term `name` is multiplied."""
        return self.get_buffer("ratio")[self.names.index(name)]

    def update(
        self,
        task: Tensor,
        values: Mapping[str, Tensor],
        at: tuple[Tensor, Tensor],
        step: int,
        alike: Sequence[slice] = (),
    ) -> None:
        """Measure the gradients of `task` and of the balanced ones of `values` at users and items [n,D]; collective.

        `alike` are the rows of items that every process has: there, what processes say adds up before it has a length.
        """
        if step % EVERY:
            return
        lengths = torch.stack([_length(value, at, alike) for value in (task, *(values[name] for name in self.names))])
        lengths = lengths.sqrt()
        measured = (lengths[0] / lengths[1:].clamp(min=1e-12)).clamp(max=LARGEST)
        # A term that says nothing yet, such as one whose lists are empty, keeps the factor it has.
        ratio = self.get_buffer("ratio")
        new = measured if step == 0 else KEPT * ratio + (1 - KEPT) * measured
        ratio.copy_(torch.where((lengths[1:] > 0) & (lengths[0] > 0), new, ratio))


def _length(value: Tensor, at: tuple[Tensor, Tensor], alike: Sequence[slice]) -> Tensor:
    """Return the squared length of the gradient of `value`, of all processes, at users and items; collective."""
    users, items = (torch.zeros_like(one) for one in at)
    if value.requires_grad:
        found = torch.autograd.grad(value, at, retain_graph=True, allow_unused=True)
        users, items = (zeros if part is None else part for zeros, part in zip((users, items), found, strict=True))
    own = torch.ones(len(items), dtype=torch.bool, device=items.device)
    common = value.new_zeros(())
    for rows in alike:
        own[rows] = False
        common = common + summed(items[rows]).square().sum()
    return summed(users.square().sum() + items[own].square().sum()) + common
