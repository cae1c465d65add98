"""Flatness: what it is of a quadratic, and what it does not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recdistill.diagnose.flatness import flatness


def tables(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "users": torch.randn(30, 6, generator=generator, dtype=torch.float64),
        "items": torch.randn(20, 6, generator=generator, dtype=torch.float64),
    }


def cross_entropy(parameters):
    scores = parameters["users"] @ parameters["items"].T
    return -scores.log_softmax(1)[:, 0].mean()


def test_of_a_round_bowl_it_is_exact_at_every_draw():
    theta = tables()["users"]
    found = flatness({"a": theta}, lambda p: 3 * (p["a"] ** 2).sum(), rhos=(0.01, 0.05), draws=4, seed=1)
    np.testing.assert_allclose(found.rise, 3 * np.array([0.01, 0.05]) ** 2 * float((theta**2).sum()))
    np.testing.assert_allclose(found.error, 0, atol=1e-12)
    assert found.loss == pytest.approx(3 * float((theta**2).sum()))


def test_of_a_bowl_it_is_the_mean_curvature_of_each_row():
    theta = tables()["users"]
    bend = torch.rand(theta.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = 0.1**2 * float(((theta**2).sum(1) * bend.mean(1)).sum())
    found = flatness({"a": theta}, lambda p: (bend * p["a"] ** 2).sum(), rhos=[0.1], draws=300, seed=1)
    assert abs(found.rise[0] - expected) < 4 * found.error[0] < 0.05 * expected


def test_a_slope_is_no_flatness():
    theta = tables()["users"]
    found = flatness({"a": theta}, lambda p: 1000 * p["a"].sum(), rhos=[0.05], draws=3, seed=1)
    assert abs(found.rise[0]) < 1e-9


def test_a_sharper_minimum_rises_more():
    start = tables()
    rises = [
        flatness(
            start, lambda p, w=w: w * (p["users"] - start["users"]).pow(2).sum(), rhos=[0.05], draws=3, seed=1
        ).rise[0]
        for w in (1, 5)
    ]
    assert rises[1] == pytest.approx(5 * rises[0])
    assert rises[0] > 0


def test_the_scale_of_the_vectors_does_not_matter():
    start = tables()
    scaled = {"users": 10 * start["users"], "items": start["items"] / 10}
    one, two = (flatness(p, cross_entropy, rhos=(0.01, 0.1), draws=3, seed=2) for p in (start, scaled))
    np.testing.assert_allclose(one.rise, two.rise, rtol=1e-8)


def test_noise_is_as_long_as_the_row_it_is_added_to():
    seen = []
    start = {**tables(), "bias": torch.arange(4.0), "codes": torch.arange(3), "nobody": torch.zeros(2, 3)}
    flatness(start, lambda p: float(len(seen.append(p) or [])), rhos=[0.5], draws=2, seed=0)
    assert len(seen) == 1 + 2 * 2
    for moved in seen[1:]:
        for name in ("users", "items"):
            length = (moved[name] - start[name]).norm(dim=1)
            torch.testing.assert_close(length, 0.5 * start[name].norm(dim=1))
        assert float((moved["bias"] - start["bias"]).norm()) == pytest.approx(0.5 * float(start["bias"].norm()))
        assert torch.equal(moved["codes"], start["codes"])
        assert torch.equal(moved["nobody"], start["nobody"])


def test_the_same_seed_gives_the_same_and_the_parameters_stay():
    start = tables()
    kept = {name: tensor.clone() for name, tensor in start.items()}
    turned = dict(reversed(start.items()))
    one, two = (flatness(p, cross_entropy, rhos=[0.1], draws=2, seed=7) for p in (start, turned))
    assert one.rise == two.rise
    assert flatness(start, cross_entropy, rhos=[0.1], draws=2, seed=8).rise != one.rise
    assert all(torch.equal(start[name], kept[name]) for name in start)


def test_one_draw_has_no_error_and_none_is_refused():
    assert math.isnan(flatness(tables(), cross_entropy, rhos=[0.1], draws=1, seed=0).error[0])
    with pytest.raises(ValueError, match="draws"):
        flatness(tables(), cross_entropy, rhos=[0.1], draws=0, seed=0)
