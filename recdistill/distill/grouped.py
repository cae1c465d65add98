"""The chain rule of KL over a partition of the list: one loss that weighs the mass of the parts and their insides.

KL(p||q) = KL(P||Q) + sum_g P_g KL(p(.|g) || q(.|g)), P_g the mass of part g. With these weights it is the plain KL;
other weights are decoupled distillation (Zhao et al., CVPR 2022: parts taken and not), distillation within popularity
groups (a bias that is constant in a group then teaches nothing) and subclass distillation (Mueller et al., 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recdistill.distill.losses import FAR, below, heated, scored, weighed
from recdistill.types import Candidates


def grouped_kl(
    student: Tensor,
    candidates: Candidates,
    *,
    temperature: float,
    parts: int,
    between: float = 1.0,
    within: Sequence[float] | None = None,
) -> Tensor:
    """Return `between` KL(P||Q) + sum_g w_g KL(p(.|g) || q(.|g)) over `parts` parts, [R].

    p and q are softmaxes over each row's list at `temperature`, `candidates.parts` [R,K] says in which part an item is,
    from 0. w_g is P_g, or `within[g]` as it is. A part that a row has no item of counts for nothing. ValueError for
    candidates that name no parts.

    >>> from recdistill.distill.losses import softmax_kl
    >>> said, student = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    >>> given = Candidates(items=torch.arange(3)[None], teacher=said, ranked=3, parts=torch.tensor([[0, 1, 1]]))
    >>> chained = grouped_kl(student, given, temperature=1.0, parts=2)
    >>> torch.allclose(chained, softmax_kl(student, given, temperature=1.0))
    True
    """
    if candidates.parts is None:
        raise ValueError("these candidates are not cut into parts")
    known = scored(candidates)
    p = torch.log_softmax(weighed(heated(candidates.teacher, known, temperature), candidates, known), dim=1)
    q = torch.log_softmax(weighed(heated(student, known, temperature), candidates, known), dim=1)
    total = p.new_zeros(len(p))
    for part in range(parts):
        member = known & (candidates.parts == part)
        mass, own = (logs.masked_fill(~member, FAR).logsumexp(1) for logs in (p, q))
        there = member.any(1)
        inside = (p - mass.unsqueeze(1)).masked_fill(~member, FAR)
        gap = (inside - (q - own.unsqueeze(1))).masked_fill(~member, 0.0)
        share = mass.exp()
        weight = share if within is None else within[part]
        each = between * share * (mass - own) + weight * (inside.exp() * gap).sum(1)
        total = total + each.masked_fill(~there, 0.0)
    return total


def hinge_mse(student: Tensor, candidates: Candidates, *, margin: float, dynamic: float = 1.0) -> Tensor:
    """Return max(0, mean_k (s_k - phi t_k)^2 - margin phi), both centred over the row's list, phi `dynamic`: [R].

    Continuation-KD (Jafari et al., Findings of EMNLP 2022), its squared norm averaged over the list so that the margin
    does not depend on how long it is; margin 0 is Annealing-KD. Centred, it is blind to an offset of a user's scores.
    """
    known = scored(candidates)
    count = known.sum(1, keepdim=True).clamp(min=1)

    def centred(scores: Tensor) -> Tensor:
        scores = below(scores, known).masked_fill(~known, 0.0)  # near 0: their sum is as exact as they are
        return (scores - (scores / count).sum(1, keepdim=True)).masked_fill(~known, 0.0)

    apart = (centred(student) - dynamic * centred(candidates.teacher)).square().sum(1) / count.squeeze(1)
    return torch.relu(apart - margin * dynamic)
