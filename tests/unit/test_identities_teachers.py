"""Identities of how teachers are judged and made to speak: proper scores, bounds on information, temperatures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recdistill.calibrate import fit_temperature
from recdistill.diagnose.fidelity import divergence
from recdistill.diagnose.noise import moments
from recdistill.distill.losses import softmax_kl
from recdistill.distill.task_losses import full_softmax
from recdistill.heldout import Held, Sheet, chances, weights
from recdistill.members import lined, lined_vectors
from recdistill.mixture import forward, nll
from recdistill.scoring import encoder_scorer
from recdistill.types import Candidates, Interactions

ITEMS = 6


def sheet(scores: np.ndarray, rows: np.ndarray, items: np.ndarray, weight: np.ndarray) -> Sheet:
    nothing = Interactions(indptr=np.zeros(len(scores) + 1, np.int64), items=np.zeros(0, np.int64))
    held = Held(users=np.arange(len(scores)), rows=rows, items=items, weight=weight, seen=nothing)
    return Sheet(torch.from_numpy(scores.astype(np.float32)), held)


def enumerated(scores: np.ndarray, share: np.ndarray, truth: np.ndarray) -> Sheet:
    """Return all that may be held out of users [n], each outcome with its chance `share` [n] times `truth` [n,I]."""
    rows, items = np.divmod(np.arange(truth.size), truth.shape[1])
    return sheet(scores, rows, items, (share[:, None] * truth).ravel())


def test_teachers_differ_in_list_nll_by_what_they_differ_in_distance_from_the_truth() -> None:
    """So the rule that takes the least NLL takes the teacher nearest to the true chances (Menon et al., ICML 2021)."""
    rng = np.random.default_rng(0)
    share, logits = np.array([0.5, 0.2, 0.3]), rng.normal(size=(3, ITEMS))
    truth = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    teachers = rng.normal(size=(2, 3, ITEMS)).astype(np.float32)
    told, apart = [], []
    for scores in teachers:
        found = enumerated(scores, share, truth)
        told.append(nll(chances([found], 1.0), weights([found.held])))
        apart.append(float(share @ divergence(scores, logits)))
    assert told[0] - told[1] == pytest.approx(apart[0] - apart[1], abs=1e-9)
    assert abs(apart[0] - apart[1]) > 0.05


def test_teachers_differ_in_the_noise_of_their_scores_by_what_they_differ_in_squared_distance_from_the_truth() -> None:
    """With unit item vectors a teacher's |b|^2 is its Brier score of what was taken, which is a proper one."""
    rng, each = np.random.default_rng(1), 40
    counts = rng.multinomial(each, rng.dirichlet(np.ones(ITEMS)), size=3)  # so often is each item taken, exactly
    user, item = (np.repeat(grid.ravel(), counts.ravel()) for grid in np.indices(counts.shape))
    taken, truth = np.eye(ITEMS, dtype=bool)[item], counts / each
    brier, apart = [], []
    for scores in rng.normal(size=(2, 3, ITEMS)):
        of = moments(np.zeros((len(user), ITEMS)), scores[user], taken, np.eye(ITEMS))
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        brier.append(of.teacher / of.rows)
        apart.append(((p - truth) ** 2).sum(1).mean())
    assert brier[0] - brier[1] == pytest.approx(apart[0] - apart[1])
    assert abs(apart[0] - apart[1]) > 0.01


def test_a_batchs_softmax_loss_bounds_what_a_representation_tells_of_its_input() -> None:
    """log N - InfoNCE is below the information and orders representations by it (Wang et al., NeurIPS 2022)."""
    generator, n, dim = torch.Generator().manual_seed(0), 512, 8
    bounds = []
    for noise in (1.0, 2.0, 4.0):
        x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
        f = x + noise * torch.randn(n, dim, generator=generator, dtype=torch.float64)
        scores = -torch.cdist(f, x).square() / (2 * noise**2)  # the log-likelihood, the best critic there is
        bounds.append(math.log(n) - full_softmax(scores.diagonal(), scores).mean().item())
        # What these very pairs tell: log p(f|x) / p(f), whose mean is the information.
        told = scores.diagonal() + f.square().sum(1) / (2 + 2 * noise**2) + dim / 2 * math.log1p(1 / noise**2)
        assert 0.7 * told.mean() < bounds[-1] < min(told.mean(), math.log(n))
    assert bounds == sorted(bounds, reverse=True)


def test_of_checkpoints_with_planted_noise_the_clearest_has_the_least_nll_and_is_taken() -> None:
    rng, n = np.random.default_rng(2), 2000
    logits = 2 * rng.normal(size=(n, ITEMS))
    drawn = (logits + rng.gumbel(size=(n, ITEMS))).argmax(1)
    noises = (2.0, 0.5, 4.0, 1.0)
    said = []
    for noise in noises:
        found = [sheet(logits + noise * rng.normal(size=logits.shape), np.arange(n), drawn, np.full(n, 1 / n))]
        said.append(chances(found, fit_temperature(found)))
    values = [nll(one, np.full(n, 1 / n)) for one in said]
    assert all(0 < value < math.log(ITEMS) for value in values)  # all tell more than an even guess
    assert np.argsort(values).tolist() == np.argsort(noises).tolist()
    assert forward(np.stack(said), np.full(n, 1 / n), 1) == [1]


def test_a_calibrated_teacher_taught_at_a_temperature_is_the_raw_one_at_their_product() -> None:
    """Calibration is a temperature of the teacher alone (Yang and Song, 2021): of the same lists it is planted in."""
    rng, n, temperature = np.random.default_rng(3), 4000, 3.0
    users, items = (rng.normal(size=(rows, 3)).astype(np.float32) for rows in (n, ITEMS))
    scores = users @ items.T
    drawn = (scores + rng.gumbel(size=scores.shape)).argmax(1)
    held = np.arange(n), drawn, np.full(n, 1 / n)
    right, sure = (fit_temperature([sheet(factor * scores, *held)]) for factor in (1.0, 3.0))
    assert right == pytest.approx(1.0, rel=0.1)
    assert sure == pytest.approx(3 * right, rel=1e-4)
    raw = encoder_scorer(3 * users, items)
    everybody, student = np.arange(n), torch.randn(n, ITEMS, generator=torch.Generator().manual_seed(0))
    given = torch.arange(ITEMS).expand(n, ITEMS)

    def taught(teacher, own, at):
        return softmax_kl(own, Candidates(items=given, teacher=teacher, ranked=ITEMS), temperature=at)

    expected = taught(raw(everybody, None), student * sure, temperature * sure)  # the student's own is still T
    for calibrated in (lined(raw, 1 / sure, 0.0), encoder_scorer(*lined_vectors(3 * users, items, 1 / sure, 0.0))):
        torch.testing.assert_close(taught(calibrated(everybody, None), student, temperature), expected)
    assert not torch.allclose(taught(raw(everybody, None), student, temperature), expected)
