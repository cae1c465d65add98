"""A number that is none ends a training: by the name of its loss, its step and its process; or of its table and row."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import zygote

from recdistill.errors import StageError
from recdistill.finite import added, called, finite_rows, means, sound
from recdistill.world import World

ALONE = World()
TERMS = ("task", "0.softmax_kl", "1.distance")


def summed(losses, *, begin=0, before=None):
    """Return the totals of `losses` [steps,3], each step of which is told as the loop tells it."""
    totals = None
    for step, each in enumerate(torch.tensor(losses), start=begin):
        named = dict(zip(TERMS, each, strict=True))
        totals = added(totals, named, each, step=step, before=before or {})
    return totals


def test_sums_are_those_of_float64_whatever_was_summed_before():
    found = means(summed([[1.0, 2.0, 0.1]] * 10, before={"task": 5.0}), ALONE, where="student")
    assert found == {"task": 15.0, "0.softmax_kl": 20.0, "1.distance": pytest.approx(np.float32(0.1) * 10.0, rel=1e-12)}


@pytest.mark.parametrize(
    ("number", "word"), [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite")], ids=["nan", "inf", "-inf"]
)
def test_the_first_loss_that_was_no_number_is_named_with_its_step_and_term(number, word):
    losses = [[1.0, 2.0, 3.0] for _ in range(9)]
    losses[5][2] = number  # after which it is one again, as the loss of another batch may be
    losses[7] = [math.nan] * 3
    with pytest.raises(StageError) as caught:
        means(summed(losses, begin=100), ALONE, where="student")
    assert "student: the loss distill[1] (distance) is no number from step 106 on" in str(caught.value)
    assert "or the weight of distill[1] (distance)" in str(caught.value)
    assert caught.value.exit_code == 1
    assert word in str(caught.value) or word == "infinite"  # a sum of an infinite loss and a NaN is NaN by then


def test_losses_that_break_in_one_step_are_named_together():
    with pytest.raises(StageError, match=r"the losses task, distill\[0\] \(softmax_kl\) are no number from step 1 on"):
        means(summed([[math.nan, math.inf, 0.0]]), ALONE, where="student")


def test_losses_that_float32_holds_never_sum_up_to_what_is_refused():
    found = means(summed([[3e38, -3e38, 0.0]] * 50), ALONE, where="student")
    assert found["task"] == pytest.approx(1.5e40)


def test_a_loss_is_called_what_it_is_where_it_was_written():
    said = [called(name) for name in ("task", "task.watched", "2.soft_bce", "2.soft_bce.adapter", "subclasses.spread")]
    wanted = ["task", "task.watched", "distill[2] (soft_bce)", "distill[2] (soft_bce.adapter)", "subclasses.spread"]
    assert said == wanted


def test_weights_and_moments_that_are_no_numbers_are_named_with_their_rows():
    table, moments = torch.zeros(9, 4), torch.ones(9)
    state = {"model": {"user": table, "ids": torch.arange(3), "none": torch.zeros(0, 4)}, "optimizer": [moments]}
    sound(state, ALONE, where="student", what="weights")
    table[7, 1], table[4, 2] = math.nan, -math.inf
    with pytest.raises(StageError, match=r"model\.user in 2 of its 9 rows here, first row 4"):
        sound(state, ALONE, where="student", what="weights")
    deep = {"optimizer": {"state": {"item": {"sum": torch.tensor([1.0, math.inf])}}}}
    with pytest.raises(StageError, match=r"student: the optimizer hold.*: optimizer\.state\.item\.sum\n"):
        sound(deep, ALONE, where="student", what="the optimizer")


def test_vectors_that_are_no_numbers_are_counted_and_the_first_is_named():
    vectors = np.zeros((5, 3), np.float32)
    assert finite_rows(vectors, where="student", what="vectors of users") is vectors
    vectors[3, 0] = np.inf
    with pytest.raises(StageError, match="1 of 5 vectors of users hold what is no number, first row 3"):
        finite_rows(vectors, where="student", what="vectors of users")


SCRIPT = """
import sys, torch
from recdistill import world
from recdistill.errors import StageError
from recdistill.finite import added, means, sound

with world.world(device="cpu") as joined:
    totals = None
    for step in range(6):
        each = torch.tensor([1.0, 2.0 if step < 4 - joined.rank else torch.nan])
        totals = added(totals, {"task": each[0], "0.path": each[1]}, each, step=step, before={})
    said = []
    broken = torch.full((3, 2), torch.inf if joined.rank else 0.0)
    for ask in (
        lambda: means(totals, joined, where="student"),
        lambda: sound({"user": broken}, joined, where="student", what="weights"),
        lambda: sound({"user": torch.zeros(3, 2)}, joined, where="student", what="weights"),
    ):
        try:
            ask()
            said.append("nothing")
        except StageError as error:
            said.append(str(error).splitlines()[0])
    with open(f"{sys.argv[1]}/rank{joined.rank}.txt", "w") as file:
        file.write("\\n".join(said))
"""


def test_every_process_raises_the_same_words_which_name_the_one_where_it_began(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    words = [str(script), str(tmp_path)]
    done = zygote.ranks(words, home=tmp_path, env=environment | {"HOME": str(tmp_path)}, timeout=100, processes=2)
    assert done.returncode == 0, done.stderr
    said = [(tmp_path / f"rank{rank}.txt").read_text().splitlines() for rank in range(2)]
    assert said[0] == said[1]
    loss, weights, nothing = said[0]
    assert "the loss distill[0] (path) is no number from step 4 on, first on rank 1" in loss
    assert "user in 3 of its 3 rows here, first row 0" in weights
    assert nothing == "nothing"
