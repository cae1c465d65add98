"""Comparisons of vectors against loops over pairs in float64, what they do not see, and their gradients."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill import align
from recdistill.distill.spec_align import (
    MLP,
    Distance,
    Experts,
    Gram,
    Linear,
    Orthogonal,
    Rotation,
    Similarity,
    Topology,
)

N, DS, DT, K = 24, 3, 6, 4
LOSSES = {
    "linear": Distance(adapter=Linear()),
    "orthogonal": Distance(adapter=Orthogonal(), metric="cosine"),
    "mlp": Distance(adapter=MLP(ratio=3)),
    "experts": Distance(adapter=Experts(experts=5)),
    "gram": Gram(),
    "topology": Topology(groups=K),
    "similarity": Similarity(),
    "rotation": Rotation(),
}
every_loss = pytest.mark.parametrize("kind", LOSSES)


def rows(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(kind):
    torch.manual_seed(0)
    return align.build(LOSSES[kind].model_dump(), DS, DT).double()


def rotation(seed, d):
    return torch.linalg.qr(rows(seed, d, d))[0]


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def mean_of_pairs(pairs):
    """The mean squared difference of those (teacher's, student's) cosines whose teacher's is positive."""
    kept = [(t - s) ** 2 for t, s in pairs if t > 0]
    return sum(kept) / max(len(kept), 1)


def means(vectors, group):
    return {k: vectors[group == k].mean(0) for k in sorted(set(group.tolist()))}


# All of them, as they are built


@every_loss
@pytest.mark.parametrize("at", [0.0, 0.05, 0.5, 1.0])
def test_one_value_an_entity_with_finite_gradients_for_all_that_is_trained(kind, at):
    module, student = made(kind), rows(1, N, DS)
    student[0] = 0  # a vector without a direction
    student.requires_grad_(True)
    found = module(student, rows(2, N, DT), at)
    assert found.shape == (N,)
    found.mean().backward()
    for name, value in [("student", student), *module.named_parameters()]:
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name
        assert value.grad.abs().max() < 1e3, name


@every_loss
@pytest.mark.parametrize("at", [0.05, 0.5])
def test_rows_in_another_order_give_the_same_values_in_that_order(kind, at):
    module, student, teacher = made(kind), rows(1, N, DS), rows(2, N, DT)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(module(student[order], teacher[order], at), module(student, teacher, at)[order])


@every_loss
def test_float32_is_float64_up_to_its_rounding(kind):
    module, student, teacher = made(kind), rows(1, N, DS), rows(2, N, DT)
    exact = module(student, teacher, 0.5)
    found = module.float()(student.float(), teacher.float(), 0.5)
    torch.testing.assert_close(found.double(), exact, atol=2e-5, rtol=1e-4)


def test_a_lone_entity_has_values():
    for kind in LOSSES:
        assert torch.isfinite(made(kind)(rows(1, 1, DS), rows(2, 1, DT), 0.5)).all()


# Distances


def test_distances_are_those_of_the_definition():
    adapted, teacher = rows(1, N, DT), rows(2, N, DT)
    squared = [float(((a - t) ** 2).sum()) for a, t in zip(adapted, teacher, strict=True)]
    cosines = [1 - cosine(a, t) for a, t in zip(adapted, teacher, strict=True)]
    assert align.distance(adapted, teacher, metric="squared").tolist() == pytest.approx(squared)
    assert align.distance(adapted, teacher, metric="cosine").tolist() == pytest.approx(cosines)


def test_what_equals_the_teacher_has_no_distance_and_its_cosine_does_not_see_lengths():
    teacher = rows(2, N, DT)
    assert align.distance(teacher, teacher, metric="squared").tolist() == [0.0] * N
    assert align.distance(3 * teacher, teacher, metric="cosine").tolist() == pytest.approx([0.0] * N)


def test_the_built_distance_is_that_of_its_adapter():
    module, student, teacher = made("linear"), rows(1, N, DS), rows(2, N, DT)
    adapted = student @ module.adapter.layer.weight.T + module.adapter.layer.bias
    torch.testing.assert_close(module(student, teacher, 0.0), (adapted - teacher).square().sum(1))


def test_settings_reach_what_is_built():
    torch.manual_seed(0)
    mlp = align.build(Distance(adapter=MLP(ratio=7, dropout=0.4)).model_dump(), DS, DT).adapter
    assert (mlp.first.out_features, mlp.dropout) == (21, 0.4)
    experts = align.build(Distance(adapter=Experts(experts=3, anneal=0.2)).model_dump(), DS, DT).adapter
    assert (experts.experts, experts.anneal) == (3, 0.2)
    topology = align.build(Topology(groups=3, gamma=0.9, anneal=0.2).model_dump(), DS, DT)
    assert (topology.experts.experts, topology.experts.anneal, topology.gamma) == (3, 0.2, 0.9)


# Gram


def test_gram_is_the_loop_over_pairs():
    student, teacher = rows(1, N, DS), rows(2, N, DT)
    expected = [
        sum((cosine(teacher[i], teacher[j]) - cosine(student[i], student[j])) ** 2 for j in range(N)) / N
        for i in range(N)
    ]
    assert align.gram(student, teacher).tolist() == pytest.approx(expected)


