"""What is taught in place of the teacher's scores: ranks, scaled logits, and a network that starts as the identity."""

from __future__ import annotations

import math

import torch

from recdistill.distill import losses, targets
from recdistill.distill.compose import make_term
from recdistill.distill.draws import Lists, Seen
from recdistill.distill.spec import ListTermSpec
from recdistill.types import Candidates

ITEMS = torch.tensor([[5, 3, -1, 9, 7, -1], [1, -1, -1, 2, 8, 6]])
TEACHER = torch.tensor([[4.0, 2.0, -torch.inf, 1.0, -torch.inf, -torch.inf], [-1.0, -torch.inf, -torch.inf, 0.5, 2, 3]])
GIVEN = Candidates(items=ITEMS, teacher=TEACHER, ranked=3, logq=torch.zeros(2, 6), gate=torch.ones(2))


def test_ranks_fall_along_the_list_and_are_one_below_it():
    found = targets.rank(GIVEN, temperature=2.0)
    none = -torch.inf
    expected = [[-0.0, -0.5, none, -1.5, -1.5, none], [-0.0, none, none, -1.5, -1.5, -1.5]]
    assert found.teacher.tolist() == expected
    assert found.teacher.dtype == TEACHER.dtype


def test_ranks_do_not_read_the_scores_and_leave_the_rest_as_it_is():
    other = Candidates(items=ITEMS, teacher=TEACHER * 9 - 1, ranked=3, logq=GIVEN.logq, gate=GIVEN.gate)
    found = targets.rank(GIVEN, temperature=3.0)
    assert torch.equal(found.teacher, targets.rank(other, temperature=3.0).teacher)
    assert found.items is GIVEN.items
    assert found.logq is GIVEN.logq
    assert found.gate is GIVEN.gate
    assert found.ranked == 3


def test_ranks_as_scores_give_the_softmax_of_falling_ranks():
    items = torch.arange(4).unsqueeze(0)
    blind = targets.rank(Candidates(items=items, teacher=torch.zeros(1, 4), ranked=4), temperature=2.0)
    student = torch.tensor([[0.0, -0.5, -1.0, -1.5]])
    assert losses.softmax_kl(student, blind, temperature=1.0).abs().item() < 1e-6


def test_scaling_multiplies_what_is_known_and_leaves_what_is_not():
    found = targets.scale(GIVEN, factor=0.5)
    known = TEACHER.isfinite()
    assert torch.equal(found.teacher[known], TEACHER[known] / 2)
    assert (found.teacher[~known] == -torch.inf).all()
    assert found.items is GIVEN.items


def test_scaling_the_teacher_is_as_a_temperature_of_the_teacher_alone():
    student = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    scaled = targets.scale(GIVEN, factor=0.25)
    found = losses.softmax_kl(student, scaled, temperature=1.0)
    torch.testing.assert_close(found, losses.softmax_kl(student * 4, GIVEN, temperature=4.0))


