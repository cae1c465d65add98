"""How adapted student vectors are compared with the teacher's: one value an entity, the caller takes the mean.

student [E,Ds] and teacher [E,Dt] are of the same entities, of one side. The teacher's are centred, their mean squared
length is 1, and no gradient flows to them. A vector of length 0 has no direction: its cosine with anything is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from recdistill.distill import adapters, ranks
from recdistill.distill.losses import FAR
from recdistill.errors import ConfigError

SHORTEST = 1e-9  # a vector's length, below which it has no direction
ADAPTERS: Mapping[str, Callable[..., nn.Module]] = {
    "linear": adapters.Linear,
    "orthogonal": adapters.Orthogonal,
    "mlp": adapters.MLP,
    "experts": adapters.Experts,
}


def build(loss: Mapping[str, Any], ds: int, dt: int) -> nn.Module:
    """Return the module of a comparison, `loss` as its specification dumps it; called (student, teacher, at) -> [E]."""
    settings = {name: value for name, value in loss.items() if name != "kind"}
    if loss["kind"] == "gram":
        return Gram()
    if loss["kind"] == "similarity":
        return Similarity()
    if loss["kind"] == "rotation":
        return Rotation()
    if loss["kind"] == "topology":
        return Topology(ds, dt, **settings)
    return Distance(make_adapter(settings["adapter"], ds, dt), metric=settings["metric"])


def make_adapter(adapter: Mapping[str, Any], ds: int, dt: int) -> nn.Module:
    """Return the adapter from `ds` to `dt` dimensions, `adapter` as its specification dumps it."""
    return ADAPTERS[adapter["kind"]](ds, dt, **{name: value for name, value in adapter.items() if name != "kind"})


class Distance(nn.Module):
    """The student's vectors through an adapter against the teacher's (FitNet, VkD, DE)."""

    def __init__(self, adapter: nn.Module, *, metric: Literal["squared", "cosine"]) -> None:
        super().__init__()
        self.adapter, self.metric = adapter, metric

    def forward(self, student: Tensor, teacher: Tensor, at: float) -> Tensor:
        """Return the distance of each entity, [E]."""
        return distance(self.adapter(student, teacher, at), teacher, metric=self.metric)


class Gram(nn.Module):
    """Squared differences of all cosines among the entities (FTD, Kang et al., KDD 2021, eq. 3); nothing is trained."""

    def forward(self, student: Tensor, teacher: Tensor, at: float) -> Tensor:  # noqa: ARG002
        """Return the mean over the entities of each one's squared differences with them, [E]."""
        return gram(student, teacher)


class Similarity(nn.Module):
    """Squared differences of the entities' rows of inner products, each row at length 1 (Tung and Mori, ICCV 2019)."""

    def forward(self, student: Tensor, teacher: Tensor, at: float) -> Tensor:  # noqa: ARG002
        """Return what each entity adds to the sum over all pairs, over the number of entities: [E]."""
        return similarity(student, teacher)


class Rotation(nn.Module):
    """The distance from the teacher's vectors as they are turned to come nearest; nothing is trained.

    Inner products leave a rotation open, so the teacher is turned to the student and not the other way round (after Han
    et al., arXiv 2103.16844).
    """

    def forward(self, student: Tensor, teacher: Tensor, at: float) -> Tensor:  # noqa: ARG002
        """Return the squared distance of each entity, [E]; collective."""
        return (student - teacher @ turn(student, teacher)).square().sum(1)


