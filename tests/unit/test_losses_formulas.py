"""Each list loss against its formula written naively in float64, its limits, and what samples must stand for."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch

from recdistill.distill import losses
from recdistill.types import Candidates


def rows(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def candidates(teacher, ranked=None, items=None, **more):
    items = torch.arange(teacher.numel()).view(teacher.shape) if items is None else items
    return Candidates(items=items, teacher=teacher, ranked=teacher.shape[1] if ranked is None else ranked, **more)


def gradient(loss, student):
    student = student.detach().clone().requires_grad_(True)
    loss(student).sum().backward()
    return student.grad


# Plackett-Luce, its orders enumerated


def chance_of_order(weights, order):
    """The chance of taking the items of `order` one after another, each with its share of what is left."""
    left, chance = weights.sum(), 1.0
    for item in order:
        chance = chance * weights[item] / left
        left = left - weights[item]
    return chance


def brute_force_plackett_luce(student, ranked, logq):
    """All orders of everything that begin with the ranked items in their order, their chances added."""
    weights = torch.exp(student - logq)
    rest = range(ranked, len(student))
    orders = [[*range(ranked), *order] for order in itertools.permutations(rest)]
    return -torch.log(sum(chance_of_order(weights, order) for order in orders)) / ranked


@pytest.mark.parametrize("ranked", [1, 2, 3, 5])
@pytest.mark.parametrize("drawn", [False, True])
def test_plackett_luce_and_its_gradient_are_those_of_brute_force(ranked, drawn):
    student = rows(0, 3, 5)
    logq = -rows(1, 3, 5).abs() * (torch.arange(5) >= ranked) if drawn else torch.zeros(3, 5).double()
    given = candidates(rows(2, 3, 5), ranked, logq=logq if drawn else None)

    def slow(scores):
        return torch.stack([brute_force_plackett_luce(s, ranked, q) for s, q in zip(scores, logq, strict=True)])

    torch.testing.assert_close(losses.plackett_luce(student, given), slow(student))
    found = gradient(partial(losses.plackett_luce, candidates=given), student)
    torch.testing.assert_close(found, gradient(slow, student))


def test_sampled_orders_at_temperature_zero_are_plackett_luce_of_the_teachers_order():
    student, teacher = rows(3, 6, 9), rows(4, 6, 9)
    found = losses.sampled_pl(student, candidates(teacher, 5), samples=4, temperature=1e-9)
    order = teacher[:, :5].argsort(dim=1, descending=True)
    ordered = torch.cat([student[:, :5].gather(1, order), student[:, 5:]], dim=1)
    torch.testing.assert_close(found, losses.plackett_luce(ordered, candidates(teacher, 5)))


@pytest.mark.parametrize("temperature", [0.7, 2.0, 1e9])
def test_many_sampled_orders_give_the_expectation_over_all_orders(temperature):
    # Far apart, and the unranked far below: so the value says which orders were drawn.
    student, teacher = torch.tensor([[3.0, 0.0, 1.0, -2.0, -4.0, -5.0]]).double(), rows(6, 1, 6)
    logq = -rows(7, 1, 6).abs() * (torch.arange(6) >= 4)
    given = candidates(teacher, 4, logq=logq)
    expected = 0.0
    for order in itertools.permutations(range(4)):
        chance = chance_of_order(torch.exp(teacher[0, :4] / temperature), order)
        moved = torch.cat([student[:, list(order)], student[:, 4:]], dim=1)
        expected += chance * losses.plackett_luce(moved, given)
    found = losses.sampled_pl(student, given, samples=60_000, temperature=temperature)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
    assert (losses.plackett_luce(student, given) - expected).abs() > 0.1


def test_each_order_is_sampled_as_often_as_plackett_luce_says():
    student, teacher = torch.tensor([[0.0, 1.0, 3.0]]).double(), torch.tensor([[2.0, 0.0, -1.0]]).double()
    n = 20_000  # rows with other items in each, so with other noise
    found = losses.sampled_pl(student.expand(n, -1), candidates(teacher.expand(n, -1)), samples=1, temperature=1.0)
    for order in itertools.permutations(range(3)):
        mark = losses.plackett_luce(student[:, list(order)], candidates(teacher))  # another value for each order
        chance = chance_of_order(teacher[0].exp(), order).item()
        often = ((found - mark).abs() < 1e-9).sum().item()
        assert abs(often - n * chance) < 4 * math.sqrt(n * chance * (1 - chance))


def test_the_noise_of_sampled_orders_is_a_function_of_the_items_and_differs_between_rows():
    student, teacher = rows(8, 1, 6).expand(50, -1), rows(9, 1, 6).expand(50, -1)
    loss = partial(losses.sampled_pl, samples=1, temperature=1.0)
    torch.manual_seed(0)
    first = loss(student, candidates(teacher))
    torch.manual_seed(1)
    assert torch.equal(loss(student, candidates(teacher)), first)
    assert len(first.unique()) > 30
    same = candidates(teacher, items=torch.arange(6).expand(50, -1))
    assert len(loss(student, same).unique()) == 1


def test_the_items_noise_goes_with_the_item_whatever_its_column():
    student, teacher = rows(10, 8, 6), rows(11, 8, 6)
    given, turned = candidates(teacher), [3, 0, 5, 1, 4, 2]
    moved = candidates(teacher[:, turned], items=given.items[:, turned])
    loss = partial(losses.sampled_pl, samples=5, temperature=1.0)
    torch.testing.assert_close(loss(student[:, turned], moved), loss(student, given))


def test_independent_is_a_cross_entropy_for_each_ranked_item():
    student, logq = rows(12, 3, 7), -rows(13, 3, 7).abs()
    expected = []
    for s, q in zip(student.tolist(), logq.tolist(), strict=True):
        rest = sum(math.exp(s[j] - q[j]) for j in range(3, 7))
        expected.append(-sum(s[k] - math.log(math.exp(s[k]) + rest) for k in range(3)) / 3)
    found = losses.independent(student, candidates(student, 3, logq=logq))
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    one = candidates(student, 1, logq=logq * (torch.arange(7) > 0))
    torch.testing.assert_close(losses.independent(student, one), losses.plackett_luce(student, one))


# KL: what it is normalised over


def test_both_sides_are_normalised_over_the_same_list_and_not_the_student_over_the_catalogue():
    student, teacher = rows(14, 4, 20), rows(15, 4, 20)
    best = teacher.topk(5, dim=1)
    short = candidates(best.values, items=best.indices)
    listed = student.gather(1, best.indices)
    p, q = best.values.softmax(1), listed.softmax(1)
    torch.testing.assert_close(losses.softmax_kl(listed, short, temperature=1.0), (p * (p / q).log()).sum(1))
    # A student that is the teacher rests; normalised over the catalogue it would be pushed on.
    assert losses.softmax_kl(best.values, short, temperature=1.0).abs().max() < 1e-12
    over_all = (p * (p.log() - teacher.log_softmax(1).gather(1, best.indices))).sum(1)
    assert (over_all > 0.1).all()


def test_a_list_of_the_whole_catalogue_gives_the_full_kl():
    student, teacher = rows(16, 4, 30), rows(17, 4, 30)
    p, q = (teacher / 2).log_softmax(1), (student / 2).log_softmax(1)
    found = losses.softmax_kl(student, candidates(teacher, 10), temperature=2.0)
    torch.testing.assert_close(found, torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(1))


def test_logq_is_subtracted_after_the_temperature():
    student, teacher, logq = rows(18, 4, 6), rows(19, 4, 6), -rows(20, 4, 6).abs()
    p, q = (teacher / 3 - logq).softmax(1), (student / 3 - logq).softmax(1)
    found = losses.softmax_kl(student, candidates(teacher, logq=logq), temperature=3.0)
    torch.testing.assert_close(found, (p * (p / q).log()).sum(1))


def sampled(student, teacher, listed, draws, seed):
    """Scores and candidates: `listed` items, and draws (rows, places) of others at unequal chances, replaced."""
    size = student.shape[1]
    chance = torch.arange(1, size - listed + 1).double().sqrt()
    chance = chance / chance.sum()
    height, n = draws
    drawn = torch.multinomial(chance, height * n, replacement=True, generator=torch.Generator().manual_seed(seed))
    items = torch.cat([torch.arange(listed).expand(height, -1), drawn.view(height, n) + listed], dim=1)
    logq = torch.cat([torch.zeros(listed).double(), torch.log(n * chance)])[items]
    known = candidates(teacher.expand(height, -1).gather(1, items), listed, items, logq=logq)
    return student.expand(height, -1).gather(1, items), known


@pytest.mark.parametrize(
    "loss",
    [
        partial(losses.softmax_kl, temperature=1.5),
        losses.normalised_ce,
        losses.plackett_luce,
        losses.independent,
        partial(losses.sampled_pl, samples=2, temperature=1e-9),
    ],
)
def test_many_samples_with_logq_give_what_the_whole_catalogue_gives(loss):
    student, teacher = rows(21, 1, 60), rows(22, 1, 60)
    whole = loss(student, candidates(teacher, 5))
    found = loss(*sampled(student, teacher, 5, (1, 100_000), 0))
    torch.testing.assert_close(found, whole, rtol=0.02, atol=1e-3)


def test_few_samples_with_logq_estimate_the_whole_denominator_without_bias():
    student = rows(23, 1, 40)
    scores, given = sampled(student, student, 1, (20_000, 8), 1)
    found = losses.plackett_luce(scores, given).exp().mean()  # the sampled denominator over exp s_0
    assert found.item() == pytest.approx((student - student[:, :1]).exp().sum().item(), rel=0.01)


# RCE-KD


def naive_rce(student, teacher, first, second, gate, temperature):
    """(1-g) CE over a set + g CE over another, and the teacher's entropies, by dictionaries of one row."""
    total, entropy = 0.0, 0.0
    for share, chosen in ((1 - gate, sorted(first)), (gate, sorted(second))):
        p = (teacher[chosen] / temperature).softmax(0)
        q = (student[chosen] / temperature).softmax(0)
        total = total - share * (p * q.log()).sum()
        entropy = entropy - share * (p * p.log()).sum()
    return total, entropy


