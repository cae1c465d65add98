"""Subclasses of taken and not taken: sub-logits, the chain rule of their KL, the loss that spreads them."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.distill.grouped import grouped_kl
from recdistill.distill.subclass import (
    NEGATIVES,
    Classes,
    SubLogits,
    class_logit,
    noise,
    spread,
    sub_logits,
    subclass_kl,
)
from recdistill.types import Batch, Candidates, Past

R, K, S, D = 3, 5, 4, 6


def rows(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs(subs, items=None):
    items = torch.arange(R * K).view(R, K) if items is None else items
    return Candidates(items=items, teacher=rows(9, R, K), ranked=K, subs=subs)


def student(score, subs):
    return torch.cat([score.unsqueeze(2), subs], dim=2)


def test_sub_logits_are_weighted_sums_of_the_products_of_coordinates():
    left, right, weight, bias = rows(1, R, D), rows(2, R, K, D), rows(3, 2 * S, D), rows(4, 2 * S)
    expected = torch.einsum("jd,rd,rkd->rkj", weight, left, right) + bias
    torch.testing.assert_close(sub_logits(left, right, weight, bias), expected)
    shared = torch.einsum("jd,rd,kd->rkj", weight, left, right[0]) + bias
    torch.testing.assert_close(sub_logits(left, right[0], weight, bias), shared)


def test_a_pairs_logit_is_that_of_the_summed_chances_of_its_subclasses():
    subs = rows(1, R, K, 2 * S)
    chances = subs.softmax(-1)
    taken = chances[..., :S].sum(-1)
    torch.testing.assert_close(class_logit(subs).sigmoid(), taken)
    classes = torch.stack([subs[..., :S].logsumexp(-1), subs[..., S:].logsumexp(-1)], dim=-1).softmax(-1)
    torch.testing.assert_close(classes[..., 0], taken)


def test_the_kl_of_subclasses_is_that_of_the_classes_and_that_within_them():
    z, t, temperature = rows(1, R, K, 2 * S), rows(2, R, K, 2 * S), 1.7
    p, q = (torch.log_softmax(subs / temperature, -1) for subs in (t, z))
    masses = [[part.exp().sum(-1) for part in logs.split(S, -1)] for logs in (p, q)]
    classes = sum(a * (a / b).log() for a, b in zip(*masses, strict=True))
    whole = (p.exp() * (p - q)).sum(-1)
    within = torch.zeros(R, K).double()
    for part in (slice(0, S), slice(S, 2 * S)):
        a, b = p[..., part].softmax(-1), q[..., part].softmax(-1)
        within += p[..., part].exp().sum(-1) * (a * (a / b).log()).sum(-1)
    torch.testing.assert_close(whole, classes + within)
    given = student(rows(3, R, K), z)
    for between, expected in ((1.0, whole), (0.0, within), (2.5, 2.5 * classes + within)):
        found = subclass_kl(given, pairs(t), temperature=temperature, between=between, tie=0.0)
        torch.testing.assert_close(found, temperature**2 * expected.mean(1))
    flat = Candidates(
        items=torch.zeros(R * K, 2 * S).long(),
        teacher=t.flatten(0, 1),
        ranked=2 * S,
        parts=(torch.arange(2 * S) // S).expand(R * K, -1),
    )
    same = grouped_kl(z.flatten(0, 1), flat, temperature=temperature, parts=2)
    torch.testing.assert_close(same.view(R, K), whole)


def test_a_head_that_says_the_same_and_a_score_of_its_classes_have_nothing_left_to_learn():
    subs = rows(1, R, K, 2 * S)
    score = (class_logit(subs) + torch.tensor([[3.0], [-1.0], [0.2]])).requires_grad_()
    z = subs.clone().requires_grad_()
    value = subclass_kl(student(score, z), pairs(subs), temperature=2.0).sum()
    by_score, by_head = torch.autograd.grad(value, [score, z])
    assert by_score.abs().max() < 1e-12
    assert by_head.abs().max() < 1e-12


def test_the_tie_moves_the_score_and_never_the_head():
    subs, score = rows(1, R, K, 2 * S).requires_grad_(), rows(2, R, K).requires_grad_()
    t = rows(3, R, K, 2 * S)

    def gradients(tie):
        value = subclass_kl(student(score, subs), pairs(t), temperature=1.0, tie=tie).sum()
        return torch.autograd.grad(value, [score, subs])

    untied, tied = gradients(0.0), gradients(0.7)
    assert not untied[0].any()
    assert tied[0].abs().min() > 0
    torch.testing.assert_close(tied[0].sum(1), torch.zeros(R).double())  # the level of a row is free
    torch.testing.assert_close(tied[1], untied[1], rtol=0, atol=1e-15)


def test_places_without_an_item_count_for_nothing():
    z, t, score = rows(1, R, K, 2 * S), rows(2, R, K, 2 * S), rows(3, R, K)
    items = torch.arange(R * K).view(R, K)
    items[0, 3:] = items[2] = -1
    found = subclass_kl(student(score, z), pairs(t, items), temperature=1.0)
    short = pairs(t[:1, :3].expand(R, -1, -1), items[:1, :3].expand(R, -1))
    alone = subclass_kl(student(score, z)[:1, :3].expand(R, -1, -1), short, temperature=1.0)
    torch.testing.assert_close(found[0], alone[0])
    assert found[2] == 0.0
    with pytest.raises(ValueError, match="no sub-logits"):
        subclass_kl(student(score, z), Candidates(items=items, teacher=score, ranked=K), temperature=1.0)


def test_gradients_are_those_of_finite_differences():
    t, given = rows(3, R, K, 2 * S), student(rows(1, R, K), rows(2, R, K, 2 * S))

    def value(given):
        return subclass_kl(given, pairs(t), temperature=1.3, between=0.4, tie=0.6)

    assert torch.autograd.gradcheck(value, given.requires_grad_())
    assert torch.autograd.gradcheck(lambda subs: spread(subs, 0.5), rows(4, 7, 2 * S).requires_grad_())
    head = SubLogits(D, S).double()
    assert torch.autograd.gradcheck(head, (rows(5, R, D).requires_grad_(), rows(6, R, K, D).requires_grad_()))


def test_the_loss_that_spreads_is_the_papers_and_nil_where_all_use_one_subclass():
    subs, temperature = rows(1, 9, 2 * S), 0.6
    v = (subs - subs.mean(1, keepdim=True)) / subs.std(1, keepdim=True, unbiased=False)
    v = v / v.norm(dim=1, keepdim=True)
    expected = torch.logsumexp(v @ v.T / temperature, 1).mean() - 1 / temperature - math.log(9)
    torch.testing.assert_close(spread(subs, temperature), expected)
    one = subs[:1].expand(9, -1)
    assert abs(spread(one, temperature)) < 1e-12
    assert abs(spread(one * torch.linspace(0.5, 3, 9).double().unsqueeze(1) + 2, temperature)) < 1e-12
    few, many = torch.eye(2 * S)[torch.arange(8) % 2].double(), torch.eye(2 * S)[torch.arange(8) % 8].double()
    assert spread(many, temperature) < spread(few, temperature) < -0.1


def batch(negatives, step=0):
    return Batch(
        users=torch.tensor([4, 0, 2]),
        positives=torch.tensor([1, 7, 3]),
        negatives=negatives,
        past=Past(items=torch.zeros(3, 0).long()),
        count=3.0,
        step=step,
        list_users=torch.zeros(0).long(),
        list_past=Past(items=torch.zeros(0, 0).long()),
    )


def made(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classes(SubLogits(D, S, **settings), weight=2.0, spread=0.5, temperature=1.0)


@pytest.mark.parametrize("negatives", [torch.tensor([5, 7, 0, 2]), torch.tensor([[5, 0], [6, 8], [2, 0]])])
def test_a_teachers_head_learns_both_classes_alike_and_no_positive_as_its_own_negative(negatives):
    classes, table, left = made().double(), rows(1, 9, D), rows(2, 3, D)
    given = batch(negatives)
    asked = [items for items, _ in classes.asked(given)]
    found = classes(left, *(table[items] for items in asked), given)
    total = 0.0
    for row, positive in enumerate(given.positives.tolist()):
        own = (negatives if negatives.dim() == 1 else negatives[row]).tolist()
        subs = {i: torch.mv(classes.head.weight, left[row] * table[i]) + classes.head.bias for i in {positive, *own}}
        chance = {i: (z.softmax(0)[:S].sum()) for i, z in subs.items()}
        rest = [-(1 - chance[i]).log() for i in own if i != positive]
        total += (-chance[positive].log() + sum(rest) / len(rest)) / 2 / 3
    torch.testing.assert_close(found["subclasses"], 2.0 * total)
    assert found["subclasses.spread"] < 0


def test_of_negatives_in_order_each_is_asked_for_as_often():
    classes, count = made(), 4 * NEGATIVES
    catalogue = torch.arange(count)
    asked = torch.cat([classes.asked(batch(catalogue, step))[1][0] for step in range(count)])
    assert (asked.bincount(minlength=count) == NEGATIVES).all()
    assert all(len(classes.asked(batch(catalogue, s))[1][0].unique()) == NEGATIVES for s in range(3))


def test_a_head_begins_at_the_score_with_subclasses_that_differ_but_by_no_prior():
    head = made(given=1).head
    assert torch.equal(head.weight[:, -1], torch.tensor([1.0] * S + [0.0] * S))
    assert head.weight[:, 0].unique().numel() == 2 * S
    torch.testing.assert_close(head.weight[:S].mean(), torch.tensor(1.0), atol=0.5, rtol=0)


@pytest.mark.parametrize(("width", "temperature"), [(4, 0.1), (64, 0.2)])
def test_first_sub_logits_vary_by_about_one_whatever_the_width_and_the_temperature(width, temperature):
    left, right = (torch.nn.functional.normalize(rows(seed, 300, width), dim=1) for seed in (1, 2))
    first = noise(width, "cosine", temperature) * rows(3, 40, width)
    subs = sub_logits(left / temperature, right.unsqueeze(1), first, torch.zeros(40).double())
    assert subs.std().item() == pytest.approx(1.0, abs=0.1)
