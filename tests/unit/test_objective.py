"""How values are averaged or summed, what a partner says and hears, and what stands for the rest of the catalogue."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch

from recdistill.distill.compose import make_term
from recdistill.distill.objective import Objective
from recdistill.distill.spec import ListTermSpec
from recdistill.distill.spec_draws import InBatch, Rest, Top, Unseen, Whole
from recdistill.distill.spec_lists import (
    Independent,
    ListCE,
    LogitMSE,
    MarginMSE,
    PlackettLuce,
    SampledPL,
    SoftBCE,
    SoftmaxKL,
)
from recdistill.models.encoders import MF
from recdistill.models.tables import PlainTable
from recdistill.types import Batch, Candidates, Lesson, Past

USERS, ITEMS = 9, 15
NONE = torch.zeros(0, dtype=torch.int64)
LISTED = (Top(k=3), Unseen(n=2))
CANDIDATES = Candidates(  # a full list, a short one, a list of nothing
    items=torch.tensor([[3, 9, 11, 4, 1], [0, 6, -1, 5, -1], [-1, -1, -1, -1, -1], [7, 2, 8, 10, 12]]),
    teacher=torch.tensor(
        [
            [2.0, 1.0, 0.0, -1.0, 0.5],
            [1.0, 0.5, -torch.inf, 0.1, -torch.inf],
            [-torch.inf] * 5,
            [0.7, 0.6, -0.2, 1.5, 0.0],
        ]
    ),
    ranked=3,
)
BATCH = Batch(
    users=torch.tensor([0, 3, 4]),
    positives=torch.tensor([7, 2, 9]),
    negatives=torch.tensor([[1, 2], [0, 8], [0, 5]]),
    past=Past(items=torch.zeros(3, 0, dtype=torch.int64)),
    count=3.0,
    list_users=torch.tensor([1, 2, 5, 6]),
    list_past=Past(items=torch.zeros(4, 0, dtype=torch.int64)),
)


def filled(seed=1, dim=4):
    made = MF(PlainTable, num_users=USERS, num_items=ITEMS, dim=dim, space="dot", temperature=0.8)
    generator = torch.Generator().manual_seed(seed)
    for weight in made.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
        weight.requires_grad_()
    return made


def table(made):
    return (made.user.weight @ made.item.weight.T / made.temperature).detach().double()


def term(loss, draw=LISTED, position=0, **settings):
    return make_term(ListTermSpec(**{"weight": 1.0} | settings, draw=draw, loss=loss), position, num_items=ITEMS)


def rows_of(candidates, rows):
    return replace(candidates, items=candidates.items[rows], teacher=candidates.teacher[rows])


def value(one, rows, count=3.0, **settings):
    """Return the value of a term over some of the list users."""
    given = replace(
        BATCH,
        count=count,
        list_users=BATCH.list_users[rows],
        list_past=Past(items=BATCH.list_past.items[rows]),
        lesson=Lesson(candidates={one.name: rows_of(CANDIDATES, rows)}),
    )
    return Objective(filled(), loss="bpr", num_items=ITEMS, terms=[one], **settings)(given)[one.name].item()


def summed(kind):
    """Return the plain sum over users and items, in float64, one number at a time."""
    scores, total = table(filled()), 0.0
    for row, user in enumerate(BATCH.list_users.tolist()):
        items = CANDIDATES.items[row].tolist()
        s = {j: scores[user, i].item() for j, i in enumerate(items) if i >= 0}
        t = {j: CANDIDATES.teacher[row, j].item() for j in s if CANDIDATES.teacher[row, j] > -torch.inf}
        if kind == "logit_mse":
            total += sum((s[j] - t[j]) ** 2 for j in t)
        elif kind == "margin_mse":
            total += sum(((s[0] - s[j]) - (t[0] - t[j])) ** 2 for j in t if j > 0)
        elif kind == "soft_bce":
            chance = {j: 1 / (1 + exp(-t[j])) for j in t}
            total += sum(chance[j] * log(1 + exp(-s[j])) + (1 - chance[j]) * log(1 + exp(s[j])) for j in t)
        elif kind == "plackett_luce":
            total += sum(log(sum(exp(s[i]) for i in s if i >= j)) - s[j] for j in s if j < 3)
        elif kind == "softmax_kl" and t:
            ours, theirs = log(sum(exp(s[j]) for j in t)), log(sum(map(exp, t.values())))
            total += sum(exp(t[j] - theirs) * (t[j] - theirs - s[j] + ours) for j in t)
    return total


SUMMED = {
    "logit_mse": LogitMSE(),
    "margin_mse": MarginMSE(),
    "soft_bce": SoftBCE(),
    "plackett_luce": PlackettLuce(),
    "softmax_kl": SoftmaxKL(),
}


@pytest.mark.parametrize("kind", SUMMED)
def test_a_sum_is_over_users_and_items_and_divided_by_the_batchs_interactions(kind):
    one = term(SUMMED[kind], compat="sum", weight=0.5)
    assert value(one, slice(None)) == pytest.approx(0.5 * summed(kind) / 3, rel=1e-5)
    assert value(one, slice(None), count=12.0) == pytest.approx(0.5 * summed(kind) / 12, rel=1e-5)


@pytest.mark.parametrize("kind", SUMMED)
def test_a_sum_does_not_depend_on_how_lists_are_split(kind):
    one = term(SUMMED[kind], compat="sum")
    parts = [value(one, rows) for rows in (slice(0, 1), slice(1, 3), slice(3, 4))]
    assert sum(parts) == pytest.approx(value(one, slice(None)), rel=1e-5)


@pytest.mark.parametrize("kind", [*SUMMED, "sampled_pl"])
def test_a_mean_is_that_of_its_rows_whatever_the_batch(kind):
    one = term((SUMMED | {"sampled_pl": SampledPL()})[kind])
    each = [value(one, slice(row, row + 1)) for row in range(4)]
    assert each[2] == 0
    assert value(one, slice(None)) == pytest.approx(sum(each) / 4, rel=1e-5)
    assert value(one, slice(None), count=300.0) == value(one, slice(None))
    assert value(one, torch.arange(4).repeat(5)) == pytest.approx(sum(each) / 4, rel=1e-5)


def test_the_weight_of_the_task_is_of_the_task_alone():
    one = term(LogitMSE())
    given = replace(BATCH, lesson=Lesson(candidates={one.name: CANDIDATES}))
    whole, none = (Objective(filled(), loss="bpr", num_items=ITEMS, terms=[one], task=w)(given) for w in (1.0, 0.0))
    assert whole["task"].item() > 0
    assert none["task"].item() == 0
    assert none[one.name].item() == whole[one.name].item()


def test_the_whole_catalogue_is_one_row_of_items_for_all_users():
    one = term(SoftmaxKL(temperature=2.0), draw=(Whole(),))
    teacher = torch.randn(4, ITEMS, generator=torch.Generator().manual_seed(5))
    given = Candidates(items=torch.arange(ITEMS).expand(4, -1), teacher=teacher, ranked=0)
    found = Objective(filled(), loss="bpr", num_items=ITEMS, terms=[one])(
        replace(BATCH, lesson=Lesson(candidates={one.name: given}))
    )
    p = (teacher.double() / 2).log_softmax(1)
    q = (table(filled())[BATCH.list_users] / 2).log_softmax(1)
    assert found[one.name].item() == pytest.approx((p.exp() * (p - q)).sum(1).mean().item(), rel=1e-5)


SEEN = {0: [3, 14], 1: [], 2: [1, 2], 3: [11]}
PAIRS = tuple(
    torch.tensor(part) for part in zip(*[(row, item) for row, items in SEEN.items() for item in items], strict=True)
)


@pytest.mark.parametrize("kind", ["plackett_luce", "independent", "list_ce"])
def test_the_rest_stands_below_the_list_as_all_unseen_items_that_are_not_in_it(kind):
    loss = {"plackett_luce": PlackettLuce(), "independent": Independent(), "list_ce": ListCE()}[kind]
    one = term(loss, draw=(Top(k=3), Rest()))
    items = torch.tensor([[3, 9, 11], [0, 6, -1], [4, 5, 6], [7, 2, 8]])  # the first row lists what it has seen
    teacher = torch.tensor([[2.0, 1.0, 0.0], [1.0, 0.5, -torch.inf], [3.0, 1.0, 1.0], [0.7, 0.6, -0.2]])
    given = Candidates(
        items=torch.cat([items, torch.zeros(4, 1, dtype=torch.int64)], 1),
        teacher=torch.cat([teacher, torch.full((4, 1), -torch.inf)], 1),
        ranked=3,
        seen=PAIRS,
    )
    made = Objective(filled(), loss="bpr", num_items=ITEMS, terms=[one])
    found = made(replace(BATCH, lesson=Lesson(candidates={one.name: given})))[one.name]
    scores, total = table(filled()), 0.0
    for row, user in enumerate(BATCH.list_users.tolist()):
        listed = [i for i in items[row].tolist() if i >= 0]
        s = [scores[user, i].item() for i in listed]
        rest = sum(exp(scores[user, i]) for i in range(ITEMS) if i not in listed and i not in SEEN[row])
        if kind == "plackett_luce":
            total += sum(log(sum(map(exp, s[j:])) + rest) - s[j] for j in range(len(s))) / len(s)
        elif kind == "independent":
            total += sum(log(exp(x) + rest) - x for x in s) / len(s)
        else:
            shares = teacher[row, : len(s)].double().softmax(0).tolist()
            total += sum(p * (log(sum(map(exp, s)) + rest) - x) for p, x in zip(shares, s, strict=True))
    assert found.item() == pytest.approx(total / 4, rel=1e-5)
    found.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in made.model.parameters())


def taught_live(teacher, draw):
    """Return the losses where nothing is known of the teacher's scores but what is said in the step."""
    one = term(LogitMSE(), draw=draw, teacher=teacher)
    batched = torch.cat([BATCH.positives.unsqueeze(1), BATCH.negatives], 1)
    items = batched.clone() if one.in_batch else CANDIDATES.items
    unknown = Candidates(items=items, teacher=torch.full(items.shape, -torch.inf), ranked=1)
    made = Objective(filled(), loss="bpr", num_items=ITEMS, terms=[one], partner=filled(seed=7, dim=8))
    return one, items, made, made(replace(BATCH, lesson=Lesson(candidates={one.name: unknown})))