def test_gram_sees_neither_a_rotation_nor_the_lengths():
    teacher = rows(2, N, DT)
    lengths = rows(3, N, 1).exp()
    torch.testing.assert_close(align.gram(lengths * (teacher @ rotation(4, DT)), teacher), torch.zeros(N).double())


def test_the_gradient_of_gram_is_that_of_the_matrices_of_cosines():
    teacher = align.unit(rows(2, N, DT))
    found, expected = (rows(1, N, DS).requires_grad_(True) for _ in range(2))
    (align.gram(found, teacher) ** 2).sum().backward()
    s = align.unit(expected)
    ((teacher @ teacher.T - s @ s.T).square().mean(1) ** 2).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)


# Topology


@pytest.mark.parametrize("at", [0.05, 0.5])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_topology_is_the_double_loop_and_the_experts(at, gamma):
    torch.manual_seed(0)
    module = align.build(Topology(groups=K, gamma=gamma).model_dump(), DS, DT).double()
    student, teacher = rows(1, N, DS), rows(2, N, DT)
    group = module.experts.scores(student, teacher).argmax(1)
    theirs, own = means(teacher, group), means(student, group)
    expected = []
    for i in range(N):
        pairs = [
            (cosine(teacher[i], teacher[j]), cosine(student[i], student[j])) for j in range(N) if group[i] == group[j]
        ]
        middles = [(cosine(teacher[i], theirs[k]), cosine(student[i], own[k])) for k in theirs]
        expected.append(mean_of_pairs(pairs) + mean_of_pairs(middles))
    reconstruction = (module.experts(student, teacher, at) - teacher).square().sum(1)
    found = module(student, teacher, at)
    torch.testing.assert_close(found, gamma * torch.tensor(expected).double() + (1 - gamma) * reconstruction)


def test_the_terms_of_topology_are_zero_where_the_student_is_the_teacher_turned():
    teacher, group = rows(2, N, DT), torch.arange(N) % K
    student = 2.0 * teacher @ rotation(4, DT)
    zeros = torch.zeros(N).double()
    torch.testing.assert_close(align.within(student, teacher, group, groups=K), zeros)
    torch.testing.assert_close(align.between(student, teacher, group, groups=K), zeros)


def test_groups_without_members_change_nothing():
    student, teacher, group = rows(1, N, DS), rows(2, N, DT), torch.arange(N) % K
    for part in (align.within, align.between):
        few, many = part(student, teacher, group, groups=K), part(student, teacher, group * 2, groups=3 * K)
        torch.testing.assert_close(many, few)


@pytest.mark.parametrize("part", [align.within, align.between])
def test_twice_the_entities_have_the_same_values(part):
    student, teacher, group = rows(1, N, DS), rows(2, N, DT), torch.arange(N) % K
    once = part(student, teacher, group, groups=K)
    twice = part(student.repeat(2, 1), teacher.repeat(2, 1), group.repeat(2), groups=K)
    torch.testing.assert_close(twice, once.repeat(2))


def test_no_gradient_flows_through_a_group_mean():
    student, teacher, group = rows(1, N, DS).requires_grad_(True), rows(2, N, DT), torch.arange(N) % K
    found = align.between(student, teacher, group, groups=K)
    (gradient,) = torch.autograd.grad(found[0], student)
    assert gradient[0].abs().sum() > 0
    assert gradient[1:].abs().sum() == 0


# Preserve


def test_preserve_is_the_cross_entropy_of_the_two_softmaxes():
    before, after = rows(1, 7, 5), rows(2, 7, 5)
    p, q = (before / 0.3).softmax(1), (after / 0.3).softmax(1)
    torch.testing.assert_close(align.preserve(before, after, temperature=0.3), -(p * q.log()).sum(1))


def test_preserve_is_least_where_nothing_changed_but_a_constant_and_teaches_only_what_is_after():
    before, after = rows(1, 7, 5).requires_grad_(True), (rows(1, 7, 5) + 2.0).requires_grad_(True)
    align.preserve(before, after, temperature=0.1).sum().backward()
    assert before.grad is None
    torch.testing.assert_close(after.grad, torch.zeros(7, 5).double())


def test_preserve_leaves_out_what_is_no_item():
    before, after = rows(1, 2, 5), rows(2, 2, 5)
    short = torch.cat([before, torch.full((2, 2), -torch.inf)], dim=1)
    longer = torch.cat([after, rows(3, 2, 2)], dim=1).requires_grad_(True)
    found = align.preserve(short, longer, temperature=0.5)
    torch.testing.assert_close(found, align.preserve(before, after, temperature=0.5))
    (gradient,) = torch.autograd.grad(found.sum(), longer)
    assert torch.isfinite(gradient).all()
    assert gradient[:, 5:].abs().sum() == 0
    nothing = torch.full((2, 3), -torch.inf).double()
    assert align.preserve(nothing, rows(4, 2, 3), temperature=0.5).tolist() == [0.0, 0.0]
