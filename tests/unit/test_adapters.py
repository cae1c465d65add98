"""Adapters against naive float64 loops, their constraints after training steps, and noise that is a row's own."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill import adapters
from recdistill.errors import ConfigError

N, DS, DT, M = 40, 3, 6, 5
MAKE = {
    "linear": lambda: adapters.Linear(DS, DT),
    "orthogonal": lambda: adapters.Orthogonal(DS, DT),
    "mlp": lambda: adapters.MLP(DS, DT, ratio=5, dropout=0.2),
    "experts": lambda: adapters.Experts(DS, DT, experts=M, anneal=1e-10),
}
every_adapter = pytest.mark.parametrize("kind", MAKE)
MOMENTS = (0.0, 0.05, 0.5, 1.0)


def rows(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(kind, seed=0):
    torch.manual_seed(seed)
    return MAKE[kind]().double()


def naive_experts(module, student, gate):
    """Every expert of every row, one after another."""
    found = torch.zeros(len(student), DT, dtype=torch.float64)
    for i in range(len(student)):
        for m in range(M):
            hidden = torch.clamp(module.first[m] @ student[i] + module.first_bias[m], min=0)
            found[i] += gate[i, m] * (hidden @ module.second[m] + module.second_bias[m])
    return found


# All adapters


@every_adapter
@pytest.mark.parametrize("at", MOMENTS)
def test_every_parameter_and_the_student_get_a_finite_gradient_at_every_moment(kind, at):
    module, student = made(kind), rows(1, N, DS).requires_grad_(True)
    module(student, rows(2, N, DT), at).square().sum().backward()
    for name, value in [("student", student), *module.named_parameters()]:
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name


@every_adapter
@pytest.mark.parametrize("at", MOMENTS)
def test_rows_in_another_order_give_the_same_values_in_that_order(kind, at):
    module, student, teacher = made(kind), rows(1, N, DS), rows(2, N, DT)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(module(student[order], teacher[order], at), module(student, teacher, at)[order])


@every_adapter
@pytest.mark.parametrize("at", MOMENTS)
def test_a_row_does_not_depend_on_those_beside_it(kind, at):
    module, student, teacher = made(kind), rows(1, N, DS), rows(2, N, DT)
    torch.testing.assert_close(module(student[:7], teacher[:7], at), module(student, teacher, at)[:7])


@every_adapter
def test_no_random_state_is_read_or_moved(kind):
    module, student, teacher = made(kind), rows(1, N, DS), rows(2, N, DT)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first = module(student, teacher, 0.3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(module(student, teacher, 0.3), first)


@every_adapter
def test_what_is_trained_survives_its_state_dict(kind):
    module, other = made(kind, seed=0), made(kind, seed=1)
    other.load_state_dict(module.state_dict())
    student, teacher = rows(1, N, DS), rows(2, N, DT)
    assert torch.equal(other(student, teacher, 0.2), module(student, teacher, 0.2))


# Orthogonal


def test_the_columns_are_orthonormal_before_and_after_every_step():
    module, student, teacher = made("orthogonal"), rows(1, N, DS), rows(2, N, DT)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        q = module.matrix()
        torch.testing.assert_close(q.T @ q, torch.eye(DS, dtype=torch.float64))
        loss = (module(student, teacher, 0.0) - teacher).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_an_orthogonal_adapter_keeps_inner_products():
    student = rows(1, N, DS)
    adapted = made("orthogonal")(student, rows(2, N, DT), 0.0)
    torch.testing.assert_close(adapted @ adapted.T, student @ student.T)


def test_the_gradient_of_the_orthogonal_factor_is_that_of_differences():
    module = made("orthogonal")
    student = rows(1, 4, DS)

    def applied(weight):
        return torch.func.functional_call(module, {"weight": weight}, (student, student, 0.0))

    assert torch.autograd.gradcheck(applied, (rows(3, DT, DS).requires_grad_(True),))


def test_a_matrix_that_is_orthonormal_is_applied_as_it_is():
    module = made("orthogonal")
    torch.testing.assert_close(module.matrix(), module.weight)


def test_a_teacher_narrower_than_its_student_has_no_orthonormal_columns():
    with pytest.raises(ConfigError, match="from 6 to 3"):
        adapters.Orthogonal(6, 3)


# MLP


def test_the_hidden_layer_is_ratio_times_the_student():
    assert made("mlp").first.out_features == 5 * DS


def test_dropout_keeps_the_mean_and_is_off_when_not_training():
    torch.manual_seed(0)
    module = adapters.MLP(DS, DT, ratio=50, dropout=0.3).double()
    student, teacher = rows(1, 20_000, DS), rows(2, 20_000, DT)
    noisy = module(student, teacher, 0.0)
    module.eval()
    still = module(student, teacher, 0.0)
    expected = module.second(module.first(student).relu())
    assert torch.equal(still, expected)
    assert not torch.allclose(noisy, still)
    torch.testing.assert_close(noisy.mean(0), still.mean(0), atol=0.01, rtol=0)


# Experts


@pytest.mark.parametrize("at", [0.0, 0.05, 0.09])
def test_while_the_gate_is_warm_all_experts_are_mixed(at):
    module, student, teacher = made("experts"), rows(1, N, DS), rows(2, N, DT)
    gate = (module.scores(student, teacher) / 1e-10**at).softmax(1)
    torch.testing.assert_close(module(student, teacher, at), naive_experts(module, student, gate))


@pytest.mark.parametrize("at", [0.11, 0.5, 1.0])
def test_when_the_gate_is_cold_each_row_has_its_first_choice(at):
    module, student, teacher = made("experts"), rows(1, N, DS), rows(2, N, DT)
    choice = torch.nn.functional.one_hot(module.scores(student, teacher).argmax(1), M).double()
    torch.testing.assert_close(module(student, teacher, at), naive_experts(module, student, choice))


def test_where_gates_are_certain_both_paths_have_the_same_values_and_gradients():
    module, teacher = made("experts"), rows(2, N, DT)
    scores = 1e4 * torch.nn.functional.one_hot(torch.arange(N) % (M - 1), M).double()  # the last expert has no row
    found = []
    for at in (0.05, 0.5):
        student = rows(1, N, DS).requires_grad_(True)
        module.zero_grad()
        mixed = module.mix(student, scores, at)
        (mixed - teacher).square().sum().backward()
        layers = (module.first, module.first_bias, module.second, module.second_bias)
        found.append([mixed.detach(), student.grad, *(layer.grad.clone() for layer in layers)])
    for warm, cold in zip(*found, strict=True):
        torch.testing.assert_close(cold, warm)


def test_a_cold_gate_learns_from_what_its_choice_gave():
    module, student, teacher = made("experts"), rows(1, N, DS), rows(2, N, DT)
    scores = (0.05 * rows(3, N, M)).requires_grad_(True)
    mixed = module.mix(student, scores, 0.5)
    mixed.backward(teacher)
    p, choice = (scores.detach() / adapters.HARD).softmax(1), scores.argmax(1)
    chosen = torch.nn.functional.one_hot(choice, M).double()
    gain = (teacher * mixed.detach()).sum(1, keepdim=True)
    expected = gain * p.gather(1, choice.unsqueeze(1)) * (chosen - p) / adapters.HARD
    torch.testing.assert_close(scores.grad, expected)
    assert scores.grad.abs().sum() > 0


def test_experts_learn_what_one_of_them_cannot():
    student, teacher = rows(1, 200, DS), torch.zeros(200, DT, dtype=torch.float64)
    teacher[torch.arange(200), torch.arange(200) % DT] = 1.0  # nothing that the student's vectors tell
    found = []
    for experts in (1, M):
        torch.manual_seed(0)
        module = adapters.Experts(DS, DT, experts=experts, anneal=1e-4).double()
        optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
        for step in range(150):
            loss = (module(student, teacher, step / 150) - teacher).square().sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        found.append((module.eval()(student, teacher, 1.0) - teacher).square().sum(1).mean().item())
    assert found[1] < 0.7 * found[0]


def test_the_choice_follows_the_softmax_of_the_logits_while_training_and_the_largest_otherwise():
    torch.manual_seed(0)
    module = adapters.Experts(DS, DT, experts=M, anneal=0.5)
    student, teacher = rows(1, 40_000, DS).float(), rows(2, 1, DT).float().expand(40_000, DT)
    share = module.scores(student, teacher).argmax(1).bincount(minlength=M) / 40_000
    torch.testing.assert_close(share, module.gate(teacher[0]).softmax(0).detach(), atol=0.01, rtol=0)
    module.eval()
    assert torch.equal(module.scores(student, teacher), module.gate(teacher))


# Noise


def test_the_hash_is_uniform_over_rows_and_columns_and_inside_its_bounds():
    noise = adapters.uniform(rows(1, 2000, 8).float(), 50)
    assert noise.dtype == torch.float32
    assert noise.min() > 0
    assert noise.max() < 1
    tenths = (noise.flatten() * 10).long().bincount(minlength=10) / noise.numel()
    torch.testing.assert_close(tenths, torch.full((10,), 0.1), atol=0.004, rtol=0)
    torch.testing.assert_close(noise.mean(0), torch.full((50,), 0.5), atol=0.03, rtol=0)
    torch.testing.assert_close(noise.mean(1), torch.full((2000,), 0.5), atol=0.2, rtol=0)
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 0.11
    assert torch.corrcoef(noise[:200])[0, 1:].abs().mean() < 0.2


def test_the_least_change_of_a_row_gives_it_other_noise():
    vectors = rows(1, 1000, 8).float()
    moved = vectors.clone()
    moved[:, 3] = torch.nextafter(moved[:, 3], torch.tensor(torch.inf))
    noise = torch.stack([adapters.uniform(v, 40).flatten() for v in (vectors, moved)])
    assert torch.corrcoef(noise)[0, 1].abs() < 0.02


def test_rows_come_back_from_their_groups():
    group = torch.tensor([3, 0, 3, 1, 0])
    order, back, sizes = adapters.by_group(group, 5)
    assert group[order].tolist() == [0, 0, 1, 3, 3]
    assert order[back].tolist() == [0, 1, 2, 3, 4]
    assert sizes == [2, 1, 0, 2, 0]