class Topology(nn.Module):
    """Cosines within groups and with groups' means, and each group's expert (HTD, Kang et al., KDD 2021, section 4.3).

    The groups are those of a gate over the teacher's vectors, the one that chooses among the experts.
    """

    def __init__(self, ds: int, dt: int, *, groups: int, gamma: float, anneal: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.experts = adapters.Experts(ds, dt, experts=groups, anneal=anneal)

    def forward(self, student: Tensor, teacher: Tensor, at: float) -> Tensor:
        """Return gamma (within + between) + (1 - gamma) distance of the experts' vectors, [E]."""
        scores = self.experts.scores(student, teacher)
        group = scores.argmax(1)
        cosines = within(student, teacher, group, groups=self.experts.experts)
        cosines = cosines + between(student, teacher, group, groups=self.experts.experts)
        adapted = self.experts.mix(student, scores, at)
        return self.gamma * cosines + (1 - self.gamma) * distance(adapted, teacher, metric="squared")


def distance(adapted: Tensor, teacher: Tensor, *, metric: Literal["squared", "cosine"]) -> Tensor:
    """Return the squared distance of each of `adapted` [E,Dt] from `teacher` [E,Dt], or 1 - their cosine: [E]."""
    if metric == "cosine":
        return 1 - (unit(adapted) * unit(teacher)).sum(1)
    return (adapted - teacher).square().sum(1)


def gram(student: Tensor, teacher: Tensor) -> Tensor:
    """Return each entity's mean of (cos(t_i, t_j) - cos(s_i, s_j))^2 over all j, itself included: [E].

    With unit vectors, sum_j (t_i t_j)(s_i s_j) is t_i' (sum_j t_j s_j') s_i: the work grows as E, and no [E,E] is made.
    The three sums cancel, so a value near 0 may be as low as minus the rounding of 1.
    """
    s, t = unit(student), unit(teacher)
    n = len(s)
    alike = (t @ (t.T @ t) * t).sum(1) + (s @ (s.T @ s) * s).sum(1)
    return (alike - 2 * (t @ (t.T @ s) * s).sum(1)) / n


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Return sum_j (G_t[i,j] - G_s[i,j])^2 / E, G the inner products of all entities, each row at length 1: [E].

    Its mean over the entities is the paper's loss; turning or stretching all vectors of a side changes nothing.
    """
    tables = (unit(vectors @ vectors.T) for vectors in (student, teacher))
    return torch.sub(*tables).square().sum(1) / len(student)


def turn(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the matrix [Dt,Ds] of orthonormal columns that takes teacher [E,Dt] nearest to student [E,Ds].

    Without gradient. A wider teacher is cut to its Ds principal axes, which are then turned by orthogonal Procrustes.
    Collective: it is that of the entities of all processes. Raises ConfigError for a teacher that is narrower than the
    student.
    """
    ds, dt = student.shape[1], teacher.shape[1]
    if dt < ds:
        what = f"a teacher of {dt} dimensions cannot be turned into a student of {ds}"
        raise ConfigError(what, fix="use the loss distance, or a student no wider than its teacher")
    products = ranks.summed(torch.cat([teacher.T @ teacher, teacher.T @ student], dim=1).double())
    axes = torch.linalg.eigh(products[:, :dt]).eigenvectors[:, -ds:]
    left, _, right = torch.linalg.svd(axes.T @ products[:, dt:])
    return (axes @ left @ right).to(student.dtype)


def within(student: Tensor, teacher: Tensor, group: Tensor, *, groups: int) -> Tensor:
    """Return the mean of (cos(t_i, t_j) - cos(s_i, s_j))^2 over j of i's group [E] with cos(t_i, t_j) > 0: [E].

    Each group's pairs are one product of its own rows, a share 1 / groups of all pairs where groups are even.
    """
    order, back, sizes = adapters.by_group(group, groups)
    found = []
    for s, t in zip(unit(student)[order].split(sizes), unit(teacher)[order].split(sizes), strict=True):
        found.append(_difference(t @ t.T, s @ s.T))
    return torch.cat(found)[back]


def between(student: Tensor, teacher: Tensor, group: Tensor, *, groups: int) -> Tensor:
    """Return the mean of (cos(t_i, P_k) - cos(s_i, Q_k))^2 over the groups k with cos(t_i, P_k) > 0: [E].

    P_k and Q_k are the means of the teacher's and the student's vectors of the entities of `group` k; no gradient flows
    through them (HTD's choice "second").
    """
    member = nn.functional.one_hot(group, groups).to(student.dtype)
    member = member / member.sum(0).clamp(min=1)
    theirs, own = member.T @ teacher, member.T @ student.detach()
    return _difference(unit(teacher) @ unit(theirs).T, unit(student) @ unit(own).T)


def preserve(before: Tensor, after: Tensor, *, temperature: float) -> Tensor:
    """Return the cross-entropy of softmax(after / T) with softmax(before / T), without a gradient to `before`: [R].

    Both [R,Q] are the student's scores of a row's items, before and after the adapter; where `before` is -inf there is
    no item, and a row without any gives 0. PCKD (TKDE 2025).
    """
    known = torch.isfinite(before)
    p = (before.detach() / temperature).masked_fill(~known, FAR).softmax(1)
    q = (after / temperature).masked_fill(~known, FAR).log_softmax(1)
    return -(p * q).masked_fill(~known, 0.0).sum(1)


def unit(vectors: Tensor) -> Tensor:
    """Return `vectors` [n,D] at length 1; one without a direction is zeros, and gets no gradient."""
    length = vectors.norm(dim=1, keepdim=True)
    return vectors / length.clamp(min=SHORTEST) * (length >= SHORTEST)


def _difference(teacher: Tensor, student: Tensor) -> Tensor:
    """Return each row's mean squared difference where the teacher's cosine is positive, 0 if nowhere: [n,m] -> [n]."""
    near = teacher > 0
    return ((teacher - student).square() * near).sum(1) / near.sum(1).clamp(min=1)