def test_a_scaled_teacher_has_its_chances_to_that_power_and_is_surer_the_larger_it_is():
    """The selectivity of a teacher, beta (Cha and Cho, NeurIPS 2025)."""
    teacher = torch.randn(5, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    given = Candidates(items=torch.arange(7).expand(5, 7), teacher=teacher, ranked=7)
    p, entropies = torch.softmax(teacher, 1), []
    for beta in (0.5, 1.0, 2.0, 4.0, 8.0):
        found = targets.scale(given, factor=beta)
        power = p**beta / (p**beta).sum(1, keepdim=True)
        torch.testing.assert_close(torch.softmax(found.teacher, 1), power)
        at_the_teacher = losses.list_ce(found.teacher, found, temperature=1.0)  # which leaves its entropy alone
        torch.testing.assert_close(at_the_teacher, -(power * power.log()).sum(1))
        entropies.append(at_the_teacher)
    assert (torch.stack(entropies).diff(dim=0) < 0).all()


def test_an_adapter_begins_as_the_identity_and_keeps_what_is_not_known():
    adapted = targets.Adapted(8)
    assert torch.equal(adapted(TEACHER), TEACHER)


def test_an_adapters_gradients_are_finite_where_items_are_missing_and_its_output_layer_learns_first():
    adapted = targets.Adapted(8)
    out = adapted(TEACHER)
    losses.soft_bce(out, GIVEN, temperature=1.0, shift=1.0).sum().backward()
    grads = {name: weight.grad for name, weight in adapted.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert grads["outer.weight"].abs().sum() > 0
    assert grads["inner.weight"].abs().sum() == 0


def test_an_adapter_without_any_known_score_gives_no_gradient():
    adapted = targets.Adapted(4)
    unknown = torch.full((2, 3), -torch.inf)
    out = adapted(unknown)
    assert torch.equal(out, unknown)
    out.masked_fill(out.isinf(), 0.0).sum().backward()
    assert all(weight.grad is not None and (weight.grad == 0).all() for weight in adapted.parameters())


def test_an_adapter_learns_to_correct_a_miscalibrated_teacher():
    torch.manual_seed(0)
    logit = torch.randn(400, 1) * 2
    taken = (torch.rand(400, 1) < torch.sigmoid(0.5 * logit - 1)).float()
    adapted = targets.Adapted(8)
    optimiser = torch.optim.Adam(adapted.parameters(), lr=0.02)
    for _ in range(300):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(adapted(logit), taken)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    gap = (torch.sigmoid(adapted(logit)) - torch.sigmoid(0.5 * logit - 1)).abs().mean()
    assert gap < 0.08
    assert (torch.sigmoid(logit) - torch.sigmoid(0.5 * logit - 1)).abs().mean() > 0.15


def test_each_score_is_adapted_on_its_own():
    torch.manual_seed(1)
    adapted = targets.Adapted(8)
    torch.nn.init.normal_(adapted.outer.weight)
    whole = adapted(TEACHER)
    torch.testing.assert_close(adapted(TEACHER[:, [3]]), whole[:, [3]])
    assert not torch.equal(whole, TEACHER)


COUNTS = torch.tensor([0, 3, 8, 1, 0, 15, 2, 7, 1, 4])


def test_adjusting_takes_a_power_of_the_interactions_from_a_share():
    found = targets.adjust(GIVEN, exponent=0.5, log_counts=torch.log1p(COUNTS))
    none = -torch.inf
    expected = [
        [4 - 0.5 * math.log(16), 2 - 0.5 * math.log(2), none, 1 - 0.5 * math.log(5), none, none],
        [-1 - 0.5 * math.log(4), none, none, 0.5 - 0.5 * math.log(9), 2 - 0.5 * math.log(2), 3 - 0.5 * math.log(3)],
    ]
    torch.testing.assert_close(found.teacher, torch.tensor(expected))
    known = torch.isfinite(TEACHER[1])
    shares = torch.softmax(TEACHER[1][known], 0) / torch.sqrt(1 + COUNTS[ITEMS[1][known]])
    torch.testing.assert_close(torch.softmax(found.teacher[1][known], 0), shares / shares.sum())


def test_items_that_equally_many_took_are_taught_as_they_were():
    student = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    same = targets.adjust(GIVEN, exponent=3.0, log_counts=torch.full((10,), 1.7))
    found = losses.softmax_kl(student, same, temperature=2.0)
    torch.testing.assert_close(found, losses.softmax_kl(student, GIVEN, temperature=2.0))


def test_a_term_adjusts_what_it_draws_by_the_interactions_of_each_item():
    said = {
        "draw": [{"kind": "top", "k": 3}],
        "loss": {"kind": "softmax_kl"},
        "target": [{"kind": "adjust", "exponent": 2}],
    }
    term = make_term(ListTermSpec.model_validate({"weight": 1.0, **said}), 0, counts=COUNTS)
    seen = Seen(torch.tensor([0]), torch.zeros(0, dtype=torch.int64), len(COUNTS))
    lists = Lists(torch.tensor([[5, 0, 2, 1]]), torch.tensor([[9.0, 8.0, 7.0, 6.0]]), seen)
    found = term.candidates(lists, torch.Generator())
    expected = [[9 - 2 * math.log(16), 8.0, 7 - 2 * math.log(9)]]
    torch.testing.assert_close(found.teacher, torch.tensor(expected))
