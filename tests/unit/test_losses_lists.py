"""What all list losses have in common: what they read, what they do not, and that nothing makes them overflow."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch

from recdistill.distill import compose, grouped, losses, paths
from recdistill.distill.spec_lists import ListLoss
from recdistill.types import Candidates


def in_thirds(student, candidates):
    """Return the KL over parts that are a function of the item alone."""
    parts = candidates.items % 3
    weights = {"between": 0.7, "within": (0.5, 1.0, 2.0)}
    return grouped.grouped_kl(student, replace(candidates, parts=parts), temperature=1.5, parts=3, **weights)


LOSSES = {
    "softmax_kl": partial(losses.softmax_kl, temperature=1.7),
    "list_ce": partial(losses.list_ce, temperature=0.6),
    "gated_kl": partial(losses.gated_kl, temperature=1.3),
    "soft_bce": partial(losses.soft_bce, temperature=2.0, shift=0.4),
    "normalised_ce": losses.normalised_ce,
    "logit_mse": losses.logit_mse,
    "margin_mse": losses.margin_mse,
    "plackett_luce": losses.plackett_luce,
    "sampled_pl": partial(losses.sampled_pl, samples=3, temperature=1.5),
    "independent": losses.independent,
    "hard_bce": partial(losses.hard_bce, decay=2.0, sharpness=0.1, dynamic=0.0, num_items=50),
    "hard_bce.dynamic": partial(losses.hard_bce, decay=2.0, sharpness=0.1, dynamic=1.0, num_items=50),
    "pairwise": losses.pairwise,
    "grouped_kl": in_thirds,
    "path": partial(paths.path, length=3, temperature=1.5),
    "hinge_mse": partial(grouped.hinge_mse, margin=0.1, dynamic=0.8),
}
LEVEL = {"soft_bce", "normalised_ce", "logit_mse", "hard_bce", "hard_bce.dynamic"}  # read how high all scores are
ORDER = {"plackett_luce", "independent", "hard_bce", "hard_bce.dynamic", "pairwise"}  # read no teacher scores
# What reads logq:
SAMPLED = {
    "grouped_kl",
    "softmax_kl",
    "list_ce",
    "gated_kl",
    "normalised_ce",
    "plackett_luce",
    "sampled_pl",
    "independent",
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def rows(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given(teacher, ranked=4, logq=None, start=0):
    """Return candidates with other items in each row, and a gate for each."""
    height, width = teacher.shape
    items = start + torch.arange(height * width).view(height, width)
    gate = (torch.arange(height) * 0.37 + 0.2).to(teacher.dtype) % 1
    return Candidates(items=items, teacher=teacher, ranked=ranked, logq=logq, gate=gate)


def sampled(seed, height, width, ranked=4):
    """Return logq of draws: 0 where ranked, as they are certain."""
    return -rows(seed, height, width).abs() * (torch.arange(width) >= ranked)


def gradient(loss, student):
    student = student.detach().clone().requires_grad_(True)
    loss(student).sum().backward()
    return student.grad


def numeric_gradient(loss, student, step=1e-6):
    nudges = step * torch.eye(student.shape[1], dtype=student.dtype)
    columns = [(loss(student + nudge) - loss(student - nudge)) / (2 * step) for nudge in nudges]
    return torch.stack(columns, dim=1)


def test_every_loss_that_can_be_written_is_here_and_can_be_counted():
    kinds = {spec.model_fields["kind"].default for spec in get_args(get_args(ListLoss)[0])}
    assert kinds == set(losses.COUNTS) == set(compose.LOSSES)
    # Of sub-logits there are several an item, so that loss has tests of its own.
    assert kinds - {"subclass_kl"} == {name.split(".")[0] for name in LOSSES}


@every_loss
@pytest.mark.parametrize("drawn", [False, True])
def test_the_gradient_is_that_of_finite_differences(name, drawn):
    student, teacher = rows(0, 5, 8), rows(1, 5, 8)
    loss = partial(LOSSES[name], candidates=given(teacher, logq=sampled(2, 5, 8) if drawn else None))
    torch.testing.assert_close(gradient(loss, student), numeric_gradient(loss, student), atol=1e-8, rtol=1e-6)


@every_loss
def test_a_row_does_not_depend_on_its_batch(name):
    student, teacher, logq = rows(3, 5, 8), rows(4, 5, 8), sampled(5, 5, 8)
    all_rows = given(teacher, logq=logq)
    assert all_rows.gate is not None
    alone = [
        LOSSES[name](
            student[i : i + 1],
            replace(
                all_rows,
                items=all_rows.items[i : i + 1],
                teacher=teacher[i : i + 1],
                logq=logq[i : i + 1],
                gate=all_rows.gate[i : i + 1],
            ),
        )
        for i in range(5)
    ]
    torch.testing.assert_close(torch.cat(alone), LOSSES[name](student, all_rows), rtol=1e-13, atol=0)


@every_loss
def test_a_constant_added_to_a_rows_scores_changes_only_losses_that_read_the_level(name):
    student, one = rows(6, 5, 8), given(rows(7, 5, 8))
    shift = torch.tensor([[-3.0], [0.5], [2.0], [10.0], [-7.0]], dtype=torch.float64)
    before, after = LOSSES[name](student, one), LOSSES[name](student + shift, one)
    if name in LEVEL:
        assert ((after - before).abs() > 1e-6).all()
    else:
        torch.testing.assert_close(after, before)


@every_loss
def test_the_order_of_the_unranked_is_not_read(name):
    student, one = rows(8, 5, 8), given(rows(9, 5, 8), logq=sampled(10, 5, 8))
    assert one.logq is not None
    turned = [0, 1, 2, 3, 6, 7, 4, 5]  # by pairs, as pairwise has it
    other = replace(one, items=one.items[:, turned], teacher=one.teacher[:, turned], logq=one.logq[:, turned])
    torch.testing.assert_close(LOSSES[name](student[:, turned], other), LOSSES[name](student, one))


@every_loss
def test_teacher_scores_are_read_where_the_loss_is_not_of_the_order_alone(name):
    student, teacher = rows(11, 6, 8), rows(12, 6, 8)
    before, after = LOSSES[name](student, given(teacher)), LOSSES[name](student, given(teacher.flip(1) * 3))
    assert bool((before == after).all()) == (name in ORDER)


@every_loss
def test_logq_is_read_by_losses_that_normalise_over_a_list(name):
    student, teacher = rows(13, 6, 8), rows(14, 6, 8)
    before, after = LOSSES[name](student, given(teacher)), LOSSES[name](student, given(teacher, logq=sampled(15, 6, 8)))
    assert bool(((before - after).abs() > 1e-9).all()) == (name in SAMPLED)
    certain = LOSSES[name](student, given(teacher, logq=torch.zeros_like(teacher)))
    torch.testing.assert_close(certain, before, rtol=0, atol=0)


@every_loss
def test_padding_changes_neither_value_nor_gradient(name):
    student, teacher, logq = rows(16, 3, 6), rows(17, 3, 6), sampled(18, 3, 6)
    source = torch.tensor([0, 1, 0, 0, 2, 3, 4, 5, 0, 0])
    real = torch.tensor([True, True, False, False, True, True, True, True, False, False])
    narrow = given(teacher, logq=logq)
    wide = Candidates(
        items=torch.where(real, narrow.items[:, source], -1),
        teacher=teacher[:, source].masked_fill(~real, -torch.inf),
        ranked=6,
        logq=logq[:, source].masked_fill(~real, -torch.inf),
        gate=narrow.gate,
    )
    noisy = torch.where(real, student[:, source], 50.0)
    padded, plain = partial(LOSSES[name], candidates=wide), partial(LOSSES[name], candidates=narrow)
    torch.testing.assert_close(padded(noisy), plain(student))
    found = gradient(padded, noisy)
    assert (found[:, ~real] == 0).all()
    torch.testing.assert_close(found[:, real], gradient(plain, student))
    kind = name.split(".")[0]
    assert losses.counts(kind, wide).tolist() == losses.counts(kind, narrow).tolist()


@every_loss
@pytest.mark.parametrize(("ranked", "width"), [(2, 4), (4, 4), (0, 4), (0, 0)])
def test_rows_without_items_give_zero_and_no_gradient(name, ranked, width):
    items = torch.full((2, width), -1)
    teacher = torch.full((2, width), -torch.inf)
    empty = Candidates(items=items, teacher=teacher, ranked=ranked, gate=torch.tensor([0.0, 0.5]))
    student = torch.full((2, width), 3.0, requires_grad=True)
    value = LOSSES[name](student, empty)
    value.sum().backward()
    assert value.tolist() == [0, 0]
    assert student.grad is not None
    assert (student.grad == 0).all()
    assert losses.counts(name.split(".")[0], empty).tolist() in ([0, 0], [1, 1])


@every_loss
def test_no_rows_give_no_values(name):
    assert LOSSES[name](torch.zeros(0, 6), given(torch.zeros(0, 6))).shape == (0,)


@every_loss
@pytest.mark.parametrize("size", [1e4, 1e6])
def test_huge_scores_stay_finite_with_finite_gradients(name, size):
    signs = torch.tensor([[1.0, -1.0, 0.0, 1.0, -1.0, 1.0], [-1.0, 1.0, 1.0, -1.0, 0.0, -1.0]]) * size
    logq = torch.tensor([0.0, 0.0, 0.0, 0.0, -20.0, -3.0]).expand(2, -1)
    for teacher in (signs.flip(1), signs, -signs):
        loss = partial(LOSSES[name], candidates=given(teacher, logq=logq))
        assert loss(signs).isfinite().all()
        assert gradient(loss, signs).isfinite().all()


@pytest.mark.parametrize(
    "name", ["softmax_kl", "gated_kl", "soft_bce", "normalised_ce", "logit_mse", "margin_mse", "sampled_pl"]
)
def test_ranked_items_that_the_teacher_has_not_scored_take_no_part(name):
    student, teacher = rows(20, 3, 6), rows(21, 3, 6)
    teacher[:, 2] = -torch.inf
    unscored = given(teacher)
    missing = replace(unscored, items=unscored.items.masked_fill(teacher.isinf(), -1))
    # The noise of sampled_pl is a function of the items, which differ here, so it is taken where noise does not count.
    cold = partial(losses.sampled_pl, samples=3, temperature=1e-9)
    loss = cold if name == "sampled_pl" else LOSSES[name]
    torch.testing.assert_close(loss(student, unscored), loss(student, missing))
    assert (gradient(lambda s: loss(s, unscored), student)[:, 2] == 0).all()


def test_counts_are_what_the_means_were_divided_by():
    items = torch.tensor([[0, 1, -1, 2, 3, 4, 5, -1], [-1, 1, 2, 3, 4, -1, 5, 6]])
    teacher = torch.tensor([[3.0, 2.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [3.0, 2.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]])
    teacher[:, 6] = -torch.inf
    one = Candidates(items=items, teacher=teacher, ranked=4)
    found = {kind: losses.counts(kind, one).tolist() for kind in losses.COUNTS}
    for kind in ("softmax_kl", "list_ce", "gated_kl", "normalised_ce", "hard_bce", "grouped_kl", "path"):
        assert found.pop(kind) == [1, 1]
    for kind in ("plackett_luce", "sampled_pl", "independent"):
        assert found.pop(kind) == [3, 3]
    for kind in ("soft_bce", "logit_mse", "hinge_mse"):
        assert found.pop(kind) == [5, 5]
    assert found.pop("subclass_kl") == [6, 6]
    assert found == {"margin_mse": [4, 0], "pairwise": [2, 2]}
    with pytest.raises(KeyError):
        losses.counts("no_such", one)
