"""Identities of what a step's lists teach: the gradient at the scores, losses that rest where they should, variance."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from recdistill.distill import losses
from recdistill.distill.blend import blend
from recdistill.distill.compose import make_term
from recdistill.distill.draws import Lists, Seen, pairs
from recdistill.distill.grouped import grouped_kl, hinge_mse
from recdistill.distill.objective import Objective
from recdistill.distill.paths import path
from recdistill.distill.spec import ListTermSpec
from recdistill.distill.spec_draws import Whole
from recdistill.distill.spec_lists import SoftmaxKL
from recdistill.models.encoders import MF
from recdistill.models.tables import PlainTable
from recdistill.types import Batch, Candidates, Lesson, Past

ROWS, ITEMS = 4, 9


def normal(seed, *shape):
    return torch.randn(*(shape or (ROWS, ITEMS)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def candidates(teacher, **more):
    items = torch.arange(teacher.shape[1]).expand(teacher.shape)
    return Candidates(items=items, teacher=teacher, ranked=teacher.shape[1], **more)


def whole_term(temperature, weight):
    spec = ListTermSpec(weight=weight, draw=(Whole(),), loss=SoftmaxKL(temperature=temperature))
    return make_term(spec, 0, num_items=ITEMS)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_gradient_at_the_scores_is_that_of_the_labels_and_of_both_softmaxes(temperature):
    """It is (1 - l) (q - y) + l T (q_T - p_T) (Tang et al., 2020) where the term weighs l T^2, as Hinton et al. do."""
    share, teacher, positives = 0.3, 2 * normal(1), torch.tensor([3, 0, 7, 3])
    # Item vectors are the unit vectors, so that a user's row is its scores of the catalogue.
    model = MF(PlainTable, num_users=ROWS, num_items=ITEMS, dim=ITEMS, space="dot", temperature=1.0)
    model.user.weight.data = normal(2).float()
    model.item.weight.data = torch.eye(ITEMS)
    model.user.weight.requires_grad_()
    one = whole_term(temperature, share * temperature**2)
    nothing, everybody = Past(items=torch.zeros(ROWS, 0, dtype=torch.int64)), torch.arange(ROWS)
    batch = Batch(
        users=everybody,
        positives=positives,
        negatives=torch.arange(ITEMS),
        past=nothing,
        count=float(ROWS),
        list_users=everybody,
        list_past=nothing,
        lesson=Lesson(candidates={one.name: candidates(teacher)}),
    )
    found = Objective(model, loss="softmax", num_items=ITEMS, terms=[one], task=1 - share)(batch)
    torch.stack(list(found.values())).sum().backward()
    scores, y = model.user.weight.detach().double(), torch.eye(ITEMS).double()[positives]
    hard = torch.softmax(scores, 1) - y
    soft = torch.softmax(scores / temperature, 1) - torch.softmax(teacher / temperature, 1)
    expected = (1 - share) * hard + share * temperature * soft
    torch.testing.assert_close(ROWS * model.user.weight.grad.double(), expected, atol=1e-6, rtol=1e-5)


THIRDS = (torch.arange(ITEMS) % 3).expand(ROWS, ITEMS)
REST_AT_THE_TEACHER = {
    "softmax_kl": partial(losses.softmax_kl, temperature=2.0),
    "list_ce": partial(losses.list_ce, temperature=1.0),
    "gated_kl": partial(losses.gated_kl, temperature=0.7),
    "soft_bce": partial(losses.soft_bce, temperature=1.0, shift=0.0),
    "normalised_ce": losses.normalised_ce,
    "logit_mse": losses.logit_mse,
    "margin_mse": losses.margin_mse,
    "grouped_kl": partial(grouped_kl, temperature=1.5, parts=3, between=0.3, within=(0.5, 2.0, 1.0)),
    "hinge_mse": partial(hinge_mse, margin=0.0),
    "path": partial(path, length=ITEMS, temperature=1.0),
}
ARE_NOTHING_THERE = set(REST_AT_THE_TEACHER) - {"list_ce", "soft_bce", "normalised_ce"}  # which keep an entropy


@pytest.mark.parametrize("name", REST_AT_THE_TEACHER)
def test_a_student_that_begins_at_its_teacher_has_no_gradient_and_what_is_a_distance_is_zero(name):
    """Stanton et al. (NeurIPS 2021) begin students there: what moves them away again is not the list term."""
    teacher = 2 * normal(3)
    given, loss = candidates(teacher, parts=THIRDS, gate=torch.full((ROWS, 1), 0.4)[:, 0]), REST_AT_THE_TEACHER[name]
    if name == "gated_kl":
        given = Candidates(items=given.items, teacher=teacher, ranked=4, gate=given.gate)
    at, away = teacher.clone().requires_grad_(), normal(4).requires_grad_()
    value = loss(at, given)
    value.sum().backward()
    assert at.grad.abs().max() < 1e-12
    assert (value.abs().max() < 1e-12) == (name in ARE_NOTHING_THERE)
    other = loss(away, given)
    other.sum().backward()
    assert (other.detach() > value.detach()).all()
    assert (away.grad.abs().amax(1) > 1e-3).all()


def test_chances_of_both_outcomes_weigh_both_and_of_certain_ones_it_is_the_binary_cross_entropy():
    """Double distillation (Menon et al., ICML 2021): p softplus(-s) + (1 - p) softplus(s), p the chance of the item."""
    student, p = normal(5), torch.sigmoid(normal(6))
    loss = partial(losses.soft_bce, temperature=1.0, shift=0.0)
    found = loss(student, candidates(torch.logit(p)))
    torch.testing.assert_close(found, (p * softplus(-student) + (1 - p) * softplus(student)).mean(1))
    taken = torch.eye(ITEMS).double()[:ROWS]
    certain = loss(student, candidates(torch.where(taken > 0, 1e3, -1e3).double()))
    expected = binary_cross_entropy_with_logits(student, taken, reduction="none").mean(1)
    torch.testing.assert_close(certain, expected)


def test_a_teacher_that_knows_the_chances_keeps_the_mean_loss_and_takes_its_variance_given_the_user_away():
    """Var[loss of one draw] - Var[loss of the chances] = E_x Var[loss|x] by enumeration (Menon et al., ICML 2021)."""
    share, truth, student = torch.tensor([0.3, 0.7]).double(), normal(7, 2, 4), normal(8, 2, 4)
    p = torch.softmax(truth, 1)
    user, item = (grid.flatten() for grid in torch.meshgrid(torch.arange(2), torch.arange(4), indexing="ij"))
    drawn = torch.eye(4, dtype=torch.bool)[item]
    given = candidates(truth[user], taken=drawn)
    chance = share[user] * p[user, item]  # of this user, and that this item is drawn

    def moments(of_teacher):
        loss = losses.list_ce(student[user], blend(given, teacher=of_teacher), temperature=1.0)
        mean = (chance * loss).sum()
        return mean, (chance * loss**2).sum() - mean**2

    (mean, one_hot), (same, taught) = moments(0.0), moments(1.0)
    each = -torch.log_softmax(student, 1)
    inside = (share * ((p * each**2).sum(1) - (p * each).sum(1) ** 2)).sum()
    torch.testing.assert_close(mean, (share * (p * each).sum(1)).sum())
    torch.testing.assert_close(same, mean)
    torch.testing.assert_close(one_hot - taught, inside)
    assert inside > 0.01


def test_a_bias_that_is_constant_in_a_group_changes_no_pair_that_is_drawn():
    """However much a teacher favours what is popular, groups of popularity do not see it (Chen et al., WSDM 2023)."""
    many, groups = 60, torch.arange(ITEMS) % 3
    teacher = normal(9, many, ITEMS)
    biased = teacher + 3 * normal(10, many, 3)[:, groups]

    def drawn(scores):
        found = scores.sort(dim=1, descending=True)
        seen = Seen(torch.arange(many), torch.zeros(0, dtype=torch.int64), ITEMS)
        lists = Lists(found.indices, found.values, seen, groups=groups)
        return lists.items, pairs(lists, torch.Generator().manual_seed(0), n=5, groups=3, temperature=2.0).items

    (before, first), (after, second) = drawn(teacher), drawn(biased)
    assert not torch.equal(before, after)  # the lists themselves are in another order
    assert torch.equal(first, second)
    assert (first >= 0).all()
