"""Terms and the objective: what is compared, how it is weighed, and what a batch does not change."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch

from recdistill.distill.compose import make_term
from recdistill.distill.draws import Lists, Seen
from recdistill.distill.objective import Objective, read
from recdistill.distill.spec import ListTermSpec
from recdistill.distill.spec_draws import Ranked, Top, Unseen
from recdistill.distill.spec_lists import PlackettLuce, SoftBCE, SoftmaxKL
from recdistill.models.encoders import MF
from recdistill.models.tables import PlainTable
from recdistill.types import Batch, Candidates, Lesson, Past

ITEMS = 30
LISTS = Lists(
    torch.arange(12).reshape(2, 6),
    torch.arange(0.0, -12.0, -1.0).reshape(2, 6),
    Seen(torch.tensor([0, 1]), torch.tensor([20, 21, ITEMS + 22]), ITEMS),
)
UNSEEN, TOP, RANKED = Unseen(n=4), Top(k=2), Ranked(k=3, temperature=5.0)
LOSSES = {"plackett_luce": PlackettLuce(), "softmax_kl": SoftmaxKL(temperature=2.0), "soft_bce": SoftBCE()}


def term(loss="plackett_luce", weight=0.5, draw=(TOP,), position=0):
    return make_term(ListTermSpec(weight=weight, draw=draw, loss=LOSSES[loss]), position)


def model():
    made = MF(PlainTable, num_users=5, num_items=ITEMS, dim=4, space="dot", temperature=1.0)
    generator = torch.Generator().manual_seed(1)
    for weight in made.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    return made


BATCH = Batch(
    users=torch.tensor([0, 3, 4]),
    positives=torch.tensor([7, 2, 9]),
    negatives=torch.tensor([[1, 2], [2, 8], [0, 5]]),
    past=Past(items=torch.zeros(3, 0, dtype=torch.int64)),
    count=3.0,
    list_users=torch.tensor([1, 2]),
    list_past=Past(items=torch.zeros(2, 0, dtype=torch.int64)),
)
CANDIDATES = Candidates(
    items=torch.tensor([[3, 9, 11, 4], [0, 6, -1, 5]]),
    teacher=torch.tensor([[2.0, 1.0, 0.0, -torch.inf], [1.0, 0.5, -torch.inf, -torch.inf]]),
    ranked=3,
)


def compute(*terms, batch=BATCH, loss="bpr", candidates=CANDIDATES):
    given = replace(batch, lesson=Lesson(candidates={t.name: candidates for t in terms}))
    return Objective(model(), loss=loss, num_items=ITEMS, terms=terms)(given)


def scores():
    made = model()
    table = made.user.weight @ made.item.weight.T
    return lambda user, item: float(table[user, item])


@pytest.mark.parametrize("draw", [(UNSEEN, TOP, RANKED), (TOP, UNSEEN, RANKED), (TOP, RANKED, UNSEEN)])
def test_unseen_items_stand_last_wherever_they_were_written(draw):
    found = term(draw=draw).candidates(LISTS, torch.Generator().manual_seed(0))
    assert found.ranked == 5
    assert found.items.shape == found.teacher.shape == (2, 9)
    assert found.items[:, :2].tolist() == [[0, 1], [6, 7]]
    assert torch.isfinite(found.teacher[:, :5]).all()
    assert torch.isneginf(found.teacher[:, 5:]).all()
    for row, (listed, own) in enumerate([(range(6), {20, 21}), (range(6, 12), {22})]):
        assert not set(found.items[row, 5:].tolist()) & (set(listed) | own)


def test_several_ranked_draws_keep_the_order_they_were_written_in():
    drawn = term(draw=(RANKED, TOP)).candidates(LISTS, torch.Generator().manual_seed(0))
    assert drawn.items[:, 3:].tolist() == [[0, 1], [6, 7]]
    assert drawn.ranked == 5


def test_a_draw_that_finds_less_than_it_was_asked_counts_what_it_found():
    drawn = term(draw=(Top(k=50), UNSEEN)).candidates(LISTS, torch.Generator().manual_seed(0))
    assert drawn.ranked == 6
    assert drawn.items.shape == (2, 10)


def test_a_term_is_named_by_its_place_and_loss():
    assert [term(loss, position=i).name for i, loss in enumerate(LOSSES)] == [
        "0.plackett_luce",
        "1.softmax_kl",
        "2.soft_bce",
    ]


def test_the_task_is_bpr_averaged_over_rows():
    score = scores()
    expected = 0.0
    for row in range(3):
        user, positive = int(BATCH.users[row]), int(BATCH.positives[row])
        for negative in BATCH.negatives[row].tolist():
            expected += log(1 + exp(score(user, negative) - score(user, positive))) / 6
    assert compute()["task"].item() == pytest.approx(expected, rel=1e-5)


def test_the_softmax_task_corrects_for_shared_negatives_and_leaves_collisions_out():
    score, shared = scores(), [2, 11, 7, 11]
    expected = 0.0
    for user, positive in zip(BATCH.users.tolist(), BATCH.positives.tolist(), strict=True):
        rest = sum(exp(score(user, n)) * ITEMS / 4 for n in shared if n != positive)
        expected += (log(exp(score(user, positive)) + rest) - score(user, positive)) / 3
    found = compute(batch=replace(BATCH, negatives=torch.tensor(shared)), loss="softmax")
    assert found["task"].item() == pytest.approx(expected, rel=1e-5)


def test_the_softmax_task_over_the_catalogue_is_the_cross_entropy():
    score = scores()
    expected = 0.0
    for user, positive in zip(BATCH.users.tolist(), BATCH.positives.tolist(), strict=True):
        expected += (log(sum(exp(score(user, n)) for n in range(ITEMS))) - score(user, positive)) / 3
    found = compute(batch=replace(BATCH, negatives=torch.arange(ITEMS)), loss="softmax")
    assert found["task"].item() == pytest.approx(expected, rel=1e-5)


def test_a_term_compares_the_scores_of_its_list_users():
    score = scores()
    first, second = [score(1, i) for i in (3, 9, 11, 4)], [score(2, i) for i in (0, 6, 5)]
    total = 0.0
    for row, ranked in ((first, 3), (second, 2)):
        total += sum(log(sum(map(exp, row[at:]))) - row[at] for at in range(ranked)) / ranked / 2
    found = compute(term(weight=0.25))
    assert found["0.plackett_luce"].item() == pytest.approx(0.25 * total, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_twice_the_weight_is_twice_the_term_and_the_same_task(loss):
    once, twice = compute(term(loss, 0.5)), compute(term(loss, 1.0))
    name = term(loss).name
    assert once[name].item() > 0
    assert twice[name].item() == pytest.approx(2 * once[name].item(), rel=1e-6)
    assert twice["task"].item() == once["task"].item()


def test_terms_do_not_change_the_task_or_one_another():
    terms = [term("plackett_luce", position=0), term("softmax_kl", position=1), term("soft_bce", position=2)]
    together = compute(*terms)
    assert list(together) == ["task", "0.plackett_luce", "1.softmax_kl", "2.soft_bce"]
    assert together["task"].item() == pytest.approx(compute()["task"].item(), rel=1e-6)
    for each in terms:
        assert together[each.name].item() == pytest.approx(compute(each)[each.name].item(), rel=1e-6)


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_rows_that_come_twice_change_no_value(loss):
    double = replace(
        BATCH,
        users=BATCH.users.repeat(2),
        positives=BATCH.positives.repeat(2),
        negatives=BATCH.negatives.repeat(2, 1),
        past=Past(items=BATCH.past.items.repeat(2, 1)),
        count=6.0,
        list_users=BATCH.list_users.repeat(3),
        list_past=Past(items=BATCH.list_past.items.repeat(3, 1)),
    )
    thrice = Candidates(items=CANDIDATES.items.repeat(3, 1), teacher=CANDIDATES.teacher.repeat(3, 1), ranked=3)
    terms = [term(name, position=i) for i, name in enumerate(LOSSES)]
    once, more = compute(*terms, loss=loss), compute(*terms, batch=double, loss=loss, candidates=thrice)
    for name in once:
        assert more[name].item() == pytest.approx(once[name].item(), rel=1e-5)


@pytest.mark.parametrize("items", [list(range(6)), [5, 0, 5, 3]], ids=["catalogue", "sample"])
def test_what_a_place_has_read_by_then_is_known(items):
    history = [[-1, 4, 0, 5], [2, 1, 3, -1]]
    positives = torch.tensor([[-1, 0, -1, 9], [1, -1, 8, -1]])
    places = [(0, 1), (0, 3), (1, 0), (1, 2)]
    found = read(torch.tensor(history), positives, torch.tensor(items))
    assert found.tolist() == [[item in history[row][: place + 1] for item in items] for row, place in places]


def test_what_a_step_hides_of_the_past_is_known_all_the_same():
    hidden = torch.tensor([[3, -1, 4]])  # its second item is the positive of the first place
    found = read(hidden, torch.tensor([[5, 4, 6]]), torch.arange(7))
    assert [row.nonzero()[:, 0].tolist() for row in found] == [[3], [3, 5], [3, 4, 5]]
