"""Where a model looks: how much each item of a history moves its confidence, as a gradient of gates at 1.

Every item's vector is multiplied by a gate before the vectors are added up. The gradient of the confidence by the
gates has one number an item, whatever the width of the model, so a student's can be compared with its teacher's
(gradient knowledge distillation, Wang, Li and Sun, ENLSP at NeurIPS 2022, where it is taken by word embeddings).

A pooled history is linear in its gates: A_j = <e_j, d confidence / d pooled> / count. So only what follows the pooling
is ever differentiated twice, never a lookup: embedding bags have no second derivative by their weights. Gates belong
after whatever norm each item passes by itself, which would undo them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Tower = Callable[[Tensor], Tensor]
"""Pooled histories [B,D] -> the vectors of their users [B,D']; twice differentiable where it is to learn."""


def pool(vectors: Tensor, known: Tensor, gates: Tensor | None = None) -> Tensor:
    """Return the mean of the `known` [B,L] vectors of a history [B,L,D], zeros where there is none: [B,D].

    gates [B,L] multiply the vectors; the mean is over as many items as without them.
    """
    weight = known.to(vectors.dtype)
    weight = weight if gates is None else weight * gates
    return (vectors * weight.unsqueeze(2)).sum(1) / known.sum(1, keepdim=True).clamp(min=1)


def confidence(scores: Tensor, *, listed: Tensor | None = None, positives: Tensor | None = None) -> Tensor:
    """Return the largest softmax probability of each row of `scores` [B,K], or that of its `positives` in sum: [B].

    listed [B,K] says which columns are items at all (all if None), positives [B,K] which of them were taken.
    """
    return (_chances(scores, listed) * _meant(scores, listed, positives)).sum(1)


def of_first(listed: Tensor) -> dict[str, Tensor]:
    """Return what tells `confidence` to be the chance of the first item of lists [B,K], -1 where they are shorter.

    Two models that are to be compared must be sure of the same item: which is likeliest to each may differ, and no
    gradient says so.
    """
    first = torch.zeros_like(listed, dtype=torch.bool)
    first[:, :1] = True
    return {"listed": listed >= 0, "positives": first & (listed >= 0)}


def linear_gradients(
    vectors: Tensor,
    known: Tensor,
    users: Tensor,
    items: Tensor,
    *,
    listed: Tensor | None = None,
    positives: Tensor | None = None,
) -> Tensor:
    """Return d confidence / d gates [B,L] in closed form, where pooled history plus a constant is a user's vector.

    vectors [B,L,D] of the history, known [B,L], users [B,D], items [B,K,D] of the list, divided by the temperature;
    listed and positives as in `confidence`. With c = sum_P p_k, d c / d s_k = p_k (1[k in P] - c). It learns by one
    ordinary backward pass. A gate of no item is 0.
    """
    p = _chances((items @ users.unsqueeze(2)).squeeze(2), listed)
    meant = _meant(p, listed, positives)
    slope = p * (meant - (p * meant).sum(1, keepdim=True))
    return along(vectors, known, (slope.unsqueeze(1) @ items).squeeze(1))


def tower_gradients(
    vectors: Tensor,
    known: Tensor,
    tower: Tower,
    items: Tensor,
    *,
    listed: Tensor | None = None,
    positives: Tensor | None = None,
    learn: bool = False,
) -> Tensor:
    """Return d confidence / d gates [B,L] where `tower` follows the pooling, by automatic differentiation.

    vectors [B,L,D] of the history, known [B,L], items [B,K,D'] of the list as they are compared (in cosine space
    `direction` of them, and in the tower too, over the temperature); listed and positives as in `confidence`. With
    `learn` it can itself be differentiated by `vectors`, `items` and what `tower` is made of; else it is a constant.
    """
    with torch.enable_grad():
        pooled = pool(vectors, known)
        pooled = pooled if learn and pooled.requires_grad else pooled.detach().requires_grad_()
        scores = (items @ tower(pooled).unsqueeze(2)).squeeze(2)
        total = confidence(scores, listed=listed, positives=positives).sum()
        (slope,) = torch.autograd.grad(total, pooled, create_graph=learn, materialize_grads=True)
        found = along(vectors, known, slope)
    return found if learn else found.detach()


def along(vectors: Tensor, known: Tensor, slope: Tensor) -> Tensor:
    """Return d confidence / d gates [B,L] from `slope` = d confidence / d pooled [B,D]: <e_j, slope> / count.

    vectors [B,L,D] of the history, known [B,L]. A gate of no item is 0.
    """
    each = (vectors @ slope.unsqueeze(2)).squeeze(2) / known.sum(1, keepdim=True).clamp(min=1)
    return torch.where(known, each, 0.0)


def gate_gradients(sure: Callable[[Tensor], Tensor], known: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the gradient [B,L] of any model's confidence, `sure` of gates [B,L] -> [B], where they are 1; a constant.

    `sure` must multiply what it adds up by the gates, and no row of it may depend on another's. A gate of no item,
    where `known` [B,L] is false, is 0.
    """
    with torch.enable_grad():
        gates = torch.ones(known.shape, dtype=dtype, device=known.device, requires_grad=True)
        (slope,) = torch.autograd.grad(sure(gates).sum(), gates, materialize_grads=True)
    return slope.masked_fill(~known, 0.0)


def gate_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return |a / |a| - b / |b||^2 = 2 - 2 cos(a, b) of gate gradients [B,L]: [B], 0 where either is all zeros.

    0 for a copy, of whatever scale, and at most 4. Its mean is the loss of Wang, Li and Sun (2022). It has all the
    derivatives that its arguments have. A history of one item has but a sign: it is 0 or 4, and nobody learns of it.
    """
    there = student.ne(0).any(1) & teacher.ne(0).any(1)
    return (direction(student) - direction(teacher)).square().sum(1) * there


def direction(rows: Tensor) -> Tensor:
    """Return rows [...,D] over their lengths, zeros for zeros; differentiable as often as one likes.

    Dividing by the largest entry first keeps the smallest rows from vanishing in squares; it changes no derivative.
    """
    largest = rows.detach().abs().amax(-1, keepdim=True)
    there = largest > 0
    even = rows / torch.where(there, largest, 1.0)
    square = even.square().sum(-1, keepdim=True)
    return torch.where(there, even * torch.where(there, square, 1.0).rsqrt(), 0.0)


def _chances(scores: Tensor, listed: Tensor | None) -> Tensor:
    if listed is None:
        return scores.softmax(1)
    # Zeros where nothing is listed at all; -inf throughout a row would leave NaN, in its gradient too.
    return scores.masked_fill(~listed, torch.finfo(scores.dtype).min).softmax(1) * listed


def _meant(scores: Tensor, listed: Tensor | None, positives: Tensor | None) -> Tensor:
    """Return 1 at the items whose chance the confidence is, 0 elsewhere: [B,K]; it is a constant."""
    if positives is not None:
        return positives.to(scores.dtype)
    seen = scores.detach() if listed is None else scores.detach().masked_fill(~listed, -torch.inf)
    return torch.zeros_like(seen).scatter(1, seen.argmax(1, keepdim=True), 1.0)
