"""From a draw to what is taught: what the user took, parts of lists, steps half way, and rows treated by signals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from recdistill.distill.compose import make_term
from recdistill.distill.draws import Lists, Seen, own, owned
from recdistill.distill.losses import softmax_kl
from recdistill.distill.rectify import among_first
from recdistill.distill.schedule import risen
from recdistill.distill.spec import ListTermSpec
from recdistill.distill.spec_draws import Own, Top
from recdistill.distill.spec_lists import GroupedKL, HingeMSE, SoftmaxKL
from recdistill.distill.spec_signals import Keep, RightFirst, Temperature, Weight
from recdistill.distill.spec_targets import HalfWay, Pt, Rectify, Sim, Smooth
from recdistill.distill.targets import half_way
from recdistill.types import Candidates

ITEMS = 30
SEEN = Seen(torch.tensor([0, 1]), torch.tensor([20, 21, 23, ITEMS + 22]), ITEMS)
LISTS = Lists(torch.arange(12).reshape(2, 6), torch.arange(0.0, -12.0, -1.0).reshape(2, 6), SEEN)
KL, DRAWS = SoftmaxKL(), (Top(k=4), Own(n=2))


class Scores:
    """Scores by vectors: each item's own number."""

    right = torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(0))

    def __call__(self, items):
        return items.clamp(min=0).float() / 10


def term(loss=KL, target=(), draw=DRAWS, signal=None):
    return make_term(ListTermSpec(weight=1.0, draw=draw, target=target, loss=loss, signal=signal), 0, epochs=4)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_own_items_are_drawn_without_replacement_each_as_likely():
    many = LISTS._replace(
        items=LISTS.items[:1].expand(3000, 6),
        scores=LISTS.scores[:1].expand(3000, 6),
        seen=SEEN._replace(users=torch.zeros(3000, dtype=torch.int64)),
    )
    drawn = own(many, seeded(), n=2).items
    assert all(len(set(row)) == 2 for row in drawn.tolist())
    counts = torch.bincount(drawn.flatten(), minlength=ITEMS)
    assert counts.nonzero().flatten().tolist() == [20, 21, 23]
    assert (counts[[20, 21, 23]] - 2000).abs().max() < 5 * (6000 * 2 / 9) ** 0.5


def test_who_has_few_gets_few_and_lists_give_their_scores():
    lists = LISTS._replace(items=torch.tensor([[3, 20, 5], [1, 2, 4]]), scores=torch.tensor([[3.0, 2.0, 1.0]] * 2))
    drawn = own(lists, seeded(), n=3)
    assert sorted(drawn.items[0].tolist()) == [20, 21, 23]
    assert drawn.items[1].tolist() == [22, -1, -1]
    assert drawn.scores[0][drawn.items[0] == 20].tolist() == [2.0]
    assert torch.isneginf(drawn.scores[1]).all()


def test_owned_is_membership_in_what_was_taken_alone():
    items = torch.tensor([[20, 0, 22, -1], [22, 20, 6, -1]])
    assert owned(LISTS, items).tolist() == [[True, False, False, False], [True, False, False, False]]


def test_a_target_that_asks_is_told_what_was_taken_and_vectors_score_it():
    found = term(target=(Pt(),)).candidates(LISTS, seeded(), Scores())
    assert found.taken.tolist() == [[False] * 4 + [True, True], [False] * 4 + [True, False]]
    before = term().candidates(LISTS, seeded(), Scores())
    assert before.taken is None
    mass = torch.softmax(before.teacher[0], 0)[4:].sum()
    torch.testing.assert_close(torch.softmax(found.teacher[0], 0)[4:].sum(), mass)


def test_targets_go_one_after_the_other_and_sim_first():
    found = term(target=(Sim(temperature=0.5),)).candidates(LISTS, seeded(), Scores())
    unit = torch.nn.functional.normalize(Scores.right, dim=1)
    centre = torch.nn.functional.normalize(unit[found.items[0][4:]].sum(0), dim=0)
    torch.testing.assert_close(found.teacher[0], unit[found.items[0]] @ centre / 0.5)
    smoothed = term(target=(Sim(), Smooth(share=0.2))).candidates(LISTS, seeded(), Scores())
    torch.testing.assert_close(torch.softmax(smoothed.teacher[0], 0)[4:], torch.tensor([0.4, 0.4]))


def test_parts_by_what_was_taken_and_by_popularity():
    taken = term(loss=GroupedKL()).candidates(LISTS, seeded(), Scores())
    assert taken.parts.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 0]]
    made = term(loss=GroupedKL(by="popularity", groups=3), draw=(Top(k=4),))
    assert made.groups == 3
    found = made.candidates(LISTS._replace(groups=torch.arange(ITEMS) % 3), seeded(), Scores())
    assert found.parts[0].tolist() == [0, 1, 2, 0]


