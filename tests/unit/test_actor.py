"""A policy over terms: its gradient by enumeration, and what it keeps of planted rewards."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from recdistill.distill.actor import Actor, learned


@pytest.mark.parametrize("baseline", [0.0, 7.0])
def test_its_step_is_in_the_mean_the_gradient_whatever_the_baseline(baseline):
    theta = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    gain = torch.tensor([0.5, -1.2], dtype=torch.float64)
    (torch.sigmoid(theta) * gain).sum().backward()
    p, found = torch.sigmoid(theta.detach()), torch.zeros(2, dtype=torch.float64)
    for bits in product([0.0, 1.0], repeat=2):
        action = torch.tensor(bits, dtype=torch.float64)
        chance = torch.prod(p**action * (1 - p) ** (1 - action))
        found += chance * learned(theta.detach(), action, (action * gain).sum(), torch.tensor(baseline).double())
    torch.testing.assert_close(found, theta.grad)


def play(actor, gains, turns, noise=0.0):
    """Let the loss fall by the gains of what is on, in shares of itself."""
    generator, loss, step = torch.Generator().manual_seed(1), 1.0, 0
    for _ in range(turns):
        fall = sum(g * actor.scale(n).item() for n, g in gains.items())
        loss *= 1 - fall - noise * torch.randn(1, generator=generator).item()
        for _ in range(actor.every):
            actor.hear(torch.tensor(loss), step)
            step += 1


def test_it_keeps_what_helps_and_drops_what_harms():
    actor = Actor(["useless", "useful", "harmful"], every=2, rate=20.0, seed=3)
    play(actor, {"useful": 0.02, "harmful": -0.02}, 1500, noise=0.01)
    chances = dict(zip(actor.names, actor.chances.tolist(), strict=True))
    assert chances["useful"] > 0.9
    assert chances["harmful"] < 0.1
    assert 0.05 < chances["useless"] < 0.95


def test_everything_is_on_until_the_first_turn_ends_and_acts_stay_for_a_turn():
    actor = Actor(["a", "b", "c", "d"], every=5, rate=0.1, seed=0)
    seen = []
    for step in range(25):
        seen.append(tuple(actor.get_buffer("on").tolist()))
        actor.hear(torch.tensor(1.0), step)
    assert seen[0] == (1.0,) * 4
    assert all(len(set(seen[i : i + 5])) == 1 for i in range(0, 25, 5))
    assert len(set(seen)) > 1


def test_what_it_learned_is_saved_and_goes_on_to_the_same_end():
    gains = {"a": 0.01, "b": -0.01}
    whole, first = (Actor(list(gains), every=3, rate=5.0, seed=1) for _ in range(2))
    play(whole, gains, 40)
    play(first, gains, 40)
    second = Actor(list(gains), every=3, rate=5.0, seed=1)
    second.load_state_dict(first.state_dict())
    for actor in (whole, second):
        for step in range(120, 150):
            actor.hear(torch.tensor(0.5 + 0.001 * step), step)
    torch.testing.assert_close(whole.get_buffer("theta"), second.get_buffer("theta"), rtol=0, atol=0)
    torch.testing.assert_close(whole.get_buffer("on"), second.get_buffer("on"), rtol=0, atol=0)
