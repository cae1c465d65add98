"""When a term counts: curves over the epochs, and what they make of a term's part in the loss."""

from __future__ import annotations

import pytest
import torch

from recdistill.distill.compose import make_term
from recdistill.distill.objective import Objective
from recdistill.distill.schedule import Curve, risen
from recdistill.distill.spec import ListTermSpec, Phase
from recdistill.distill.spec_draws import Top, Unseen
from recdistill.distill.spec_lists import HardBCE, LogitMSE
from recdistill.models.encoders import MF
from recdistill.models.tables import PlainTable
from recdistill.types import Batch, Candidates, Lesson, Past

EPOCHS = 10


def counts(epoch, **phase):
    return Curve(**phase, epochs=EPOCHS).at(epoch / EPOCHS)


def test_a_term_without_a_phase_counts_from_the_first_step_to_the_last():
    assert [counts(epoch) for epoch in (0, 3.3, 9.99)] == [1.0] * 3


def test_a_term_starts_and_stops_at_once():
    assert [counts(epoch, start=2, stop=5) for epoch in (0, 1.99, 2, 4.99, 5, 9)] == [0, 0, 1, 1, 0, 0]


def test_a_ramp_rises_from_nothing_evenly_and_stays():
    found = [counts(epoch, start=2, ramp=4) for epoch in (1, 2, 3, 4, 6, 8)]
    assert found == pytest.approx([0, 0, 0.25, 0.5, 1, 1])


def test_a_stop_ends_even_a_ramp():
    assert counts(3, start=2, ramp=4, stop=4) == pytest.approx(0.25)
    assert counts(4, start=2, ramp=4, stop=4) == 0


def test_the_second_form_of_a_loss_comes_with_its_epoch():
    curve = Curve(epochs=EPOCHS, switch=4)
    assert [curve.switched(epoch / EPOCHS) for epoch in (0, 3.9, 4, 9)] == [0, 0, 1, 1]


CANDIDATES = Candidates(
    items=torch.tensor([[1, 4, 2, 5], [0, 3, 6, 7]]),
    teacher=torch.tensor([[2.0, 1.0, 0.5, -1.0], [1.0, 0.5, 0.0, 0.2]]),
    ranked=2,
)


def losses(term, share):
    model = MF(PlainTable, num_users=3, num_items=8, dim=4, space="dot", temperature=1.0)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    nothing = Past(items=torch.zeros(2, 0, dtype=torch.int64))
    batch = Batch(
        users=torch.tensor([0, 1]),
        positives=torch.tensor([1, 2]),
        negatives=torch.tensor([[3], [4]]),
        past=nothing,
        count=2.0,
        list_users=torch.tensor([2, 1]),
        list_past=nothing,
        lesson=Lesson(candidates={term.name: CANDIDATES}, at=share, curves={term.name: term.curve.at(share)}),
    )
    return Objective(model, loss="bpr", num_items=8, terms=[term])(batch)


def test_a_term_is_nothing_before_its_start_and_its_part_on_the_ramp():
    spec = ListTermSpec(weight=0.5, draw=(Top(k=2),), loss=LogitMSE(), phase=Phase(start=2, ramp=4))
    term = make_term(spec, 0, num_items=8, epochs=EPOCHS)
    values = [losses(term, epoch / EPOCHS)[term.name].item() for epoch in (0, 1.9, 3, 9)]
    assert values[:2] == [0.0, 0.0]
    assert values[3] > 0
    assert values[2] == pytest.approx(values[3] / 4, rel=1e-5)


def test_the_dynamic_weights_of_ranking_distillation_come_in_their_epoch():
    spec = ListTermSpec(weight=1.0, draw=(Top(k=2), Unseen(n=2)), loss=HardBCE(start=4, sharpness=0.5))
    term = make_term(spec, 0, num_items=8, epochs=EPOCHS)
    early, late = (losses(term, epoch / EPOCHS)[term.name] for epoch in (3, 4))
    scores = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    static, dynamic = (term.loss(scores, CANDIDATES, dynamic=on) for on in (0.0, 1.0))
    assert torch.equal(term.value(scores, CANDIDATES, 2.0, 0.3), static.mean())
    assert torch.equal(term.value(scores, CANDIDATES, 2.0, 0.4), dynamic.mean())
    assert early.item() != late.item()


def test_a_continued_teacher_is_scaled_by_how_far_its_temperature_has_fallen():
    """1 - (T - 1) / T_max, T from T_max to 1 in even steps (Jafari et al., Findings of EMNLP 2022)."""
    done, hottest = [i / 20 for i in range(21)], 10.0
    temperatures = [hottest - (hottest - 1) * share for share in done]
    found = [risen(share, hottest) for share in done]
    assert found == pytest.approx([1 - (t - 1) / hottest for t in temperatures])
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == pytest.approx((1 / hottest, 1.0))