def test_half_way_is_between_the_student_and_the_teacher_and_without_gradient():
    student = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 4, dtype=torch.float64)
    given = Candidates(items=torch.arange(4).expand(2, 4), teacher=teacher, ranked=4)
    found = half_way(student, given, step=0.25).teacher
    centred = [x - x.mean(1, keepdim=True) for x in (student.detach(), teacher)]
    torch.testing.assert_close(found, 0.75 * centred[0] + 0.25 * centred[1])
    assert not found.requires_grad
    whole = half_way(student, given, step=1.0)
    torch.testing.assert_close(torch.softmax(whole.teacher, 1), torch.softmax(teacher, 1))
    made = term(target=(HalfWay(step=0.25),), draw=(Top(k=4),))
    expected = softmax_kl(student, replace(given, teacher=found), temperature=1.0).mean()
    torch.testing.assert_close(made.value(student, given, 2), expected)


GIVEN = Candidates(
    items=torch.arange(4).expand(3, 4),
    teacher=torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 3.0, 1.0, 0.0], [1.0, 0.0, 0.0, 2.0]]),
    ranked=4,
    taken=torch.tensor([[True, False, False, False]] * 3),
)
STUDENT = torch.tensor([[0.0, 0.0, 0.0, 0.0], [50.0, 0.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]])
EACH = softmax_kl(STUDENT, GIVEN, temperature=1.0)


def test_a_weight_counts_rows_by_their_signal():
    value = term(signal=Weight(of="entropy")).value(STUDENT, GIVEN, 3)
    from recdistill.distill.signals import entropy

    u = entropy(STUDENT, GIVEN)
    torch.testing.assert_close(value, (EACH * u / u.mean()).mean())
    assert u[1] < 1e-6


def test_only_the_most_uncertain_rows_count():
    value = term(signal=Keep(share=0.34)).value(STUDENT, GIVEN, 3)
    torch.testing.assert_close(value, EACH[0])


def test_rows_get_a_temperature_of_their_own():
    same = term(signal=Temperature(slope=1e-9, base=2.0)).value(STUDENT, GIVEN, 3)
    torch.testing.assert_close(same, softmax_kl(STUDENT, GIVEN, temperature=2.0).mean())
    spread = term(signal=Temperature(slope=1.0, base=2.0)).value(STUDENT, GIVEN, 3)
    assert not torch.allclose(same, spread)


@pytest.mark.parametrize(("at", "late"), [(0.0, 0.0), (0.25, 0.0), (0.5, 0.5), (0.75, 1.0), (1.0, 1.0)])
def test_rows_in_which_the_teacher_is_wrong_ramp_up(at, late):
    student, judged = STUDENT.clone().requires_grad_(), replace(GIVEN, right=among_first(GIVEN, 1))
    assert judged.right.tolist() == [True, *[False] * (len(STUDENT) - 1)]
    term(signal=RightFirst(start=1.0, ramp=2.0)).value(student, judged, 3, at).backward()
    whole = STUDENT.clone().requires_grad_()
    softmax_kl(whole, GIVEN, temperature=1.0).mean().backward()
    torch.testing.assert_close(student.grad[0], whole.grad[0])
    torch.testing.assert_close(student.grad[1:], late * whole.grad[1:])


def test_whether_the_teacher_is_right_is_asked_before_it_is_set_right():
    # The first user took 20, 21 and 23 and the second 22, whose scores of 2.0 and more are above all others' in the
    # first row alone.
    scores = torch.stack([torch.arange(0.0, -6.0, -1.0), torch.arange(9.0, 3.0, -1.0)])
    made = term(target=(Rectify(),), signal=RightFirst(start=3.0)).candidates(
        LISTS._replace(scores=scores), seeded(), Scores()
    )
    best = made.teacher.masked_fill(~made.taken, -torch.inf).amax(1)
    assert (best >= made.teacher.masked_fill(made.taken, -torch.inf).amax(1)).all()
    assert made.right.tolist() == [True, False]
    weight = term(signal=RightFirst(start=3.0)).signal(made.teacher, made, 0.0).weight
    assert weight.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("k", "right"), [(1, [True, False, False]), (2, [True, True, False]), (3, [True, True, True])])
def test_a_teacher_is_right_that_has_something_taken_among_its_first(k, right):
    teacher = torch.tensor([[3.0, 2.0, 1.0, 0.0], [2.0, 3.0, 1.0, -torch.inf], [1.0, 3.0, 2.0, 9.0]])
    items = torch.tensor([[4, 5, 6, 7], [4, 5, 6, 7], [4, 5, 6, -1]])
    taken = torch.tensor([[True, False, False, True], [True, False, False, False], [True, False, False, False]])
    given = Candidates(items=items, teacher=teacher, ranked=4, taken=taken)
    assert among_first(given, k).tolist() == right
    assert among_first(replace(given, taken=torch.zeros_like(taken)), k).all()


def test_the_hinge_grows_with_the_training():
    made = term(loss=HingeMSE(hottest=10.0), draw=(Top(k=4),))
    early, late = (made.value(0.1 * GIVEN.teacher, GIVEN, 3, at).item() for at in (0.0, 1.0))
    assert early == pytest.approx(0.0, abs=1e-7)
    assert late > 0.1
    assert [risen(at, 10.0) for at in (0.0, 1.0)] == pytest.approx([0.1, 1.0])
    assert risen(0.3, 1.0) == 1.0
