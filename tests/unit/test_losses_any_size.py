"""Scores of any size at any temperature: list losses and their gradients are finite, and those of float64.

The references are written naively in float64, row by row, over the items that take part alone. What they promise: where
what is compared fits into float32, so does the loss, within 1e-4 of the reference and of the largest gradient; where
scores are read as they are, or logq taken from them, it is within some roundings of the largest.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from recdistill.distill import compose, losses
from recdistill.distill.gumbel import gumbel
from recdistill.distill.task_losses import bpr, full_softmax, sampled_softmax
from recdistill.types import Candidates

MOST = 1e37  # a value of several such is still a float32
LEVELS = (0.0, 1.0, -30.0, 1e4, -1e4, 1e30, -1e30, 1e38, -1e38)
HIGH = {"soft_bce", "normalised_ce", "logit_mse", "hard_bce"}  # read how high all scores are
LEVEL = HIGH | {"plackett_luce", "sampled_pl", "independent", "path"}  # or add them up as they are
NONE = torch.zeros(0, dtype=torch.int64)
SIZES = (0.0, 1.0, 30.0, 1e4, 1e30, 1e38)
# Deadlines and rates of drawing are of the machine, not of what is tested.
slowly = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)


def kl(t, s):
    p, q = t.log_softmax(0), s.log_softmax(0)
    return (p.exp() * (p - q)).sum()


def of_row(kind, s, t, c, *, temperature):
    """Return what the loss `kind` is of one row: s, t [K], c its candidates; all in float64."""
    there, n = c["items"] >= 0, c["ranked"]
    known, ranked = there & t.isfinite(), torch.arange(len(t)) < n
    if kind not in HIGH and there.any():  # which float64 too would lose the differences of
        s = s - s[there].max().detach()
        t = t - t[known].max() if known.any() else t
    some, q = c["logq"], s - c["logq"]
    first = there & ranked
    zero = (s * 0).sum()
    if kind in ("softmax_kl", "grouped_kl"):
        return kl((t / temperature - some)[known], (s / temperature - some)[known]) if known.any() else zero
    if kind == "gated_kl":
        sides = [known & ranked, known & ~ranked]
        found = [kl((t / temperature - some)[m], (s / temperature - some)[m]) if m.any() else zero for m in sides]
        return torch.lerp(*found, c["gate"])
    if kind == "list_ce":
        taught = known & ranked
        p = (t[taught] / temperature).softmax(0)
        return -(p * (q - q[there].logsumexp(0))[taught]).sum() if taught.any() else zero
    if kind == "normalised_ce":
        p = (logsigmoid(t) - some)[known].softmax(0)
        total = (logsigmoid(s) - some)[known].logsumexp(0) if known.any() else zero
        return (p * (total - logsigmoid(s)[known])).sum()
    if kind == "soft_bce":
        said = ((t + 0.4) / temperature).sigmoid()
        return binary_cross_entropy_with_logits(s[known], said[known]) if known.any() else zero
    if kind == "logit_mse":
        return (s - t)[known].square().mean() if known.any() else zero
    if kind == "margin_mse":
        other = known & (torch.arange(len(t)) > 0) & known[0]
        return ((s[0] - s) - (t[0] - t))[other].square().mean() if other.any() else zero
    rest = q[there & ~ranked]
    below = rest.logsumexp(0) if len(rest) else torch.tensor(-torch.inf, dtype=s.dtype)
    if kind == "independent":
        return -logsigmoid(s[first] - below).mean() if first.any() else zero
    if kind == "plackett_luce":
        return plackett_luce(s[first], below, zero)
    if kind == "sampled_pl":
        valid = known & ranked
        keys = (c["teacher"] / temperature + c["noise"])[:, valid]
        orders = keys.argsort(dim=1, descending=True, stable=True)
        return torch.stack([plackett_luce(s[valid][order], below, zero) for order in orders]).mean()
    if kind == "pairwise":
        both = there.view(-1, 2).all(1)
        apart = s.view(-1, 2)[:, 0] - s.view(-1, 2)[:, 1]
        return -logsigmoid(apart[both]).mean() if both.any() else zero
    if kind == "hard_bce":
        weights = (-torch.arange(int(first.sum()), dtype=s.dtype) / 2.0).softmax(0)
        return -(weights * logsigmoid(s[first])).sum()
    if kind == "hinge_mse":
        apart = [v[known] - v[known].mean() for v in (s, t)]
        return (apart[0] - 0.8 * apart[1]).square().mean().sub(0.08).relu() if known.any() else zero
    assert kind == "path"
    order = c["path"][known[c["path"]]]
    logs = [v[order] / temperature for v in (s, t)]
    gaps = [(logs[0][i] - logs[0][i:].logsumexp(0) - logs[1][i] + logs[1][i:].logsumexp(0)) for i in range(len(order))]
    return torch.stack(gaps[:3]).square().mean() if gaps else zero


def plackett_luce(s, below, zero):
    each = [torch.logaddexp(s[i:].logsumexp(0), below) - s[i] for i in range(len(s))]
    return torch.stack(each).mean() if each else zero


def losses_at(temperature):
    settings_of = {
        "soft_bce": {"temperature": temperature, "shift": 0.4},
        "sampled_pl": {"temperature": temperature, "samples": 2},
        "hard_bce": {"decay": 2.0, "sharpness": 0.1, "dynamic": 0.0, "num_items": 50},
        "hinge_mse": {"margin": 0.1, "dynamic": 0.8},
        "grouped_kl": {"temperature": temperature, "parts": 3},
        "path": {"temperature": temperature, "length": 3},
    }
    cold = {name: {"temperature": temperature} for name in ("softmax_kl", "list_ce", "gated_kl")}
    named = {name: function for name, function in compose.LOSSES.items() if name != "subclass_kl"}
    return {name: partial(function, **(settings_of | cold).get(name, {})) for name, function in named.items()}


ALL = tuple(losses_at(1.0))


@st.composite
def lists(draw):
    """Draw a row or two: scores of any size, equal ones, padding, items without a score, one item, none."""
    height, width = draw(st.integers(1, 2)), 2 * draw(st.integers(1, 3))
    made = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    sides = []
    for _ in range(2):
        level, spread = draw(st.sampled_from(LEVELS)), draw(st.sampled_from(SIZES))
        raw = torch.rand(height, width, generator=made, dtype=torch.float64) * 2 - 1
        raw = raw.round() if draw(st.booleans()) else raw
        sides.append((level + spread * raw).clamp(-1e38, 1e38).float())
    student, teacher = sides
    marks = torch.rand(height, width, generator=made)
    missing, unscored = draw(st.sampled_from([(0.0, 0.0), (0.2, 0.4), (1.0, 1.0), (0.0, 1.0), (0.5, 0.5)]))
    items = torch.arange(height * width).view(height, width).masked_fill(marks < missing, -1)
    teacher = teacher.masked_fill(marks < unscored, -torch.inf)
    ranked = draw(st.integers(0, width))
    logq = (
        -torch.rand(height, width, generator=made) * 8 * (torch.arange(width) >= ranked)
        if draw(st.booleans())
        else None
    )
    parts = torch.arange(height * width).view(height, width) % 3
    gate = torch.linspace(0.2, 0.9, height)
    return student, Candidates(items=items, teacher=teacher, ranked=ranked, logq=logq, gate=gate, parts=parts)


def reference(kind, student, candidates, temperature):
    noise = gumbel(candidates, 2)
    noise = torch.cat([noise, noise.new_zeros(*noise.shape[:2], student.shape[1] - candidates.ranked)], dim=2)
    known = losses.scored(
        candidates
    )  # the path of a row is drawn in float32: it is what is compared along it that counts
    drawn = gumbel(replace(candidates, ranked=student.shape[1]), 1)[:, 0].float()
    walk = losses.heated(student.detach().float(), known, temperature) + drawn
    walk = walk.masked_fill(~known, -torch.inf).argsort(dim=1, descending=True, stable=True)
    logq = torch.zeros_like(student) if candidates.logq is None else candidates.logq
    found = []
    for r, s in enumerate(student):
        one = {"items": candidates.items[r], "ranked": candidates.ranked, "noise": noise[r], "path": walk[r]}
        one |= {
            "teacher": candidates.teacher[r].double(),
            "logq": logq[r].double(),
            "gate": torch.as_tensor(candidates.gate)[r].double(),
        }
        found.append(of_row(kind, s, candidates.teacher[r].double(), one, temperature=temperature))
    return torch.stack(found)


def graded(loss, student):
    student = student.detach().clone().requires_grad_(True)
    value = loss(student)
    value.sum().backward()
    return value.detach(), student.grad


def largest(student, candidates):
    return max(float(side.nan_to_num(neginf=0.0).abs().max()) for side in (student, candidates.teacher))


def fits(student, candidates, temperature):
    """Say whether all that is compared, over the temperature, is within what float32 can hold."""
    return largest(student, candidates) / min(temperature, 1.0) < MOST


@pytest.mark.parametrize("kind", ALL)
@slowly
@given(drawn=lists(), power=st.integers(-3, 3))
def test_a_loss_of_any_scores_is_that_of_float64(kind, drawn, power):
    (student, candidates), temperature = drawn, 10.0**power
    value, gradient = graded(partial(losses_at(temperature)[kind], candidates=candidates), student)
    assert not value.isnan().any()
    assert not gradient.isnan().any()
    if kind not in ("logit_mse", "margin_mse", "hinge_mse", "path"):  # whose squares may be beyond float32
        assert value.isfinite().all()
        assert gradient.isfinite().all()
    wanted, slope = graded(lambda s: reference(kind, s, candidates, temperature), student.double())
    if not fits(student, candidates, temperature) or wanted.abs().max() > MOST:
        return
    near = 1e-5
    if kind in LEVEL or candidates.logq is not None:
        near += 2.0**-21 * largest(student, candidates) / (max(temperature, 1.0) if kind == "path" else 1.0)
    if kind == "path":  # a square, of what is divided by the temperature
        near *= 1.0 + float(wanted.max().sqrt())
    torch.testing.assert_close(value.double(), wanted, rtol=1e-4, atol=near)
    if near < 0.01:
        near += 1e-4 * float(slope.abs().max()) + 1e-5 / temperature
        torch.testing.assert_close(gradient.double(), slope, rtol=1e-4, atol=near)


@slowly
@given(drawn=lists(), power=st.integers(-3, 3), of_teacher=st.sampled_from(SIZES), of_student=st.sampled_from(SIZES))
def test_sub_logits_of_any_size_at_any_temperature_give_numbers(drawn, power, of_teacher, of_student):
    (student, candidates), temperature = drawn, 10.0**power
    scores = torch.stack([student, *(torch.linspace(-1, 1, student.numel()).view_as(student) * of_student,) * 4], dim=2)
    subs = torch.linspace(1, -1, 4 * student.numel()).view(*student.shape, 4) * of_teacher
    loss = partial(compose.LOSSES["subclass_kl"], candidates=replace(candidates, subs=subs), temperature=temperature)
    value, gradient = graded(loss, scores)
    assert not value.isnan().any()
    assert gradient.isfinite().all() or of_student == 1e38
    if max(of_teacher, of_student, float(student.abs().max())) <= 1e4:
        wanted, slope = graded(partial(loss, candidates=replace(candidates, subs=subs.double())), scores.double())
        torch.testing.assert_close(value.double(), wanted, rtol=1e-4, atol=1e-5 * temperature**2)
        torch.testing.assert_close(gradient.double(), slope, rtol=1e-4, atol=1e-4 + 1e-4 * float(slope.abs().max()))


@slowly
@given(drawn=lists(), met=st.booleans())
def test_the_losses_of_what_was_taken_are_those_of_float64_whatever_the_scores(drawn, met):
    positive, negatives = drawn[0][:, 0], drawn[0][:, 1:]
    meets = (torch.arange(len(positive)), torch.zeros(len(positive), dtype=torch.int64)) if met else (NONE, NONE)
    left = torch.ones_like(negatives, dtype=torch.bool)
    left[meets] = False

    def slow(scores):
        rows = [torch.cat([s[:1], s[1:][k] - 0.3]) for s, k in zip(scores, left, strict=True)]
        return torch.stack([row.logsumexp(0) - row[0] for row in rows])

    pairs = {
        "bpr": (lambda s: bpr(s[:, 0], s[:, 1:]), lambda s: -logsigmoid(s[:, :1] - s[:, 1:]).mean(1)),
        "whole": (lambda s: full_softmax(s[:, 0], s), lambda s: s.logsumexp(1) - s[:, 0]),
        "sampled": (lambda s: sampled_softmax(s[:, 0], s[:, 1:], meets, log_share=0.3), slow),
    }
    for fast, reference_of in pairs.values():
        value, gradient = graded(fast, drawn[0])
        wanted, slope = graded(reference_of, drawn[0].double())
        assert not value.isnan().any()
        assert gradient.isfinite().all()
        rounding = 2.0**-22 * float(drawn[0].abs().max())  # of the largest score: those of a row are not shifted here
        if rounding < 0.01:
            torch.testing.assert_close(value.double(), wanted, rtol=1e-4, atol=1e-5 + rounding)
            torch.testing.assert_close(gradient.double(), slope, rtol=1e-4, atol=1e-5 + rounding)