@pytest.mark.parametrize("draw", [LISTED, (InBatch(n=2),)], ids=["lists", "batch"])
@pytest.mark.parametrize("teacher", ["partner", "student"])
def test_who_teaches_learns_nothing_of_it(teacher, draw):
    one, items, made, losses = taught_live(teacher, draw)
    users = BATCH.users if one.in_batch else BATCH.list_users
    known = items >= 0
    gap = (table(made.model) - table(made.partner))[users].gather(1, items.clamp(min=0))
    expected = (gap.square() * known).sum(1) / known.sum(1).clamp(min=1)
    assert losses[one.name].item() == pytest.approx(expected.mean().item(), rel=1e-5)
    learner, speaker = (made.model, made.partner) if teacher == "partner" else (made.partner, made.model)
    losses[one.name].backward(retain_graph=True)
    assert all(weight.grad.any() for weight in learner.parameters())
    assert all(weight.grad is None or not weight.grad.any() for weight in speaker.parameters())


def test_a_partner_learns_the_same_task():
    _, _, made, losses = taught_live("partner", LISTED)
    scores = table(made.partner)
    total = 0.0
    for row, user in enumerate(BATCH.users.tolist()):
        for negative in BATCH.negatives[row].tolist():
            total += log(1 + exp(scores[user, negative] - scores[user, BATCH.positives[row]])) / 6
    assert losses["partner"].item() == pytest.approx(total, rel=1e-5)
    losses["partner"].backward()
    assert all(weight.grad is None for weight in made.model.parameters())
    assert all(weight.grad.any() for weight in made.partner.parameters())