def test_gated_kl_is_the_set_based_cross_entropy_less_the_teachers_entropy():
    everything, teacher = rows(24, 12, 30), rows(25, 12, 30)
    generator = torch.Generator().manual_seed(2)
    gate = torch.rand(12, generator=generator, dtype=torch.float64)
    own = everything.topk(6, dim=1).indices
    drawn = torch.rand(12, 30, generator=generator).topk(5, dim=1).indices
    best = teacher.topk(6, dim=1).indices
    # Q, then of the teacher's first what neither Q nor the student's first has.
    taken = (best.unsqueeze(2) == torch.cat([drawn, own], dim=1).unsqueeze(1)).any(2)
    assert taken.any()
    items = torch.cat([own, drawn, best.masked_fill(taken, -1)], dim=1)
    at = items.clamp(min=0)
    given = candidates(teacher.gather(1, at).masked_fill(items < 0, -torch.inf), 6, items, gate=gate)

    def fast(scores):
        return losses.gated_kl(scores.gather(1, at), given, temperature=1.5)

    def slow(scores):
        values = []
        for u in range(12):
            q, s, t = (set(x[u].tolist()) for x in (drawn, own, best))
            values.append(naive_rce(scores[u], teacher[u], s, q | (t - (q | s)), gate[u], 1.5))
        return torch.stack([ce for ce, _ in values]), torch.stack([h for _, h in values])

    cross, entropy = slow(everything)
    torch.testing.assert_close(fast(everything), cross - entropy)
    torch.testing.assert_close(gradient(fast, everything), gradient(lambda s: slow(s)[0], everything))


def test_a_gate_of_zero_or_one_is_one_list_alone_and_none_is_refused():
    student, teacher = rows(26, 2, 7), rows(27, 2, 7)
    given = candidates(teacher, 3, gate=torch.tensor([0.0, 1.0]))
    found = losses.gated_kl(student, given, temperature=1.0)
    first = losses.softmax_kl(student[:, :3], candidates(teacher[:, :3]), temperature=1.0)
    second = losses.softmax_kl(student[:, 3:], candidates(teacher[:, 3:]), temperature=1.0)
    torch.testing.assert_close(found, torch.stack([first[0], second[1]]))
    with pytest.raises(ValueError, match="gate"):
        losses.gated_kl(student, candidates(teacher, 3), temperature=1.0)
