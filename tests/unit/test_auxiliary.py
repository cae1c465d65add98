"""A head of a term's own, a network that adapts the teacher, and gradients that are balanced with the task's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from recdistill.distill.auxiliary import EVERY, KEPT, LARGEST, Balance, scaled_gradient
from recdistill.distill.compose import make_term
from recdistill.distill.objective import Objective, Widths
from recdistill.distill.spec import Auxiliary, ListTermSpec
from recdistill.distill.spec_draws import InBatch, Top, Unseen
from recdistill.distill.spec_lists import SoftBCE, SoftmaxKL
from recdistill.distill.spec_targets import Adapted
from recdistill.models.encoders import MF, TwoTower
from recdistill.models.tables import PlainTable
from recdistill.types import Batch, Candidates, Lesson, Past

USERS, ITEMS, DIM, HIDDEN = 5, 20, 4, 6
BATCH = Batch(
    users=torch.tensor([0, 3, 4]),
    positives=torch.tensor([7, 2, 9]),
    negatives=torch.tensor([1, 12, 8, 5]),
    past=Past(items=torch.tensor([[-1, 4], [1, 3], [0, 11]])),
    count=3.0,
    list_users=torch.tensor([1, 2]),
    list_past=Past(items=torch.tensor([[2, 6], [-1, -1]])),
)
OF_BATCH = Candidates(
    items=torch.tensor([[7, 1, 12], [2, 1, 12], [9, 1, 12]]),
    teacher=torch.tensor([[3.0, -1.0, 0.5], [2.0, 0.3, -2.0], [-0.5, 1.0, 0.0]]),
    ranked=1,
)
OF_LISTS = Candidates(
    items=torch.tensor([[3, 9, 11, 4], [0, 6, -1, 5]]),
    teacher=torch.tensor([[2.0, 1.0, 0.0, -1.0], [1.0, 0.5, -torch.inf, 0.1]]),
    ranked=3,
)
LISTED = (Top(k=3), Unseen(n=1))


def filled(made):
    generator = torch.Generator().manual_seed(1)
    for weight in made.parameters():
        weight.data = 0.5 * torch.randn(weight.shape, generator=generator)
        weight.requires_grad_()
    return made


def tower():
    sizes = {"num_users": USERS, "num_items": ITEMS, "dim": DIM, "hidden": (8, HIDDEN), "id_dropout": 0.0}
    return TwoTower(PlainTable, **sizes, space="cosine", temperature=0.2)


def mf():
    return MF(PlainTable, num_users=USERS, num_items=ITEMS, dim=DIM, space="dot", temperature=1.0)


def objective(model, *terms, loss="softmax"):
    shared = HIDDEN if isinstance(model, TwoTower) else DIM
    return filled(Objective(model, loss=loss, num_items=ITEMS, terms=terms, widths=Widths(DIM, shared)))


def given(*terms, step=0, candidates=None):
    found = {t.name: (OF_BATCH if t.in_batch else OF_LISTS) if candidates is None else candidates for t in terms}
    return replace(BATCH, step=step, lesson=Lesson(candidates=found))


def term(draw, loss=None, gradient=None, target=(), **settings):
    head = None if gradient is None else Auxiliary(gradient=gradient)
    spec = ListTermSpec(draw=draw, loss=loss or SoftBCE(), head=head, target=target, **{"weight": 1.0} | settings)
    return make_term(spec, 0, num_items=ITEMS)


def gradients(value, module):
    named = dict(module.named_parameters())
    return dict(zip(named, torch.autograd.grad(value, list(named.values()), allow_unused=True), strict=True))


def nothing(gradient):
    return gradient is None or not gradient.any()


@pytest.mark.parametrize("draw", [(InBatch(n=2),), LISTED], ids=["batch", "lists"])
def test_the_head_that_serves_gets_no_gradient_of_the_term_and_what_is_shared_gets_its_part(draw):
    found = {}
    for factor in (1.0, 20.0, 0.0):
        one = term(draw, gradient=factor)
        made = objective(tower(), one)
        found[factor] = gradients(made(given(one))[one.name], made)
    serving = [name for name in found[1.0] if name.startswith("model.layers.2.")]
    shared = [name for name in found[1.0] if name.startswith("model.") and name not in serving]
    own = [name for name in found[1.0] if name.startswith("own.")]
    assert (len(serving), len(shared), len(own)) == (2, 6, 4)
    for gradient in found.values():
        assert all(nothing(gradient[name]) for name in serving)
    for name in shared:
        assert found[1.0][name].any()
        torch.testing.assert_close(found[20.0][name], 20 * found[1.0][name], rtol=1e-4, atol=1e-6)
        assert nothing(found[0.0][name])
    for name in own:  # the head itself learns at its full rate, whatever reaches what is shared
        assert found[1.0][name].any()
        assert torch.equal(found[0.0][name], found[1.0][name])


def test_the_task_does_not_reach_the_terms_head():
    one = term((InBatch(n=2),), gradient=1.0)
    made = objective(tower(), one)
    found = gradients(made(given(one))["task"], made)
    assert all(nothing(gradient) for name, gradient in found.items() if name.startswith("own."))
    assert found["model.layers.2.weight"].any()


def test_a_new_head_of_equal_widths_says_what_the_vectors_say():
    one = term((InBatch(n=2),), gradient=1.0)
    fresh = Objective(filled(mf()), loss="softmax", num_items=ITEMS, terms=[one], widths=Widths(DIM, DIM))
    without = term((InBatch(n=2),))
    plain = Objective(fresh.model, loss="softmax", num_items=ITEMS, terms=[without])
    torch.testing.assert_close(fresh(given(one))[one.name], plain(given(without))[without.name])


def test_scaling_a_gradient_changes_no_value():
    x = torch.randn(3, 2, requires_grad=True)
    y = scaled_gradient(x, 2.5)
    assert torch.equal(x, y)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, 5 * x.detach())


def test_students_loss_and_adapters_loss_do_not_reach_each_other():
    one = term((InBatch(n=2),), target=(Adapted(hidden=5, loss=0.5),), gradient=1.0)
    made = objective(tower(), one)
    losses = made(given(one))
    assert set(losses) == {"task", one.name, f"{one.name}.adapter"}
    taught, adapter = (gradients(losses[name], made) for name in (one.name, f"{one.name}.adapter"))
    network = [name for name in taught if "_adapted." in name]
    assert len(network) == 4
    assert all(nothing(taught[name]) for name in network)
    assert all(adapter[name].any() for name in network)
    assert all(nothing(adapter[name]) for name in adapter if name not in network)


def test_the_adapter_learns_what_was_taken_by_cross_entropy():
    one = term((InBatch(n=2),), target=(Adapted(hidden=5, loss=0.5),))
    made = objective(tower(), one)
    held_out = replace(OF_BATCH, items=OF_BATCH.items.clone())
    held_out.items[0, 2] = -1  # a negative that is the positive itself
    losses = made(given(one, candidates=held_out))
    logits = made.own["0_soft_bce_adapted"](OF_BATCH.teacher).double()
    rows = []
    for row, known in enumerate(([0, 1], [0, 1, 2], [0, 1, 2])):
        chance = logits[row].sigmoid()
        rows.append(sum(-(chance[j] if j == 0 else 1 - chance[j]).log() for j in known) / len(known))
    assert losses[f"{one.name}.adapter"].item() == pytest.approx(0.5 * sum(rows).item() / 3, rel=1e-5)


class Watched:
    """An objective over matrix factorisation that shows the tensors at which gradients are balanced."""

    def __init__(self, *terms, loss="softmax"):
        self.objective = objective(mf(), *terms, loss=loss)
        trunk, self.at = self.objective.model.trunk, []

        def shown(*asked):
            self.at = list(trunk(*asked))
            return tuple(self.at)

        self.objective.model.trunk = shown

    def __call__(self, batch):
        losses = self.objective(batch)
        lengths = {}
        for name, value in losses.items():
            found = torch.autograd.grad(value, self.at, retain_graph=True, allow_unused=True)
            lengths[name] = sum((g.square().sum() for g in found if g is not None), torch.zeros(())).sqrt().item()
        return losses, lengths


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize(
    "changed",
    [{}, {"times": 1000.0}, {"times": 1e-3}, {"loss": SoftmaxKL(temperature=7.0)}, {"loss": SoftmaxKL()}],
    ids=["bce", "times", "part", "cold", "kl"],
)
def test_a_balanced_terms_gradient_is_its_weight_of_the_tasks(weight, changed):
    one = term(LISTED, changed.get("loss"), weight=weight, balance=True)
    one = replace(one, loss=lambda *given, of=one.loss, **more: changed.get("times", 1.0) * of(*given, **more))
    _, lengths = Watched(one)(given(one))
    assert lengths["task"] > 0
    assert lengths[one.name] == pytest.approx(weight * lengths["task"], rel=1e-4)


def test_a_factor_of_the_loss_leaves_the_weighted_gradient_as_it_is():
    found = []
    for times in (1.0, 1000.0):
        one = term(LISTED, balance=True)
        one = replace(one, loss=lambda *given, of=one.loss, t=times, **more: t * of(*given, **more))
        made = objective(mf(), one)
        found.append(gradients(made(given(one))[one.name], made))
    for name in ("model.user.weight", "model.item.weight"):
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-7)


def test_the_factor_is_measured_now_and_then_and_moves_slowly():
    one = term(LISTED, balance=True)
    watched = Watched(one)
    balance = watched.objective.balance
    watched(given(one))
    first = balance.scale(one.name).item()
    other = replace(OF_LISTS, teacher=OF_LISTS.teacher + 3)
    for step in range(1, EVERY):
        watched(given(one, step=step, candidates=other))
    assert balance.scale(one.name).item() == first
    losses, lengths = watched(given(one, step=EVERY, candidates=other))
    measured = lengths["task"] / (lengths[one.name] / balance.scale(one.name).item())
    assert balance.scale(one.name).item() == pytest.approx(KEPT * first + (1 - KEPT) * measured, rel=1e-4)
    assert measured != pytest.approx(first, rel=1e-2)
    assert losses[one.name].item() > 0


def test_a_term_that_says_nothing_keeps_its_factor():
    one = term(LISTED, balance=True)
    watched = Watched(one)
    empty = replace(OF_LISTS, items=torch.full_like(OF_LISTS.items, -1))
    watched(given(one, candidates=empty))
    assert watched.objective.balance.scale(one.name).item() == 1.0
    watched(given(one))
    first = watched.objective.balance.scale(one.name).item()
    assert first != 1.0
    watched(given(one, step=EVERY, candidates=empty))
    assert watched.objective.balance.scale(one.name).item() == first


def test_no_factor_is_beyond_all_bounds():
    one = term(LISTED, balance=True)
    one = replace(one, loss=lambda *given, of=one.loss, **more: 1e-12 * of(*given, **more))
    made = objective(mf(), one)
    made(given(one))
    assert made.balance.scale(one.name).item() == LARGEST


def test_a_term_that_is_not_balanced_is_as_it_was():
    plain, balanced = term(LISTED), replace(term(LISTED, SoftmaxKL(), balance=True), name="1.softmax_kl")
    together, alone = objective(mf(), plain, balanced), objective(mf(), plain)
    assert together(given(plain, balanced))[plain.name].item() == alone(given(plain))[plain.name].item()


def test_measuring_leaves_no_gradient_behind_and_no_table_is_updated_twice():
    one = term(LISTED, balance=True)
    made, calls = objective(mf(), one), []
    for table in (made.model.user, made.model.item):  # a table whose update runs in the backward pass hears the same
        table.weight.register_hook(lambda gradient: calls.append(gradient.clone()))
    batch = given(one)
    losses = made(batch)
    assert calls == []
    assert all(weight.grad is None for weight in made.parameters())
    sum(losses.values()).backward()
    assert len(calls) == 2
    once = {name: weight.grad.clone() for name, weight in made.named_parameters()}
    made.zero_grad()
    made.eval()  # where nothing is measured, and the factor stays
    sum(made(batch).values()).backward()
    for name, weight in made.named_parameters():
        assert torch.equal(weight.grad, once[name])


def test_factors_are_a_part_of_what_a_checkpoint_holds():
    one = term(LISTED, balance=True)
    made = objective(mf(), one)
    made(given(one))
    other = objective(mf(), one)
    other.load_state_dict(made.state_dict())
    assert other.balance.scale(one.name).item() == made.balance.scale(one.name).item() != 1.0
    assert Balance(["a", "b"]).scale("b").item() == 1.0