def mutual(model, partner):
    """Return what two students teach each other in a step, (to the model, to the partner), and all gradients of it."""
    both = [
        term(SoftmaxKL(), draw=(InBatch(n=2),), position=at, teacher=who)
        for at, who in enumerate(("partner", "student"))
    ]
    items = torch.cat([BATCH.positives.unsqueeze(1), BATCH.negatives], 1)
    unknown = Candidates(items=items, teacher=torch.full(items.shape, -torch.inf), ranked=1)
    made = Objective(model, loss="bpr", num_items=ITEMS, terms=both, partner=partner)
    losses = made(replace(BATCH, lesson=Lesson(candidates={one.name: unknown for one in both})))
    values = [losses[one.name] for one in both]
    return [value.item() for value in values], torch.autograd.grad(sum(values), list(made.parameters()))


def test_students_that_teach_each_other_say_the_same_whoever_is_called_the_partner():
    """KL both ways over what the step compares (mutual learning: Zhang et al., CVPR 2018)."""
    (to_model, to_partner), _ = mutual(filled(), filled(seed=7, dim=8))
    items = torch.cat([BATCH.positives.unsqueeze(1), BATCH.negatives], 1)
    p, q = (table(m)[BATCH.users].gather(1, items).log_softmax(1) for m in (filled(), filled(seed=7, dim=8)))
    assert to_model == pytest.approx((q.exp() * (q - p)).sum(1).mean().item(), rel=1e-5)
    assert to_partner == pytest.approx((p.exp() * (p - q)).sum(1).mean().item(), rel=1e-5)
    assert abs(to_model - to_partner) > 1e-3
    assert mutual(filled(seed=7, dim=8), filled())[0] == pytest.approx([to_partner, to_model], rel=1e-6)


def test_equal_students_have_nothing_to_teach_each_other():
    values, slopes = mutual(filled(), filled())
    assert values == pytest.approx([0, 0], abs=1e-6)
    assert all(slope.abs().max() < 1e-6 for slope in slopes)
    assert all(slope.abs().max() > 1e-3 for slope in mutual(filled(), filled(seed=7))[1])
