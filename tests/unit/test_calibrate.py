"""Temperature and logistic line against planted values, and against float64 by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recdistill.calibrate import Line, fit_line, fit_temperature
from recdistill.errors import StageError
from recdistill.heldout import Held, Sheet, chances, weights
from recdistill.reliability import listwise, pointwise
from recdistill.types import Interactions

USERS, ITEMS = 400, 60
NOTHING = Interactions(indptr=np.zeros(USERS + 1, np.int64), items=np.zeros(0, np.int64))


def sheet(scores: np.ndarray, rows: list[int] | np.ndarray, items: list[int] | np.ndarray) -> Sheet:
    rows = np.asarray(rows, np.int64)
    count = np.bincount(rows, minlength=len(scores))
    weight = 1 / count[rows] / (count > 0).sum()
    held = Held(users=np.arange(len(scores)), rows=rows, items=np.asarray(items, np.int64), weight=weight, seen=NOTHING)
    return Sheet(torch.from_numpy(scores.astype(np.float32)), held)


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return np.random.default_rng(2).normal(0, 1.5, (USERS, ITEMS))


@pytest.fixture(scope="module")
def next_taken(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ten items of each user, drawn from the softmax of its logits."""
    rng = np.random.default_rng(3)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    items = np.concatenate([rng.choice(ITEMS, 10, p=row) for row in p])
    return np.repeat(np.arange(USERS), 10), items


def by_hand(found: Sheet, temperature: float) -> float:
    """Return the mean over users of the mean -log softmax of what each took."""
    scores, held = found.scores.double().numpy() / temperature, found.held
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    each = [-logs[u, held.items[held.rows == u]].mean() for u in np.unique(held.rows)]
    return float(np.mean(each))


def test_list_nll_is_that_of_float64_by_hand(logits) -> None:
    found = sheet(logits[:3], [0, 0, 2], [4, 5, 6])
    for temperature in (0.4, 1.0, 3.0):
        told = -float(chances([found], temperature) @ weights([found.held]))
        assert told == pytest.approx(by_hand(found, temperature), abs=1e-5)
        assert listwise([found], temperature)["nll"] == pytest.approx(told, abs=1e-5)
    assert chances([found], 1.0).shape == (3,)


@pytest.mark.parametrize("planted", [0.25, 1.0, 5.0])
def test_the_temperature_is_what_was_planted(logits, next_taken, planted) -> None:
    found = [sheet(logits * planted, *next_taken)]
    fitted = fit_temperature(found)
    assert fitted == pytest.approx(planted, rel=0.06)
    grid = np.geomspace(fitted / 2, fitted * 2, 41)
    values = [by_hand(found[0], t) for t in grid]
    assert abs(int(np.argmin(values)) - 20) <= 1  # the middle of the grid


def test_sheets_are_judged_together(logits, next_taken) -> None:
    """Two halves make the temperature of the whole: that is how folds are judged."""
    rows, items = next_taken
    first = rows < USERS // 2
    halves = [sheet(logits[: USERS // 2], rows[first], items[first])]
    halves.append(sheet(logits[USERS // 2 :], rows[~first] - USERS // 2, items[~first]))
    assert fit_temperature(halves) == pytest.approx(fit_temperature([sheet(logits, rows, items)]), rel=1e-4)


def test_a_teacher_that_is_always_right_or_always_wrong_ends_at_the_bounds(logits) -> None:
    best, worst = logits.argmax(1), logits.argmin(1)
    assert fit_temperature([sheet(logits, np.arange(USERS), best)]) < 2e-3
    assert fit_temperature([sheet(logits, np.arange(USERS), worst)]) > 900


def test_what_has_no_score_takes_no_part(logits, next_taken) -> None:
    """An external file scores some items; the others are neither candidates nor judged."""
    rows, items = next_taken
    holed = logits.copy()
    holed[:, 40:] = -np.inf
    found = sheet(holed, rows, items)
    said = chances([found], 1.0)
    assert np.isneginf(said[items >= 40]).all()
    kept = items < 40
    small = logits[:, :40] - np.log(np.exp(logits[:, :40]).sum(1, keepdims=True))
    np.testing.assert_allclose(said[kept], small[rows[kept], items[kept]], atol=1e-4)
    assert fit_temperature([found]) == pytest.approx(1.0, rel=0.1)
    assert listwise([found], 1.0)["share_scored"] == pytest.approx(kept.mean(), abs=1e-6)


@pytest.mark.parametrize(("scale", "shift"), [(0.5, -3.0), (2.0, -4.5), (1.0, 0.0)])
def test_the_line_is_what_was_planted(logits, scale, shift) -> None:
    """Chances sigmoid(scale t + shift), taken or not: the line is found, and then the table holds what it says."""
    rng = np.random.default_rng(5)
    rows, items = np.nonzero(rng.random(logits.shape) < 1 / (1 + np.exp(-(scale * logits + shift))))
    found = [sheet(logits, rows, items)]
    line = fit_line(found)
    assert (line.scale, line.shift) == (pytest.approx(scale, abs=0.12), pytest.approx(shift, abs=0.15))
    before, after = pointwise(found, Line()), pointwise(found, line)
    assert after["nll"] <= before["nll"]
    assert after["ece"] < 0.08
    table = after["table"]
    assert sum(row["observed"] for row in table) == len(rows)
    assert sum(row["expected"] for row in table) == pytest.approx(len(rows), rel=1e-4)  # the rate is the true one
    assert sum(row["pairs"] for row in table) == USERS * ITEMS


def test_pointwise_nll_by_hand() -> None:
    found = sheet(np.array([[2.0, -1.0, -np.inf]]), [0], [1])
    line = Line(0.5, 0.25)
    wanted = np.log1p(np.exp(1.25)) + np.log1p(np.exp(0.25))  # one that was not taken, one that was; the third is none
    assert pointwise([found], line)["nll"] == pytest.approx(wanted / 2, abs=1e-6)


def test_reliability_by_hand() -> None:
    """Two users, chances of 1/2 and 1/2, and of about 1 and 0: the first row of chances is right, the second wrong."""
    found = sheet(np.array([[0.0, 0.0], [math.log(0.999), math.log(0.001)]]), [0, 1], [0, 1])
    told = listwise([found], 1.0)
    assert [row["from"] for row in told["table"]] == [3e-4, 0.3]
    assert [row["observed"] for row in told["table"]] == pytest.approx([0.5, 0.5])
    assert [row["expected"] for row in told["table"]] == pytest.approx([0.0005, 0.9995])
    assert told["ece"] == pytest.approx(2 * 0.4995)


def test_scores_that_say_nothing_are_refused(logits) -> None:
    rng = np.random.default_rng(7)
    rows, items = np.nonzero(rng.random(logits.shape) < 1 / (1 + np.exp(logits + 3)))  # the reverse of what they say
    with pytest.raises(StageError, match="do not rise with what users take"):
        fit_line([sheet(logits, rows, items)])
    with pytest.raises(StageError, match="scored none of what is held out"):
        fit_line([sheet(np.full((2, 3), -np.inf), [0], [0])])
