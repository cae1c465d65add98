"""Linear students, of whom theory says what distillation does: noise taken away, directions kept and shrunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.diagnose.noise import gradients, moments, noise
from recdistill.distill.blend import blend
from recdistill.distill.losses import logit_mse, softmax_kl
from recdistill.gains.fold import solve
from recdistill.types import Candidates

N, D, ITEMS = 300, 5, 4


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def planted():
    """Return features [N,D], what was taken [N,ITEMS], and weights [ITEMS,D]: a student's, a teacher's, the truth."""
    features, truth = normal(0, N, D), 1.2 * normal(1, ITEMS, D)
    drawn = torch.multinomial(torch.softmax(features @ truth.T, 1), 1, generator=torch.Generator().manual_seed(2))
    taken = torch.zeros(N, ITEMS, dtype=torch.bool).scatter_(1, drawn, True)
    return features, taken, normal(3, ITEMS, D), truth + 1.5 * normal(4, ITEMS, D), truth


def slopes(weights, planted, teacher, share):
    """Return the gradient of each row's loss by the weights [ITEMS,D] of a linear student: [N,ITEMS,D]."""
    features, taken = planted[:2]
    each = weights.expand(N, ITEMS, D).clone().requires_grad_()
    scores = torch.einsum("nid,nd->ni", each, features)
    items = torch.arange(ITEMS).expand(N, ITEMS)
    given = Candidates(items=items, teacher=features @ teacher.T, ranked=ITEMS, taken=taken)
    softmax_kl(scores, blend(given, teacher=share), temperature=1.0).sum().backward()
    return each.grad


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_a_step_of_distillation_is_that_of_the_labels_less_the_teachers_own(planted, share):
    """Row by row grad f(W) - lam grad f(Theta), both linear in the same features (Safaryan et al., NeurIPS 2023)."""
    student, teacher = planted[2:4]
    labels, control = slopes(student, planted, teacher, 0.0), slopes(teacher, planted, teacher, 0.0)
    torch.testing.assert_close(slopes(student, planted, teacher, share), labels - share * control)


def test_the_measured_noise_is_that_of_the_linear_students_steps(planted):
    """The diagnosis asks for item vectors; here an item's stands for its row of the weights times the features."""
    features, taken, _, teacher, truth = planted
    vectors = torch.einsum("ic,nd->nicd", torch.eye(ITEMS).double(), features).flatten(2).numpy()
    scores = [(features @ weights.T).numpy() for weights in (truth, teacher)]
    a, b = gradients(*scores, taken.numpy(), vectors)
    np.testing.assert_allclose(a, slopes(truth, planted, teacher, 0.0).flatten(1).numpy(), atol=1e-12)
    np.testing.assert_allclose(b, slopes(teacher, planted, teacher, 0.0).flatten(1).numpy(), atol=1e-12)
    of = moments(*scores, taken.numpy(), vectors)

    def told(share):
        return slopes(truth, planted, teacher, share).square().sum().item()

    best = noise(of, 1.0).best
    assert 0.1 < best < 1 / 2.2  # so that all of these are shares
    assert told(best) == pytest.approx((1 - noise(of, 1.0).rho2) * told(0.0))
    assert told(best) < min(told(best - 0.05), told(best + 0.05))
    assert told(2.2 * best) > told(0.0)


ENERGY, RATE = torch.tensor([4.0, 1.0, 0.2], dtype=torch.float64), 0.01


def descended(features, target, steps):
    """Return the scores [n,K] of a linear student after `steps` of gradient descent from zero on those of `target`."""
    items = torch.arange(target.shape[1]).expand(target.shape)
    given = Candidates(items=items, teacher=target, ranked=target.shape[1])
    weights = torch.zeros(features.shape[1], target.shape[1], dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        loss = logit_mse(features @ weights, given).sum() * target.shape[1] / 2  # half the sum of squares
        (slope,) = torch.autograd.grad(loss, weights)
        weights = (weights - RATE * slope).detach().requires_grad_()
    return (features @ weights).detach()


def test_a_student_of_gradient_descent_has_the_teachers_directions_times_its_own_share_of_each():
    """(1 - (1 - lr e)^k1) (1 - (1 - lr e)^k2) of the truth, the more skewed (Nagarajan et al., NeurIPS 2023)."""
    basis = torch.linalg.qr(normal(5, 20, 3))[0]
    features = basis * ENERGY.sqrt()
    truth = features @ normal(6, 3, 6)
    teacher = descended(features, truth, 60)
    student = descended(features, teacher, 200)
    kept = [1 - (1 - RATE * ENERGY) ** steps for steps in (60, 200)]
    along = [basis.T @ scores for scores in (truth, teacher, student)]
    torch.testing.assert_close(along[1], kept[0].unsqueeze(1) * along[0])
    torch.testing.assert_close(along[2], (kept[0] * kept[1]).unsqueeze(1) * along[0])
    skew = [(scores[0] / scores[2] / (along[0][0] / along[0][2])) for scores in along]
    assert (skew[2] > skew[1]).all()
    assert (skew[1] > skew[0]).all()


def test_each_generation_of_ridge_regression_shrinks_a_direction_by_the_same_share():
    """Generation g has (e / (e + c))^g of direction e: students of students forget what is weak (Pham et al., 2022)."""
    rng, ridge = np.random.default_rng(7), 0.4
    features = rng.standard_normal((12, 5))
    left, size, _ = np.linalg.svd(features, full_matrices=False)
    energy = size**2
    first = rng.standard_normal((12, 7))
    said = first
    for generation in range(1, 4):
        said = features @ solve(features, said, ridge=ridge, shift=False).matrix.T
        kept = (energy / (energy + ridge * energy.mean())) ** generation
        np.testing.assert_allclose(left.T @ said, kept[:, None] * (left.T @ first), atol=1e-12)
        np.testing.assert_allclose(said, left @ (left.T @ said), atol=1e-12)
