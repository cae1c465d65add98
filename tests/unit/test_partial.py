"""Partial teachers and teachers that are set right, against their definitions."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill.partial import pt, sim, smooth, topk
from recdistill.distill.rectify import rectify, right, swapped
from recdistill.types import Candidates

ROWS, ITEMS = 4, 9


def candidates(own, seed=0, items=None):
    """Return lists whose rows took the columns `own`."""
    teacher = torch.randn(ROWS, ITEMS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    taken = torch.zeros(ROWS, ITEMS, dtype=torch.bool)
    taken[:, own] = True
    items = torch.arange(ITEMS).expand(ROWS, ITEMS) if items is None else items
    return Candidates(items=items, teacher=teacher, ranked=ITEMS, taken=taken)


def chances(found):
    return torch.softmax(found.teacher, 1)


def test_smoothing_is_even_over_what_was_taken_and_even_over_the_rest():
    found = chances(smooth(candidates([1, 4]), share=0.1))
    expected = torch.full((ROWS, ITEMS), 0.1 / 7, dtype=torch.float64)
    expected[:, [1, 4]] = 0.9 / 2
    torch.testing.assert_close(found, expected)


def test_of_nothing_or_everything_taken_all_is_even():
    for own in ([], list(range(ITEMS))):
        torch.testing.assert_close(
            chances(smooth(candidates(own), share=0.1)), torch.full((ROWS, ITEMS), 1 / ITEMS).double()
        )


def test_pt_keeps_the_mass_of_what_was_taken_and_nothing_else():
    given = candidates([1, 4])
    found, p = chances(pt(given)), chances(given)
    mass = p[:, [1, 4]].sum(1)
    torch.testing.assert_close(found[:, [1, 4]], (mass / 2).unsqueeze(1).expand(-1, 2))
    torch.testing.assert_close(found[:, 0], (1 - mass) / 7)
    torch.testing.assert_close(found.sum(1), torch.ones(ROWS).double())


def test_pt_of_a_constant_mass_is_label_smoothing():
    given = candidates([3])
    teacher = torch.zeros(ROWS, ITEMS, dtype=torch.float64)
    teacher[:, 3] = torch.log(torch.tensor(0.9 / 0.1 * (ITEMS - 1)).double())
    sure = Candidates(items=given.items, teacher=teacher, ranked=ITEMS, taken=given.taken)
    torch.testing.assert_close(chances(pt(sure)), chances(smooth(sure, share=0.1)))


def test_topk_sums_to_one_and_of_all_but_one_is_the_teacher():
    given = candidates([0])
    p = chances(given)
    found = chances(topk(given, k=3))
    torch.testing.assert_close(found.sum(1), torch.ones(ROWS).double())
    best = p.topk(3, dim=1)
    torch.testing.assert_close(found.gather(1, best.indices), best.values)
    for k in (ITEMS - 1, ITEMS, ITEMS + 5):
        torch.testing.assert_close(chances(topk(given, k=k)), p)


def test_sim_is_the_softmax_of_cosines_with_what_was_taken():
    vectors = torch.randn(ITEMS, 5, generator=torch.Generator().manual_seed(3))
    found = sim(candidates([2]), vectors=vectors, temperature=0.5)
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found.teacher[0].float(), (unit @ unit[2]) / 0.5)
    assert torch.isneginf(sim(candidates([]), vectors=vectors, temperature=0.5).teacher).all()


@pytest.mark.parametrize("change", [lambda c: smooth(c, share=0.1), pt, lambda c: topk(c, k=2), swapped])
def test_what_is_no_item_stays_none(change):
    items = torch.arange(ITEMS).expand(ROWS, ITEMS).clone()
    items[:, 6:] = -1
    given = candidates([1], items=items)
    given = Candidates(
        items=items,
        teacher=given.teacher.masked_fill(items < 0, -torch.inf),
        ranked=ITEMS,
        taken=given.taken,
    )
    found = change(given)
    scores = found if isinstance(found, torch.Tensor) else found.teacher
    assert torch.isneginf(scores[:, 6:]).all()
    assert torch.isfinite(scores[:, :6]).all()


def brute_swap(teacher, own):
    out = teacher.clone()
    for row in range(len(teacher)):
        order = teacher[row].argsort(descending=True).tolist()
        count = int(own[row].sum())
        bad = [i for i in order[:count] if not own[row, i]]
        low = [i for i in order[count:] if own[row, i]]
        for i, j in zip(bad, low, strict=True):
            out[row, i], out[row, j] = teacher[row, j], teacher[row, i]
    return out


@pytest.mark.parametrize("own", [[1, 4, 7], [3], [], list(range(ITEMS)), [0, 1, 2, 3, 4]])
def test_the_swap_is_that_of_brute_force_keeps_the_scores_and_is_done_once(own):
    given = candidates(own)
    found = swapped(given)
    torch.testing.assert_close(found, brute_swap(given.teacher, given.taken))
    torch.testing.assert_close(found.sort(1).values, given.teacher.sort(1).values)
    again = Candidates(items=given.items, teacher=found, ranked=ITEMS, taken=given.taken)
    assert right(again).all()
    assert torch.equal(swapped(again), found)


def test_of_one_item_it_is_the_published_swap():
    given = candidates([3])
    expected = given.teacher.clone()
    for row in expected:
        best = int(row.argmax())
        row[3], row[best] = row[best].item(), row[3].item()
    torch.testing.assert_close(rectify(given, how="swap").teacher, expected)


def test_a_right_teacher_is_left_alone_and_a_wrong_one_smoothed_or_silenced():
    given = candidates([3])
    teacher = given.teacher.clone()
    teacher[0, 3], teacher[1, 3] = 99.0, -99.0
    given = Candidates(items=given.items, teacher=teacher, ranked=ITEMS, taken=given.taken)
    assert right(given)[:2].tolist() == [True, False]
    for how in ("swap", "smooth", "drop"):
        assert torch.equal(rectify(given, how=how).teacher[0], teacher[0])
    assert torch.isneginf(rectify(given, how="drop").teacher[1]).all()
    torch.testing.assert_close(rectify(given, how="smooth", share=0.2).teacher[1], smooth(given, share=0.2).teacher[1])


def test_candidates_that_do_not_say_what_was_taken_are_refused():
    plain = Candidates(items=torch.zeros(1, 2).long(), teacher=torch.zeros(1, 2), ranked=2)
    for change in (pt, swapped):
        with pytest.raises(ValueError, match="which items the user took"):
            change(plain)
